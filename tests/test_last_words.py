"""What a VM does that does not give way."""

from __future__ import annotations

import ctypes
import os
import threading

import pytest

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import Config
from trio_lua.last_words import Witness
from trio_lua.log.error_log import NullErrorLog
from trio_lua.lua.vm import VM
from trio_lua.request.phase import Phase


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("jit", ["on", "off"])
def test_a_loop_without_end(jit: str) -> None:
    runtime = Runtime(Config(), clock=lambda: 0.0, sinks=[NullErrorLog()], product="")
    witness = Witness(runtime)
    cells = (ctypes.c_int * 2)()
    code = f"""
        local rt = ...
        local ffi = require "ffi"
        jit.{jit}(true, true)
        -- a call, so that the compiled loop reads the memory anew
        ffi.cdef "int trio_lua_test_yield(void) __asm__(\\"sched_yield\\");"
        local cell = ffi.cast("volatile int *", {ctypes.addressof(cells)}ULL)
        local function stand_still()
            while cell[0] == 0 do ffi.C.trio_lua_test_yield() cell[1] = cell[1] + 1 end
        end
        rt.S.r = {{ method = "GET", unparsed_uri = "/x?y", phase = {int(Phase.HEADER_FILTER)} }}
        rt.S.th = {{ co = coroutine.create(function() stand_still() end) }}
        assert(coroutine.resume(rt.S.th.co))
    """

    def run(vm: VM) -> None:
        vm.run(code.encode(), "=stuck.lua")

    thread = threading.Thread(target=run, args=(runtime.vm,))
    thread.start()
    try:
        # it has been compiled by then, and is nowhere else
        while cells[1] < 200 and thread.is_alive():
            os.sched_yield()
        answer = witness.ask(patience=10)
    finally:
        cells[0] = 1
        thread.join()
    runtime.vm.close()
    assert answer is not None
    text = answer.decode()
    assert text.startswith("GET /x?y\nstack traceback:\n")
    assert "\n\tstuck.lua:9: in function 'stand_still'\n" in text


def test_it_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VM that was in the middle of something at one instant is not at the next."""
    runtime = Runtime(Config(), clock=lambda: 0.0, sinks=[NullErrorLog()], product="")
    witness = Witness(runtime)
    answers = iter([None, b"a loop", b"too late"])
    monkeypatch.setattr(witness, "_ask", lambda _patience: next(answers))
    assert witness.ask() == b"a loop"
    monkeypatch.setattr(witness, "_ask", lambda _patience: None)
    assert witness.ask() is None
    runtime.vm.close()
