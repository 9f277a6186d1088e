"""Bounds on what Lua code uses between two waits: the thread behind ``guard.lua``, which has the whole story.

LuaJIT can sample one VM of a process, and does so with the signal PROF. So there is one guard at a time, and none
where a program uses that signal itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

from trio_lua.config.model import Settings
from trio_lua.lua.vm import LIBRARY, VM

__all__ = ["Guard", "constants"]

_MASK_COUNT = 8

#: Milliseconds of computing from one sample to the next.
INTERVAL = 20

#: Seconds from a sample to the hook: what sets a hook while the profiler's callback runs sets it in vain.
_PAUSE = 0.002

_set_hook = ctypes.CDLL(LIBRARY).lua_sethook
_set_hook.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)

_in_use = threading.Lock()


def constants(settings: Settings) -> dict[str, float]:
    """What ``guard.lua`` finds in a location."""
    bounds = {"cpu_budget": settings.lua_cpu_budget, "cpu_warning": settings.lua_cpu_warning}
    return {name: seconds for name, seconds in bounds.items() if seconds}


class Guard:
    """Watches one VM, from :meth:`start` to :meth:`stop`.

    Args:
        vm: The VM. It may run in any one thread.
        memory_limit: Bytes that it may have; 0 for no limit.
    """

    def __init__(self, vm: VM, memory_limit: int = 0) -> None:
        self._vm = vm
        self._limit = memory_limit
        self._thread: threading.Thread | None = None
        self._write_end = -1

    def start(self) -> str | None:
        """Begin to watch.

        Returns:
            Why that is not possible, or None.
        """
        if signal.getsignal(signal.SIGPROF) != signal.SIG_DFL:
            return "the signal PROF is in use"
        if not _in_use.acquire(blocking=False):
            return "another VM of the process is watched"
        read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        limit = self._limit / 1024 if self._limit else None
        state, hook = self._vm.export("start_guard")(self._write_end, INTERVAL, limit)
        self._thread = threading.Thread(
            target=_serve, args=(read_end, state, hook), name="trio_lua guard", daemon=True
        )
        self._thread.start()
        return None

    def stop(self) -> None:
        """Watch no longer."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._vm.export("stop_guard")()
            os.close(self._write_end)
            thread.join()
            # it may have been about to set the hook
            self._vm.export("stop_guard")()
            _in_use.release()


def _serve(read_end: int, state: int, hook: int) -> None:
    # its handler belongs to the thread that runs Lua
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
    while os.read(read_end, 64):
        time.sleep(_PAUSE)
        _set_hook(state, hook, _MASK_COUNT, 1)
    os.close(read_end)
