"""What Lua code does at this moment: for programs that embed the server, and for the dump that a signal asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trio_lua.api.runtime import RUNTIMES, Runtime
from trio_lua.log.error_log import ERROR, Log

__all__ = ["Thread", "dump_threads", "threads"]


@dataclass(frozen=True, slots=True)
class Thread:
    """A Lua thread that has not ended.

    Attributes:
        number: Its number in its VM.
        kind: ``"entry"`` for a handler's own thread, ``"user"`` for one of ``ngx.thread.spawn``.
        owner: The request (``"GET /path"``, ``"subrequest /path"``) or what else it belongs to (``"ngx.timer"``).
        state: ``"running"``, ``"ready"``, ``"sleeping"``, ``"waiting for a semaphore"``, ``"waiting for threads"`` or
            ``"waiting for an operation"``.
        age: Seconds since its request or timer began, or since it was spawned.
        place: File and line where it is.
        traceback: As error.log has it.
    """

    number: int
    kind: str
    owner: str
    state: str
    age: float
    place: str
    traceback: str

    def __str__(self) -> str:
        return (
            f"{self.kind} thread {self.number} of {self.owner} at {self.place}, {self.state}, "
            f"age {self.age:.3f} s"
        )


def threads(runtime: Runtime | None = None) -> list[Thread]:
    """The Lua threads of this process, the oldest of each worker first.

    To be called in the thread of the event loop: the VM is not safe for others.

    Args:
        runtime: The VM to look at; by default all.
    """
    runtimes = RUNTIMES if runtime is None else [runtime]
    return [
        thread
        for one in runtimes
        if not one.vm.closed
        for thread in sorted(_threads(one), key=lambda thread: thread.number)
    ]


def dump_threads(log: Log) -> None:
    """Write all Lua threads to an error log, with their tracebacks."""
    found = threads()
    log.log(ERROR, b"%d Lua threads" % len(found))
    for thread in found:
        log.log(ERROR, f"{thread}\nstack traceback:\n{thread.traceback}".encode())


def _threads(runtime: Runtime) -> Iterator[Thread]:
    found = runtime.next_thread(None)
    while found is not None:
        number, user, owner, state, age, place, traceback = found
        yield Thread(
            number,
            "user" if user else "entry",
            _text(owner),
            _text(state),
            age,
            _text(place),
            _text(traceback),
        )
        found = runtime.next_thread(number)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
