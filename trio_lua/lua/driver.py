"""Runs Lua threads on Trio: the only module that awaits what Lua asks for.

A Lua thread is a sans-IO state machine. Resuming it says that it ended, failed or left, or which
operation it waits for; :meth:`Driver.finish` awaits the operation and resumes with the result.

A handler whose threads are several, or wait without an operation (asleep, for a semaphore, for each other), is a
*run* that Lua schedules (``10_thread.lua``). Its operations are then tasks of a nursery, opened for the first of them,
each in a cancel scope of its own so that a thread can be killed; whoever resumes a thread hands what comes
of it to the run's task. Time and events come from :meth:`Driver.serve`, one task of the VM's owner, which
resumes the threads of all runs in the order that Lua's clock has (``12_clock.lua``).

A request starts *inline*, in the task that received it, because most requests never wait and a task of
their own would cost more than they do. The engine is written as ordinary coroutine functions all the
same. Before anything that really waits, :func:`detach` yields one mark to whoever drives the
coroutine inline; it then gives the half-run coroutine to a new task (:func:`resume_detached`), where it goes on.
An answer of a near server often comes while other requests have their turn: :func:`attempt` lets whoever drives the
coroutine look again then, and many requests that wait for one never become tasks.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Coroutine, Generator
from enum import IntEnum
from typing import Any, Protocol

import trio

from trio_lua.lua.ops import Op, OpTable

__all__ = ["DETACH", "Driver", "Outcome", "Owner", "attempt", "detach", "resume_detached"]


class Outcome(IntEnum):
    """How a resume of a Lua thread ended: the first value of the tuple it returns."""

    DONE = 0
    SUSPENDED = 1  # what the thread or its run waits for: see 10_thread.lua
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


#: Threads resumed by the clock before other tasks have their turn.
_BATCH = 64

#: What a coroutine that runs inline yields before its first wait.
DETACH = object()


class Owner(Protocol):
    """What a Lua thread belongs to: a request or a timer."""

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
def _yield_attempt(call: Callable[[], Any]) -> Generator[object, Any, Any]:
    return (yield call)


async def attempt(owner: Owner, call: Callable[[], Any]) -> Any:
    """Leave the inline run, unless ``call`` has something for an answer once others have had their turn.

    Args:
        owner: It is inline.
        call: Does not wait and does not raise; None means that it has no answer yet. Who drives the coroutine may
            call it, or not.

    Returns:
        What it has returned. None: from here on the coroutine is a task of its own.
    """
    value = await _yield_attempt(call)
    if value is None:
        owner.inline = False
    return value


@types.coroutine
def resume_detached(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Go on, in a task, with a coroutine that yielded :data:`DETACH` or an attempt when it ran inline."""
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


class _Run:
    """A handler whose task waits for its threads.

    Attributes:
        owner: What it belongs to.
        result: What Lua has told the task and the task has not taken yet; None for nothing.
        error: What an operation has raised.
        branches: Operations that wait for a nursery.
        completed: Operations that have ended: number, thread, scope and results.
        nursery: Where operations run; None until there are some.
        scopes: Of the last operation that was a task, by thread.
    """

    __slots__ = ("_task", "branches", "completed", "error", "nursery", "owner", "result", "scopes")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.result: Any = None
        self.error: Exception | None = None
        self.branches: list[tuple[int, trio.CancelScope, tuple[Any, ...]]] = []
        self.completed: list[tuple[int, int, trio.CancelScope, tuple[Any, ...]]] = []
        self.nursery: trio.Nursery | None = None
        self.scopes: dict[int, trio.CancelScope] = {}
        self._task: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        """Wait until :meth:`wake`."""

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def forget(self, thread: int, scope: trio.CancelScope) -> None:
        """An operation is over; its thread may have begun another one, if it was cancelled."""
        if self.scopes.get(thread) is scope:
            del self.scopes[thread]

    def wake(self) -> None:
        """Let the run's task look, if it waits."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


class Driver:
    """Drives the threads of one VM.

    Args:
        table: The operations; the calls of the clock are added.
    """

    def __init__(self, table: OpTable) -> None:
        self._table = table
        self._ops = table.ops
        self._spawning = table.spawning
        #: Operations that leave the inline run themselves, if they have to wait.
        self._inline = table.inline
        self._runs: dict[int, _Run] = {}
        #: How many operations have been tasks.
        self._count = 0
        self._alarm = math.inf
        self._sleep: trio.CancelScope | None = None
        table.call("alarm", self._set_alarm)
        table.call("monotonic", trio.current_time)
        table.call("cancel_op", self._cancel_op)

    def bind(self, export: Callable[[str], Callable[..., Any]]) -> None:
        """Take the functions of the VM, which is made after the table is complete."""
        self._resume = export("resume")
        self._proceed = export("proceed")
        self._drop = export("drop")
        self._turn = export("turn")
        self._tick = export("tick")
        self._next_turn = export("next_turn")

    def wrap_ops(self, wrapper: Callable[[str, Op], Op]) -> None:
        """Put a function in the place of each operation: what ``wrapper`` makes of its name and of itself."""
        for name, number in self._table.numbers.items():
            self._ops[number] = wrapper(name, self._ops[number])

    # ----------------------------------------------------------------- threads

    async def finish(self, owner: Owner, result: Any) -> Any:
        """Run a handler to its end.

        Args:
            owner: What its threads belong to.
            result: What its start returned.

        Returns:
            The outcome that is not :attr:`Outcome.SUSPENDED`: an int, or a tuple that begins with one.
        """
        while type(result) is tuple and result[0] == 1:
            op = result[2]
            if op.__class__ is bool or op in self._spawning:
                result = await self._run(owner, result)
                continue
            if owner.inline and op not in self._inline:
                await detach(owner)
            thread = result[1]
            try:
                values = await self._ops[op](owner, *result[3:])
            except BaseException:
                self._drop(thread)
                raise
            result = self._resume(thread, *values)
        return result

    def expect(self, owner: Owner, result: Any) -> None:
        """Say that :meth:`finish` will be called in a later turn: the clock may wake threads of the handler before that.

        Args:
            owner: What its threads belong to.
            result: What its start returned; it has suspended.
        """
        if result[2].__class__ is bool:
            run = self._runs[result[1]] = _Run(owner)
            # threads that can go on do so before others wake
            self._take(run, result)

    async def _run(self, owner: Owner, result: Any) -> Any:
        """Run a handler whose threads wait in Lua, or that needs a nursery; to its end or until it needs neither."""
        number = result[1]
        run = self._runs.get(number)
        expected = run is not None
        if run is None:
            run = self._runs[number] = _Run(owner)
        try:
            if not expected:
                self._take(run, result)
            if owner.inline:
                await detach(owner)
            while run.result is None and not run.branches:
                await run.wait()
            result = run.result
            if result is None or (
                type(result) is tuple and result[0] == 1 and result[2] in self._spawning
            ):
                result = await self._run_tasks(number, run)
            return result
        except BaseException:
            self._drop(number)
            raise
        finally:
            del self._runs[number]

    async def _run_tasks(self, number: int, run: _Run) -> Any:
        """Run a handler that has tasks to its end; they end with it."""
        owner = run.owner
        async with trio.open_nursery() as nursery:
            owner.nursery = run.nursery = nursery
            try:
                branches, run.branches = run.branches, []
                for branch in branches:
                    nursery.start_soon(self._branch, run, *branch)
                result = await self._collect(run)
            except Exception as error:
                run.error = error
            finally:
                owner.nursery = None
                # before its tasks end, so that none of them runs a thread on
                self._drop(number)
                nursery.cancel_scope.cancel()
        if run.error is not None:
            # raised in the nursery it would be a group
            raise run.error
        return result

    async def _collect(self, run: _Run) -> Any:
        """Wait for the outcome of a run whose operations are tasks.

        What has ended at the same time goes on in the order in which it began: Trio has none.
        """
        while True:
            while run.result is None:
                await run.wait()
                if run.error is not None:
                    raise run.error
                completed, run.completed = run.completed, []
                for _, thread, scope, values in sorted(completed):
                    run.forget(thread, scope)
                    if not scope.cancel_called:
                        self._take(run, self._resume(thread, *values))
            result, run.result = run.result, None
            if type(result) is not tuple or result[0] != 1:
                return result
            values = await self._ops[result[2]](run.owner, *result[3:])
            self._take(run, self._resume(result[1], *values))

    def _take(self, run: _Run, result: Any) -> None:
        """Take what running a thread of a run has returned; start what it waits for."""
        while type(result) is tuple and result[0] == 1:
            op = result[2]
            if op is False:
                return
            if op is not True:
                break
            scope = run.scopes[result[3]] = trio.CancelScope()
            self._count += 1
            branch = (self._count, scope, result[3:])
            if run.nursery is not None:
                run.nursery.start_soon(self._branch, run, *branch)
            else:
                run.branches.append(branch)
                run.wake()
            result = self._proceed(result[1])
        run.result = result
        run.wake()

    async def _branch(
        self, run: _Run, number: int, scope: trio.CancelScope, operation: tuple[Any, ...]
    ) -> None:
        """Await the operation of one thread of several."""
        thread, op, *args = operation
        try:
            with scope:
                if not scope.cancel_called:
                    values = await self._ops[op](run.owner, *args)
                    run.completed.append((number, thread, scope, values))
                    run.wake()
        except Exception as error:
            run.error = error
            run.wake()
        if scope.cancel_called:
            run.forget(thread, scope)

    def _cancel_op(self, number: int, thread: int) -> None:
        """``rt.py.cancel_op``: what a thread of a run waits for is over, with or without the thread."""
        run = self._runs.get(number)
        if run is not None and thread in run.scopes:
            run.scopes[thread].cancel()

    def woken(self, number: int, result: Any) -> None:
        """Lua has resumed a thread of a run by itself, and this came of it."""
        self._take(self._runs[number], result)

    # ------------------------------------------------------------------- clock

    def _set_alarm(self, at: float) -> None:
        """``rt.py.alarm``: the next turn begins earlier than was planned."""
        self._alarm = at
        if self._sleep is not None:
            self._sleep.deadline = at

    async def serve(self, start_timer: Callable[[int, Any], None]) -> None:
        """Wake what waits for a time or an event; runs as long as the VM is used.

        Args:
            start_timer: Called when a timer has fired, with the number of its request and what starting
                it has returned; with 0 and None when something else happened to the timers.
        """
        tick = self._tick
        while True:
            at = self._next_turn()
            self._alarm = math.inf if at is None else at
            with trio.CancelScope(deadline=self._alarm) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None
            self._turn()
            count = 0
            while True:
                woken = tick()
                if woken is None:
                    break
                if woken.__class__ is not tuple:
                    start_timer(0, None)
                else:
                    number = woken[0]
                    result = woken[1] if len(woken) == 2 else woken[1:]
                    if number > 0:
                        self.woken(number, result)
                    else:
                        start_timer(-number, result)
                count += 1
                if count % _BATCH == 0:
                    await trio.lowlevel.checkpoint()
