"""A VM in which tasks of a thread pool run.

What a stretch of a task returns to Lua code of a worker begins with its :class:`Outcome`; behind that come the parts of a
message. Python code gets Python values.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

from trio_lua.errors import LuaError
from trio_lua.lua.values import MAX_DEPTH, from_lua, to_lua
from trio_lua.lua.vm import LIBRARY, VM
from trio_lua.threads.pool import Stretch

__all__ = ["Message", "Outcome", "ThreadVM"]

#: A string and the long strings in it: see ``message.lua``.
Message = tuple[bytes, ...]

_WORKER = Path(__file__).parent / "worker.lua"
_MASK_COUNT = 8
_OUT_OF_MEMORY = b"not enough memory"

_set_hook = ctypes.CDLL(LIBRARY).lua_sethook
_set_hook.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)


class Outcome(IntEnum):
    """How a stretch ended."""

    DONE = 0  # message
    SUSPENDED = 1  # message
    FAILED = 2  # traceback, message
    BROKEN = 3  # text: the VM could not even say what happened


class ThreadVM:
    """One VM; not thread-safe, but no thread is special.

    Args:
        calls, values: As for :class:`~trio_lua.lua.vm.VM`.
        files: What makes up ``ngx.*`` there.
        paths: ``package.path`` and ``package.cpath``.
        log: Where lines go: number of the log, level, message.
        keep: What must be there as long as the VM, which may be longer than its pool.
        max_memory: As for :class:`~trio_lua.lua.vm.VM`.

    Raises:
        LuaError: A file failed.
    """

    def __init__(
        self,
        *,
        calls: Mapping[str, Callable[..., Any]],
        values: Mapping[str, Any],
        files: Iterable[Path],
        paths: tuple[bytes, bytes],
        log: Callable[[int, int, bytes], None],
        keep: object = None,
        max_memory: int | None = None,
    ) -> None:
        self._keep = keep
        self._sink = 0
        self._level = -1

        def write(_sink: int, level: int, message: bytes, _suffix: bytes, _connection: int) -> None:
            log(self._sink, level, message)

        self._vm: VM | None = VM(
            calls={**calls, "log": write},
            values=values,
            files=[*files, _WORKER],
            max_memory=max_memory,
        )
        self._max_memory = max_memory
        export = self._vm.export
        export("set_paths")(*paths)
        self._start = export("start")
        self._continue = export("continue")
        self._call = export("call")
        self._forget = export("forget")
        self._run_source = export("run_source")
        self._state, self._hook = export("interruption")()

    def aim(self, sink: int, level: int) -> None:
        """Choose the log of the lines to come, and the least serious level of them."""
        self._sink = sink
        if level != self._level:
            assert self._vm is not None
            self._level = level
            self._vm.set("log_level", level)

    # ---------------------------------------------------------------- stretches

    def start(self, message: Message) -> Stretch:
        """Begin a task: a function and its arguments."""
        return self._stretch(self._start, message)

    def resume(self, message: Message) -> Stretch:
        """Go on with the task that is suspended here."""
        return self._stretch(self._continue, message)

    def call(self, module: bytes, function: bytes, message: Message) -> Stretch:
        """Call a module's function; the result is a message that begins with true or false."""
        try:
            self._check_room(sum(map(len, message)))
            result = self._call(module, function, *message)
        except Exception as error:
            return Stretch((Outcome.BROKEN, _text(error)), broken=True)
        return Stretch(
            (Outcome.DONE, *(result if isinstance(result, tuple) else (result,))),
            broken=self._max_memory is not None and self._is_full(),
        )

    def run(self, source: bytes, chunk_name: bytes, args: tuple[Any, ...]) -> Stretch:
        """Run Lua code for Python: the result is a tuple of values, or the exception to raise.

        Data crosses as :mod:`trio_lua.lua.values` says.
        """
        vm = self._vm
        assert vm is not None
        try:
            self._check_room(_size(args))
            given = [to_lua(vm, arg) for arg in args]
        except MemoryError:
            return Stretch(LuaError(_OUT_OF_MEMORY.decode()))
        except (TypeError, ValueError) as error:
            return Stretch(error)
        try:
            result = self._run_source(source, chunk_name, *given)
            ok, *values = result if isinstance(result, tuple) else (result,)
            if ok:
                return Stretch(tuple(from_lua(vm, value) for value in values))
            message, trace = values[0], values[1]
            failure = LuaError(message.decode("utf-8", "replace"), trace.decode("utf-8", "replace"))
            return Stretch(failure, broken=self._max_memory is not None)
        except Exception as error:
            return Stretch(LuaError(_text(error).decode("utf-8", "replace")), broken=True)

    def _stretch(self, function: Callable[..., Any], message: Message) -> Stretch:
        try:
            self._check_room(sum(map(len, message)))
            result = function(*message)
        except Exception as error:
            return Stretch((Outcome.BROKEN, _text(error)), broken=True)
        return Stretch(
            result,
            suspended=result[0] == Outcome.SUSPENDED,
            # an error may have been that of memory, and there may be little left
            broken=result[0] == Outcome.FAILED and self._max_memory is not None,
        )

    def _check_room(self, size: int) -> None:
        """Refuse what does not fit: Lua would end the process."""
        if self._max_memory is not None:
            assert self._vm is not None
            need = 2 * size + 65536
            if self._vm.memory_used + need > self._max_memory:
                raise MemoryError

    def _is_full(self) -> bool:
        assert self._vm is not None
        assert self._max_memory is not None
        return self._vm.memory_used > self._max_memory // 2

    # ---------------------------------------------------------------- PooledVM

    def interrupt(self) -> None:
        """Let the Lua code that runs here fail at its next instruction; any thread may call this.

        Machine code that LuaJIT has made, and C functions, do not notice before they return to the interpreter.
        """
        # the reference keeps the Lua state where it is, whatever the thread does meanwhile
        vm = self._vm
        if vm is not None:
            _set_hook(self._state, self._hook, _MASK_COUNT, 1)

    def forget(self) -> None:
        """Drop the suspended task."""
        self._forget()

    def close(self) -> None:
        """Free what tasks have left; the VM itself goes with the last reference to it."""
        vm, self._vm = self._vm, None
        if vm is None:
            return
        _set_hook(self._state, None, 0, 0)
        for name in ("_start", "_continue", "_call", "_forget", "_run_source"):
            setattr(self, name, None)
        with contextlib.suppress(Exception):
            vm.close()


def _text(error: Exception) -> bytes:
    if isinstance(error, MemoryError):
        return _OUT_OF_MEMORY
    return str(error).encode("utf-8", "replace")


def _size(value: Any, depth: int = 0) -> int:
    """About how many bytes a value takes in Lua."""
    if isinstance(value, str):
        return 64 + len(value.encode("utf-8", "replace"))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return 64 + len(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return 64 + sum(64 + _size(part, depth + 1) for item in value.items() for part in item)
        if isinstance(value, (list, tuple)):
            return 64 + sum(64 + _size(item, depth + 1) for item in value)
    return 0
