"""Child processes of Lua code, with a pipe to and from each of their standard streams.

Nothing blocks but starting the program, which is over when the child runs it: a child is started where Lua may
not wait. Trio has its own :class:`trio.Process`; this is not built on it because that starts programs in a thread,
and because what is read here has OpenResty's units (lines, exact lengths) and keeps what came in front of an error.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import IO

import trio

from trio_lua.errors import TrioLuaError
from trio_lua.net.errors import text_of

__all__ = ["ALL", "ANY", "BYTES", "LINE", "Child", "Children", "PipeError", "Reader", "Writer"]

#: The units in which :class:`Reader` reads.
ALL, BYTES, LINE, ANY = range(4)

#: Reads from the kernel in one turn, after which other tasks get theirs.
_MAX_READS = 16
_LARGE = 65536

#: Threads that wait for the end of a child, on systems that cannot tell an event loop.
_WAITERS = trio.CapacityLimiter(math.inf)


class PipeError(TrioLuaError):
    """A pipe or a child cannot do what was asked.

    Attributes:
        text: OpenResty's word for it.
        partial: What came before, when reading; None when reading has not begun.
    """

    def __init__(self, text: str, partial: bytes | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.partial = partial


class _End:
    """This process's end of a pipe.

    Attributes:
        closed: Why nothing goes through it any more: the word for those who wait for it ("aborted", "closed").
    """

    def __init__(self, stream: IO[bytes] | None) -> None:
        # without one there is nothing to read or write
        self._stream = stream
        self.closed: str | None = None if stream else "closed"
        if stream is not None:
            os.set_blocking(stream.fileno(), False)

    @property
    def fd(self) -> int:
        """The descriptor.

        Raises:
            PipeError: It is closed.
        """
        if self._stream is None:
            raise PipeError("closed")
        return self._stream.fileno()

    async def _wait(self, ready: Callable[[int], Awaitable[None]], seconds: float | None) -> None:
        with trio.move_on_after(math.inf if seconds is None else seconds) as scope:
            try:
                await ready(self.fd)
            except (PipeError, trio.ClosedResourceError):
                raise PipeError(self.closed or "closed") from None
        if scope.cancelled_caught:
            raise PipeError("timeout")

    def close(self, why: str) -> None:
        """Close; whoever waits for it gets the word ``why``. Safe to call again."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self.closed = why
            trio.lowlevel.notify_closing(stream.fileno())
            with contextlib.suppress(OSError):
                stream.close()


class Reader(_End):
    """The end of a pipe that a child writes to.

    Args:
        stream: The pipe.
        size: Bytes taken from the kernel at once when anything is wanted.
    """

    def __init__(self, stream: IO[bytes] | None, size: int) -> None:
        super().__init__(stream)
        self._size = size
        self._data = bytearray()
        self._searched = 0
        self._eof = False

    def read_nowait(self, unit: int, count: int) -> bytes | None:
        """What is there of what is wanted, or None when it is not all there yet.

        Args:
            unit: :data:`ALL`, :data:`BYTES`, :data:`LINE` (without its end) or :data:`ANY`.
            count: For BYTES how many, for ANY how many at most.

        Raises:
            PipeError: The child has closed its end before, or this end is closed.
        """
        for _ in range(_MAX_READS):
            if self._data or self._eof:
                wanted = self._take(unit, count)
                if wanted is not None:
                    return wanted
            try:
                data = os.read(self.fd, self._size if unit == ANY else _LARGE)
            except BlockingIOError:
                return None
            except OSError as error:
                raise PipeError(text_of(error), self._rest()) from None
            if data:
                self._data += data
            else:
                self._eof = True
        return None

    async def read(self, unit: int, count: int, seconds: float | None) -> bytes:
        """Wait for what is wanted, ``seconds`` at most for each piece of it.

        Raises:
            PipeError: As :meth:`read_nowait`; "timeout"; "aborted" when it is closed in the meantime.
        """
        while True:
            try:
                await self._wait(trio.lowlevel.wait_readable, seconds)
            except PipeError as error:
                raise PipeError(error.text, self._rest()) from None
            wanted = self.read_nowait(unit, count)
            if wanted is not None:
                return wanted

    def _take(self, unit: int, count: int) -> bytes | None:
        data = self._data
        if unit == ALL:
            return self._rest() if self._eof else None
        if unit == LINE:
            end = data.find(b"\n", self._searched)
            if end >= 0:
                return self._cut(end, 1)
            self._searched = len(data)
        elif unit == BYTES and len(data) >= count:
            return self._cut(count)
        elif unit == ANY and data:
            return self._cut(min(count, len(data)))
        if self._eof:
            raise PipeError("closed", self._rest())
        return None

    def _cut(self, size: int, more: int = 0) -> bytes:
        result = bytes(self._data[:size])
        del self._data[: size + more]
        self._searched = 0
        # carriage returns are no part of a line, wherever they are in it
        return result.replace(b"\r", b"") if more else result

    def _rest(self) -> bytes:
        return self._cut(len(self._data))


class Writer(_End):
    """The end of a pipe that a child reads from."""

    def write_nowait(self, data: memoryview) -> memoryview:
        """Write what the pipe takes; what is left.

        Raises:
            PipeError: The child reads no more, or this end is closed.
        """
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except BlockingIOError:
                break
            except OSError as error:
                closed = error.errno == errno.EPIPE
                raise PipeError("closed" if closed else text_of(error)) from None
        return data

    async def write(self, data: memoryview, seconds: float | None) -> None:
        """Write all, waiting ``seconds`` at most for each piece to be taken.

        Raises:
            PipeError: As :meth:`write_nowait`; "timeout"; "aborted" when it is closed in the meantime.
        """
        while data:
            await self._wait(trio.lowlevel.wait_writable, seconds)
            data = self.write_nowait(data)


class Child:
    """A child process.

    Args:
        arguments: Program and arguments; the program is searched for in PATH.
        environ: ``NAME=VALUE`` for each variable; None for this process's environment.
        merge_stderr: What it writes to its standard error goes where its standard output goes.
        size: Bytes taken from a pipe at once when anything is wanted.

    Attributes:
        pid: Its process number.
        failed: Why the program could not be run, with the system's number; the child then ends at once with 1.
        stdin, stdout, stderr: The pipes.
        merged: Whether there is no pipe for the standard error.

    Raises:
        PipeError: There is no pipe or no process to be had.
    """

    def __init__(
        self,
        arguments: Sequence[bytes],
        environ: Sequence[bytes] | None = None,
        *,
        merge_stderr: bool = False,
        size: int = 4096,
    ) -> None:
        self.failed: OSError | None = None
        self.merged = merge_stderr
        variables = None
        if environ is not None:
            variables = dict(variable.split(b"=", 1) for variable in environ)
        try:
            try:
                self._process = self._start(_in_path(arguments[0]), arguments, variables)
            except OSError as error:
                if error.filename is None:
                    raise
                self.failed = error
                # as if exec had failed in a forked child
                self._process = self._start(b"/bin/sh", [b"sh", b"-c", b"exit 1"], None)
        except OSError as error:
            what = "pipe" if error.errno in (errno.EMFILE, errno.ENFILE) else "fork"
            raise PipeError(f"{what} failed: {os.strerror(error.errno or 0)}") from None
        self.pid = self._process.pid
        self.stdin = Writer(self._process.stdin)
        self.stdout = Reader(self._process.stdout, size)
        self.stderr = Reader(self._process.stderr, size)

    def _start(
        self, program: bytes, arguments: Sequence[bytes], variables: dict[bytes, bytes] | None
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                arguments,
                executable=program,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if self.merged else subprocess.PIPE,
                env=variables,
            )
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # a script without #! is the shell's, as for execvp()
            return self._start(b"/bin/sh", [b"sh", program, *arguments[1:]], variables)

    @property
    def ended(self) -> bool:
        """Whether it is not running any more."""
        return self._process.poll() is not None

    def kill(self, number: int) -> None:
        """Send a signal.

        Raises:
            PipeError: "exited", "invalid signal", or the system's word.
        """
        if self.ended:
            raise PipeError("exited")
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            raise PipeError("exited") from None
        except OSError as error:
            invalid = error.errno == errno.EINVAL
            raise PipeError("invalid signal" if invalid else text_of(error)) from None
        except OverflowError:
            raise PipeError("invalid signal") from None

    async def wait(self, seconds: float | None = None) -> tuple[str, int]:
        """Wait for its end: "exit" or "signal", and the status or the signal's number.

        Raises:
            PipeError: "timeout": it has not ended after ``seconds``.
        """
        with trio.move_on_after(math.inf if seconds is None else seconds):
            await _wait_for_end(self._process)
        code = self._process.poll()
        if code is None:
            raise PipeError("timeout")
        return ("signal", -code) if code < 0 else ("exit", code)

    def close_pipes(self, why: str = "closed") -> None:
        """Close this process's ends of the pipes."""
        for end in (self.stdin, self.stdout, self.stderr):
            end.close(why)

    def reap(self) -> None:
        """Take leave of a child that has ended or is being killed; blocks until it has."""
        self._process.wait()


def _in_path(program: bytes) -> bytes:
    """Where execvp() finds a program; the name itself when it does not."""
    if b"/" not in program:
        for folder in os.get_exec_path():
            path = os.path.join(os.fsencode(folder), program)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
    return program


async def _wait_for_end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        # a thread that is abandoned ends with the child, which is killed when nobody can wait for it any more
        await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True, limiter=_WAITERS)
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


class Children:
    """The children of a worker: none outlives it."""

    def __init__(self) -> None:
        self._alive: set[Child] = set()
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        """How many there are that nobody has let go of."""
        return len(self._alive)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take leave of children in the background; at the end, kill all."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                yield
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self.close()

    def add(self, child: Child) -> None:
        """Take over a child that was just started."""
        self._alive.add(child)

    def release(self, child: Child) -> None:
        """Kill a child if it runs, close its pipes, and forget it. Safe to call again."""
        if child not in self._alive:
            return
        self._alive.remove(child)
        child.close_pipes()
        if child.ended:
            return
        with contextlib.suppress(PipeError):
            child.kill(signal.SIGKILL)
        if self._nursery is None:
            child.reap()
        else:
            self._nursery.start_soon(self._bury, child)

    async def _bury(self, child: Child) -> None:
        try:
            await child.wait()
        finally:
            child.reap()

    def close(self) -> None:
        """Kill all that are left."""
        for child in list(self._alive):
            self.release(child)
