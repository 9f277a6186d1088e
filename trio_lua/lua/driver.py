"""Runs Lua threads on Trio: the only module that awaits what Lua asks for.

A Lua thread is a sans-IO state machine. Resuming it says that it ended, failed or left, or which
operation it waits for; :meth:`Driver.finish` awaits the operation and resumes with the result.

A request starts *inline*, in the task that received it, because most requests never wait and a task of
their own would cost more than they do. The engine is written as ordinary coroutine functions all the
same. Before anything that really waits, :func:`detach` yields one mark to whoever drives the
coroutine inline; it then gives the half-run coroutine to a new task (:func:`resume_detached`), where it goes on.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Coroutine, Generator, Sequence
from enum import IntEnum
from typing import Any, Protocol

import trio

from trio_lua.lua.ops import Op

__all__ = ["DETACH", "Driver", "Outcome", "Owner", "detach", "resume_detached"]


class Outcome(IntEnum):
    """How a resume of a Lua thread ended: the first value of the tuple it returns."""

    DONE = 0
    SUSPENDED = 1  # thread id, operation, arguments...
    FAILED = 2  # message, traceback
    EXIT = 3  # status
    EXEC = 4  # uri, args
    JUMP = 5
    LOAD_FAILED = 6  # message, whether the file is missing
    CONCLUDED = 7  # last bytes of the response, keep-alive
    SENT = 8  # done, and the handler has produced output
    READ = 9  # a request was read: number, head length, content length, host, path
    STARTED = (
        10  # a handler did not simply end: number, head length, host, location, step, outcome...
    )


#: What a coroutine that runs inline yields before its first wait.
DETACH = object()


class Owner(Protocol):
    """What a Lua thread belongs to: a request, later also a timer."""

    #: Whether it still runs in the task that received it.
    inline: bool

    #: Where its child tasks run; unset or None until the first one.
    nursery: trio.Nursery | None


@types.coroutine
def _yield_detach() -> Generator[object, None, None]:
    yield DETACH


async def detach(owner: Owner) -> None:
    """Leave the inline run, if this is one: from here on the coroutine is a task of its own."""
    if owner.inline:
        owner.inline = False
        await _yield_detach()


@types.coroutine
def resume_detached(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Go on, in a task, with a coroutine that yielded :data:`DETACH` when it ran inline."""
    value: Any = None
    while True:
        try:
            trap = coroutine.send(value)
        except StopIteration as stop:
            return stop.value
        # An exception thrown in by the scheduler (Cancelled) belongs to the inner coroutine.
        try:
            value = yield trap
        except BaseException as error:
            while True:
                try:
                    trap = coroutine.throw(error)
                except StopIteration as stop:
                    return stop.value
                try:
                    value = yield trap
                except BaseException as next_error:
                    error = next_error
                    continue
                break


class Driver:
    """Drives the threads of one VM.

    Args:
        resume: Lua's ``rt.export.resume``.
        drop: Lua's ``rt.export.drop``.
        ops: The operations by number.
        spawning: Numbers of the operations that start tasks in their owner's nursery.
        inline: Numbers of the operations that leave the inline run themselves, if they have to wait.
    """

    def __init__(
        self,
        resume: Callable[..., Any],
        drop: Callable[[int], None],
        ops: Sequence[Op],
        spawning: Collection[int] = (),
        inline: Collection[int] = (),
    ) -> None:
        self._resume = resume
        self._drop = drop
        self._ops = ops
        self._spawning = spawning
        self._inline = inline

    async def finish(self, owner: Owner, result: Any) -> Any:
        """Run a thread to its end.

        Args:
            owner: What the thread belongs to.
            result: What its start returned.

        Returns:
            The outcome that is not :attr:`Outcome.SUSPENDED`: an int, or a tuple that begins with one.
        """
        while type(result) is tuple and result[0] == 1:
            if owner.inline and result[2] not in self._inline:
                await detach(owner)
            thread = result[1]
            if result[2] in self._spawning and getattr(owner, "nursery", None) is None:
                return await self._finish_in_nursery(owner, result)
            try:
                values = await self._ops[result[2]](owner, *result[3:])
            except BaseException:
                self._drop(thread)
                raise
            result = self._resume(thread, *values)
        return result

    async def _finish_in_nursery(self, owner: Owner, result: Any) -> Any:
        """The rest of a thread that starts tasks: they end with it."""
        async with trio.open_nursery() as nursery:
            owner.nursery = nursery
            try:
                return await self.finish(owner, result)
            finally:
                owner.nursery = None
                nursery.cancel_scope.cancel()
