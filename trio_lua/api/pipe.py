"""``ngx.pipe``: the calls and operations behind child processes.

Lua knows a child by a number, and lets go of its children when their request ends, as OpenResty does; that kills
those that still run.
"""

from __future__ import annotations

from typing import Any

from trio_lua.lua.ops import OpTable
from trio_lua.net.child import Child, Children, PipeError, Reader

__all__ = ["Pipes"]

#: nil, text, what came before.
Failure = tuple[None, bytes, "bytes | None"]


def _failure(error: PipeError) -> Failure:
    return None, error.text.encode("utf-8", "surrogateescape"), error.partial


class Pipes:
    """The child processes of a VM.

    Args:
        table: Where to add the calls and operations of ``ngx/pipe.lua``.
    """

    def __init__(self, table: OpTable) -> None:
        #: The processes; its ``running()`` has to be entered.
        self.children = Children()
        self._pipes: dict[int, Child] = {}
        self._last = 0
        for name in ("spawn", "read", "write", "shutdown", "kill", "release"):
            table.call(f"pipe_{name}", getattr(self, f"_{name}"))
        for name in ("read", "write", "wait"):
            table.op(f"pipe_{name}", getattr(self, f"_{name}_op"))

    # -------------------------------------------------------------------- calls

    def _spawn(
        self, arguments: bytes, environ: bytes | None, merge_stderr: bool, size: int
    ) -> tuple[int, int, bytes | None] | Failure:
        """Its number and pid, and why its program was not run (text for a log line)."""
        try:
            child = Child(
                arguments.split(b"\0"),
                None if environ is None else environ.split(b"\0"),
                merge_stderr=merge_stderr,
                size=size,
            )
        except PipeError as error:
            return _failure(error)
        self.children.add(child)
        self._last = number = self._last + 1
        self._pipes[number] = child
        reason = child.failed
        text = None if reason is None else f"({reason.errno}: {reason.strerror})".encode()
        return number, child.pid, text

    def _reader(self, number: int, stderr: bool) -> Reader:
        child = self._pipes[number]
        if not stderr:
            return child.stdout
        if child.merged:
            raise PipeError("merged to stdout")
        return child.stderr

    def _read(self, number: int, stderr: bool, unit: int, count: int) -> bytes | Failure | None:
        """What is wanted; None when one has to wait for it."""
        try:
            return self._reader(number, stderr).read_nowait(unit, int(count))
        except PipeError as error:
            return _failure(error)

    def _write(self, number: int, data: bytes) -> int | Failure:
        """How many bytes the pipe has taken."""
        try:
            return len(data) - len(self._pipes[number].stdin.write_nowait(memoryview(data)))
        except PipeError as error:
            return _failure(error)

    def _shutdown(self, number: int, name: bytes) -> bool | Failure:
        child = self._pipes[number]
        if name == b"stdin":
            child.stdin.close("aborted")
        elif name == b"stdout":
            child.stdout.close("aborted")
        elif child.merged:
            return _failure(PipeError("merged to stdout"))
        else:
            child.stderr.close("aborted")
        return True

    def _kill(self, number: int, signal: float) -> bool | Failure:
        try:
            self._pipes[number].kill(int(signal))
        except PipeError as error:
            return _failure(error)
        return True

    def _release(self, number: int) -> None:
        self.children.release(self._pipes.pop(number))

    # --------------------------------------------------------------- operations

    async def _read_op(
        self, _owner: Any, number: int, stderr: bool, unit: int, count: int, seconds: float | None
    ) -> tuple[bytes] | Failure:
        try:
            return (await self._reader(number, stderr).read(unit, int(count), seconds),)
        except PipeError as error:
            return _failure(error)

    async def _write_op(
        self, _owner: Any, number: int, data: bytes, begin: int, seconds: float | None
    ) -> tuple[bool] | Failure:
        try:
            await self._pipes[number].stdin.write(memoryview(data)[int(begin) :], seconds)
        except PipeError as error:
            return _failure(error)
        return (True,)

    async def _wait_op(
        self, _owner: Any, number: int, seconds: float | None
    ) -> tuple[bytes, int] | Failure:
        try:
            reason, status = await self._pipes[number].wait(seconds)
        except PipeError as error:
            return _failure(error)
        return reason.encode(), status
