"""Who runs when in a thread pool.

A task runs in stretches: from its start, or from where it yielded, up to its next yield or its end. A stretch needs a
thread and a VM. The thread is free again after each; the VM stays with the task until its end, because a Lua coroutine
cannot leave its VM. That is why VMs are what has to be counted. There are as many as threads, and some more for
tasks that are suspended. A task that has its VM goes before all that have none, so what is there comes to its end
before more is begun, and new tasks wait in a queue with a bound. While all VMs belong to suspended tasks and others wait,
the owner of the tasks is asked now and then to drop those that nobody knows any more.

A pool owns its threads: who waits for a stretch may be cancelled, and the pool goes on until the
thread has come back. A VM that was interrupted, or failed in a way that leaves it unfit, is never used again.
"""

from __future__ import annotations

import contextlib
import signal
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

import trio

from trio_lua.errors import TrioLuaError
from trio_lua.threads.stack import on_large_stack

__all__ = ["Deadlock", "QueueFull", "State", "Stats", "Stretch", "Task", "TaskError", "ThreadPool"]

#: Seconds after which a VM that nobody needs is dropped.
IDLE = 60.0

#: What LuaJIT samples the worker's VM with is for the thread of that, and would break off calls that block here.
_NOT_OURS = (signal.SIGPROF,)

#: Seconds between two attempts to get VMs back while no task can run.
RECLAIM = 1.0


class TaskError(TrioLuaError):
    """A task cannot be run."""


class QueueFull(TaskError):
    """So many tasks wait already that no more are taken."""


class Deadlock(TaskError):
    """A task would wait for a VM that only those who wait could free."""


class State(Enum):
    """What a task is doing."""

    NEW = "new"
    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDED = "suspended"
    DEAD = "dead"


class PooledVM(Protocol):
    """What a pool needs of a VM."""

    def interrupt(self) -> None:
        """Stop what runs in it, soon, if that is possible; any thread may call this."""

    def forget(self) -> None:
        """Drop the task that is suspended in it."""

    def close(self) -> None:
        """Give back what it holds; it is not used again. Closing twice is harmless."""


V = TypeVar("V", bound=PooledVM)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What came of one stretch.

    Attributes:
        result: For whoever waits.
        suspended: The task has yielded.
        broken: The VM is not to be used again.
    """

    result: Any
    suspended: bool = False
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """Numbers of a pool, as ``threadpool.stats`` shows them.

    Attributes:
        threads: The most threads at once.
        max_queue: The most tasks that may wait.
        running: Tasks that run now, abandoned ones included.
        queued: Tasks that wait.
        suspended: Tasks that have yielded.
        vms: VMs there are.
        idle: VMs among them that no task has.
        done: Tasks that have ended.
        refused: Tasks that were not taken.
        abandoned: Tasks that were dropped before their end.
    """

    threads: int
    max_queue: int
    running: int
    queued: int
    suspended: int
    vms: int
    idle: int
    done: int
    refused: int
    abandoned: int


class Task(Generic[V]):
    """Some work for a pool.

    Attributes:
        state: What it is doing.
    """

    __slots__ = ("_done", "_result", "_vm", "_waiter", "_work", "state")

    def __init__(self) -> None:
        self.state = State.NEW
        self._vm: V | None = None
        self._work: Callable[[V], Stretch] | None = None
        self._waiter = 0
        self._done: trio.Event | None = None
        self._result: Any = None


class ThreadPool(Generic[V]):
    """Threads with VMs.

    Args:
        name: What errors call it.
        threads: How many tasks run at once.
        max_queue: How many new tasks may wait.
        suspended: How many VMs there may be beyond one for each thread.
        prepare: Called in the event loop when a VM is needed; what it returns makes the VM, in a thread.
        reclaim: Drops suspended tasks that nobody can resume any more. It may take its time.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int,
        max_queue: int,
        suspended: int,
        prepare: Callable[[], Callable[[], V]],
        reclaim: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self.threads = threads
        self.max_queue = max_queue
        self._max_vms = threads + suspended
        self._prepare = prepare
        self._reclaim = reclaim
        self._reclaiming = False
        self._limiter = trio.CapacityLimiter(threads)
        self._nursery: trio.Nursery | None = None
        self._active = 0
        self._vms = 0
        self._resumed: OrderedDict[Task[V], None] = OrderedDict()
        self._new: OrderedDict[Task[V], None] = OrderedDict()
        self._running: set[Task[V]] = set()
        self._suspended: set[Task[V]] = set()
        #: Idle VMs and since when; the one used last is taken first.
        self._idle: deque[tuple[float, V]] = deque()
        self._dropping = False
        self._done = self._refused = self._abandoned = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take tasks. At the end running ones are interrupted, and not waited for."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel()
                self._close()

    def _close(self) -> None:
        for task in (*self._running, *self._new, *self._resumed, *self._suspended):
            self.drop(task)
        while self._idle:
            self._idle.pop()[1].close()

    # ------------------------------------------------------------------- tasks

    async def run(self, task: Task[V], work: Callable[[V], Stretch], *, waiter: int = 0) -> Any:
        """Run the next stretch of a task in a thread.

        Args:
            task: A new one, or one that is suspended.
            work: Called in the thread with the task's VM.
            waiter: Tells apart those who wait, where that is known: somebody who waits cannot resume
                the tasks that it resumed before.

        Returns:
            :attr:`Stretch.result`.

        Raises:
            TaskError: It cannot be run now, or was dropped meanwhile.
            Exception: What ``work`` or the making of the VM raised.
        """
        if self._nursery is None:
            raise TaskError(f'thread pool "{self.name}" is not running')
        if task.state is State.SUSPENDED:
            self._suspended.remove(task)
            self._resumed[task] = None
        elif task.state is State.NEW:
            if not self._can_start() or self._active >= self.threads:
                self._refuse_if_hopeless(waiter)
            self._new[task] = None
        else:
            raise TaskError(f"cannot resume {task.state.value} task")
        task.state = State.QUEUED
        task._work, task._waiter, task._done = work, waiter, trio.Event()
        self._dispatch()
        try:
            await task._done.wait()
        except BaseException:
            self.drop(task)
            raise
        result, task._result = task._result, None
        if isinstance(result, BaseException):
            raise result
        return result

    def drop(self, task: Task[V]) -> bool:
        """Let go of a task, whatever it is doing; False if it has ended.

        One that runs is interrupted where Lua can be, and finishes unobserved otherwise.
        """
        state = task.state
        if state is State.DEAD:
            return False
        task.state = State.DEAD
        self._abandoned += 1
        if state is State.RUNNING:
            if task._vm is not None:
                task._vm.interrupt()
        else:
            self._new.pop(task, None)
            self._resumed.pop(task, None)
            self._suspended.discard(task)
            if task._vm is not None:
                vm, task._vm = task._vm, None
                vm.forget()
                self._keep(vm)
        if task._done is not None and not task._done.is_set():
            task._result = TaskError("the task was cancelled")
            task._done.set()
        return True

    def stats(self) -> Stats:
        """What the pool is doing."""
        return Stats(
            threads=self.threads,
            max_queue=self.max_queue,
            running=len(self._running),
            queued=len(self._new) + len(self._resumed),
            suspended=len(self._suspended),
            vms=self._vms,
            idle=len(self._idle),
            done=self._done,
            refused=self._refused,
            abandoned=self._abandoned,
        )

    def _refuse_if_hopeless(self, waiter: int) -> None:
        """Raise for a new task that may not, or should not, wait."""
        if len(self._new) >= self.max_queue:
            self._refused += 1
            raise QueueFull(
                f'thread pool "{self.name}" queue overflow: {len(self._new)} tasks waiting'
            )
        if waiter and len(self._suspended) >= self._max_vms:
            waiters = {waiter, *(task._waiter for task in self._new)}
            if all(task._waiter in waiters for task in self._suspended):
                self._refused += 1
                raise Deadlock(
                    f'thread pool "{self.name}": all {self._max_vms} VMs belong to suspended tasks of those who wait'
                )

    # -------------------------------------------------------------- scheduling

    def _can_start(self) -> bool:
        """Whether there is a VM for a new task."""
        return bool(self._idle) or self._vms < self._max_vms

    def _next(self) -> Task[V] | None:
        """The task that a free thread should take."""
        if self._resumed:
            return self._resumed.popitem(last=False)[0]
        if self._new and self._can_start():
            return self._new.popitem(last=False)[0]
        return None

    def _dispatch(self) -> None:
        while self._nursery is not None and self._active < self.threads:
            task = self._next()
            if task is None:
                break
            self._claim(task)
            self._active += 1
            self._nursery.start_soon(self._serve, task)
        if self._nursery is not None and self._is_stuck() and not self._reclaiming:
            self._reclaiming = True
            self._nursery.start_soon(self._get_back)

    def _is_stuck(self) -> bool:
        """Whether tasks wait, and only those who have suspended ones could change that."""
        return bool(self._new) and not self._active and not self._can_start()

    async def _get_back(self) -> None:
        try:
            while self._is_stuck():
                self._reclaim()
                await trio.sleep(RECLAIM)
        finally:
            self._reclaiming = False

    def _claim(self, task: Task[V]) -> None:
        """A task begins to run: it gets a VM, or the right to make one."""
        task.state = State.RUNNING
        self._running.add(task)
        if task._vm is None:
            if self._idle:
                task._vm = self._idle.pop()[1]
            else:
                self._vms += 1

    async def _serve(self, first: Task[V]) -> None:
        """One thread's worth of tasks, as long as there are any."""
        task: Task[V] | None = first
        try:
            while task is not None:
                await self._run_stretch(task)
                task = self._next()
                if task is not None:
                    self._claim(task)
        finally:
            self._active -= 1
        self._dispatch()

    async def _run_stretch(self, task: Task[V]) -> None:
        vm, work = task._vm, task._work
        assert work is not None
        make = self._prepare() if vm is None else None
        began = False

        def in_thread() -> Stretch:
            nonlocal vm, began
            began = True
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_OURS)
            try:
                return stretch_of_task()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        def stretch_of_task() -> Stretch:
            nonlocal vm
            if vm is None:
                assert make is not None
                vm = task._vm = make()
            stretch = Stretch(None) if task.state is State.DEAD else work(vm)
            if stretch.broken or task.state is State.DEAD:
                # here, because it may have much to free
                vm.close()
            return stretch

        stretch: Stretch
        try:
            stretch = await trio.to_thread.run_sync(
                on_large_stack, in_thread, abandon_on_cancel=True, limiter=self._limiter
            )
        except Exception as error:
            if not began:
                # the system refuses another thread
                failure = TaskError(f'thread pool "{self.name}": {error}')
                failure.__cause__ = error
                error = failure
            stretch = Stretch(error, broken=True)
        task._work = None
        self._running.discard(task)
        abandoned = task.state is State.DEAD
        if stretch.suspended and not abandoned:
            task.state = State.SUSPENDED
            self._suspended.add(task)
        else:
            task._vm = None
            if not abandoned:
                task.state = State.DEAD
                self._done += 1
            if vm is None or abandoned or stretch.broken:
                self._discard(vm)
            else:
                self._keep(vm)
        if not abandoned:
            assert task._done is not None
            task._result = stretch.result
            task._done.set()

    # --------------------------------------------------------------------- VMs

    def _keep(self, vm: V) -> None:
        if self._nursery is None:
            self._discard(vm)
            return
        self._idle.append((trio.current_time(), vm))
        if not self._dropping:
            self._dropping = True
            self._nursery.start_soon(self._drop_idle)
        self._dispatch()

    def _discard(self, vm: V | None) -> None:
        self._vms -= 1
        if vm is not None:
            vm.close()
        self._dispatch()

    async def _drop_idle(self) -> None:
        try:
            while self._idle:
                since, vm = self._idle[0]
                if trio.current_time() >= since + IDLE:
                    self._idle.popleft()
                    self._vms -= 1
                    await trio.to_thread.run_sync(vm.close, abandon_on_cancel=True)
                else:
                    await trio.sleep_until(since + IDLE)
        finally:
            self._dropping = False
