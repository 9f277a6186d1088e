"""What a process was doing whose event loop stands still: the Lua traceback of the thread that does not give way.

Nobody may look at a VM while it runs. But another thread of the process can fork: in the child nothing runs except
that thread, so the VM stands still there, at the very instruction, and may be looked at and broken. The child resumes a
coroutine that lies ready for this purpose, through LuaJIT's C API, because lupa's lock is held for ever. If that fails, as it can
when the VM was in the middle of something (compiling, for example), only the child dies, and the next one sees another instant.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time

from trio_lua.api.runtime import Runtime
from trio_lua.lua.vm import LIBRARY

__all__ = ["Witness"]

_JIT_ENGINE_OFF = 0
_GC_STOP = 0
_LENGTH = 1 << 16
_ATTEMPTS = 3


class Witness:
    """Can tell what a VM does.

    Args:
        runtime: The VM; to be called in its thread.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._state = ctypes.c_void_p(runtime.vm.export("witness")())
        # with the GIL held: the child has no other thread that could take it
        lua = ctypes.PyDLL(LIBRARY)
        self._resume = lua.lua_resume
        self._set_mode = lua.luaJIT_setmode
        self._gc = lua.lua_gc
        self._to_string = lua.lua_tolstring
        self._to_string.restype = ctypes.c_void_p

    def ask(self, patience: float = 0.5) -> bytes | None:
        """What the VM does at this moment, or None. For another thread than that of the VM.

        Args:
            patience: Seconds to wait for the answer.
        """
        end = time.monotonic() + patience
        for _ in range(_ATTEMPTS):
            answer = self._ask(max(0.0, end - time.monotonic()))
            if answer is not None:
                return answer
        return None

    def _ask(self, patience: float) -> bytes | None:
        reading, writing = os.pipe()
        try:
            pid = os.fork()
            if not pid:
                self._tell(writing)
        finally:
            os.close(writing)
        answer = b""
        try:
            if select.select([reading], [], [], patience)[0]:
                answer = os.read(reading, _LENGTH)
        finally:
            os.close(reading)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return answer or None

    def _tell(self, fd: int) -> None:
        try:
            self._set_mode(self._state, 0, _JIT_ENGINE_OFF)
            self._gc(self._state, _GC_STOP, 0)
            if self._resume(self._state, 0) == 0:
                size = ctypes.c_size_t()
                text = self._to_string(self._state, -1, ctypes.byref(size))
                if text:
                    os.write(fd, ctypes.string_at(text, size.value)[:_LENGTH])
        finally:
            os._exit(0)
