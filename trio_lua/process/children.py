"""The operating system as the master sees it: forking, signals, exits, and one line to each child.

The master is a plain loop without Trio and without threads, because only such a process may fork. It waits in one
``select``: for signals (through Python's wakeup descriptor, so that handlers do nothing and no signal is lost between two
waits) and for what children report. A line to a child is a pipe in each direction: a child says that it serves, the master asks
what it is doing, and a child whose pipe ends knows that the master is dead.

:class:`~trio_lua.process.master.Master` is written against :class:`Processes`, which tests replace.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Protocol, Union

__all__ = ["Children", "Event", "Exited", "Line", "Processes", "Ready", "Signalled"]

_PID = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal has come."""

    number: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A child has ended, with an exit code or by a signal."""

    pid: int
    code: int = 0
    signal: int = 0
    core: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """A child serves."""

    pid: int


Event = Union[Signalled, Exited, Ready]


class Line(Protocol):
    """The child's end of the line to its master."""

    def ready(self) -> None:
        """Say that this process serves."""

    def asked(self) -> bool:
        """Wait (blocking) until the master asks what this process is doing; False when the master is gone."""


class Processes(Protocol):
    """What a master needs of the system."""

    def now(self) -> float:
        """A clock, in seconds."""

    def fork(self, main: Callable[[Line], int]) -> int:
        """Start a child that runs ``main`` and exits with its result; returns its pid.

        Signals are blocked in it until ``main`` has its handlers and unblocks them.
        """

    def execute(self, arguments: list[str], environment: dict[str, str], fds: list[int]) -> int:
        """Start another program, which inherits some descriptors; returns its pid."""

    def kill(self, pid: int, number: int) -> None:
        """Send a signal. Raises OSError."""

    def ask(self, pid: int) -> None:
        """Ask a child what it is doing; the answer is in the error log."""

    def wait(self, timeout: float | None) -> list[Event]:
        """What has happened: signals first, in their order. Returns nothing after ``timeout`` seconds."""


class _Line:
    def __init__(self, reports: int, questions: int) -> None:
        self._reports = reports
        self._questions = questions

    def ready(self) -> None:
        os.write(self._reports, _PID.pack(os.getpid()))

    def asked(self) -> bool:
        return bool(os.read(self._questions, 1))


class Children:
    """The real system. To be used in the main thread, with ``with``.

    Args:
        signals: Those to take over for as long as the ``with`` block lasts, besides ``SIGCHLD``.
    """

    def __init__(self, signals: Iterable[int]) -> None:
        self._signals = frozenset((*signals, signal.SIGCHLD))
        self._questions: dict[int, int] = {}

    def __enter__(self) -> Children:
        self._woken, self._wakeup = os.pipe()
        self._reported, self._reports = os.pipe()
        for fd in (self._woken, self._wakeup, self._reported, self._reports):
            os.set_blocking(fd, False)
        self._old_wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, _nothing) for number in self._signals}
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        for fd in (self._woken, self._wakeup, self._reported, self._reports):
            os.close(fd)
        self._drop_questions()

    def now(self) -> float:
        return time.monotonic()

    def fork(self, main: Callable[[Line], int]) -> int:
        asked, question = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # what comes before the child has its own handlers must wait for them
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        try:
            pid = os.fork()
            if not pid:
                os._exit(self._child(main, _Line(self._reports, asked), question))
        except OSError:
            os.close(question)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(asked)
        self._questions[pid] = question
        return pid

    def _child(self, main: Callable[[Line], int], line: Line, question: int) -> int:
        try:
            # what the master made will not change any more: looking at it would only copy its pages
            gc.freeze()
            signal.set_wakeup_fd(-1)
            # what is not ended by a signal is not to be ended by the same one again, while it ends: so no SIG_DFL
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(question)
            self._drop_questions()
            os.close(self._woken)
            os.close(self._wakeup)
            os.close(self._reported)
            return main(line)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            return 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()

    def execute(self, arguments: list[str], environment: dict[str, str], fds: list[int]) -> int:
        for fd in fds:
            os.set_inheritable(fd, True)
        try:
            return os.posix_spawn(arguments[0], arguments, environment, setsigdef=self._signals)
        finally:
            for fd in fds:
                os.set_inheritable(fd, False)

    def kill(self, pid: int, number: int) -> None:
        os.kill(pid, number)

    def ask(self, pid: int) -> None:
        question = self._questions.get(pid)
        if question is not None:
            with contextlib.suppress(OSError):
                os.write(question, b"?")

    def wait(self, timeout: float | None) -> list[Event]:
        with contextlib.suppress(InterruptedError):
            select.select([self._woken, self._reported], [], [], timeout)
        signals: list[Event] = [Signalled(number) for number in _read(self._woken)]
        reports = _read(self._reported)
        events = signals + [Ready(pid) for (pid,) in _PID.iter_unpack(reports)]
        return events + list(self._reap())

    def _reap(self) -> Iterator[Exited]:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            question = self._questions.pop(pid, None)
            if question is not None:
                os.close(question)
            if os.WIFSIGNALED(status):
                yield Exited(pid, 0, os.WTERMSIG(status), os.WCOREDUMP(status))
            else:
                yield Exited(pid, os.WEXITSTATUS(status))

    def _drop_questions(self) -> None:
        for fd in self._questions.values():
            os.close(fd)
        self._questions.clear()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor says it all."""


def _read(fd: int) -> bytes:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(fd, 4096):
            data += chunk
    return data
