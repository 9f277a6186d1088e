"""Which task runs when; the VMs are dummies, and tasks wait until the test lets them go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trio_lua.threads.pool import (
    IDLE,
    RECLAIM,
    Deadlock,
    QueueFull,
    State,
    Stretch,
    Task,
    TaskError,
    ThreadPool,
)

WAIT = 20.0


class DummyVM:
    """A VM that remembers what was done to it."""

    def __init__(self) -> None:
        self.interrupted = threading.Event()
        self.forgotten = 0
        self.closed = 0

    def interrupt(self) -> None:
        self.interrupted.set()

    def forget(self) -> None:
        self.forgotten += 1

    def close(self) -> None:
        self.closed += 1


Work = Callable[[DummyVM], Stretch]


class Gate:
    """Work that begins and then waits for the test."""

    def __init__(self, *, suspended: bool = False, broken: bool = False) -> None:
        self.began = threading.Event()
        self.open = threading.Event()
        self.vm: DummyVM | None = None
        self._suspended = suspended
        self._broken = broken

    def __call__(self, vm: DummyVM) -> Stretch:
        self.vm = vm
        self.began.set()
        assert self.open.wait(WAIT)
        return Stretch("value", suspended=self._suspended, broken=self._broken)


async def happens(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, WAIT)


def at_once(result: object, *, suspended: bool = False) -> Work:
    return lambda _vm: Stretch(result, suspended=suspended)


async def until(happened: Callable[[], object]) -> None:
    with trio.fail_after(WAIT):
        while not happened():
            await trio.lowlevel.checkpoint()


Pools = Callable[..., Awaitable[ThreadPool[DummyVM]]]


@pytest.fixture
def pools(nursery: trio.Nursery) -> Pools:
    async def start(
        threads: int = 1, max_queue: int = 10, suspended: int = 1
    ) -> ThreadPool[DummyVM]:
        pool: ThreadPool[DummyVM] = ThreadPool(
            "p",
            threads=threads,
            max_queue=max_queue,
            suspended=suspended,
            prepare=lambda: DummyVM,
        )

        async def run(task_status: trio.TaskStatus[None]) -> None:
            async with pool.running():
                task_status.started()
                await trio.sleep_forever()

        await nursery.start(lambda task_status: run(task_status))
        return pool

    return start


async def test_a_task_runs_in_a_thread_and_its_vm_is_used_again(pools: Pools) -> None:
    pool = await pools()
    seen = []

    def work(vm: DummyVM) -> Stretch:
        seen.append((threading.current_thread() is threading.main_thread(), vm))
        return Stretch(len(seen))

    assert await pool.run(Task(), work) == 1
    assert await pool.run(Task(), work) == 2
    assert [main for main, _ in seen] == [False, False]
    assert seen[0][1] is seen[1][1]
    stats = pool.stats()
    assert (stats.vms, stats.idle, stats.done, stats.running) == (1, 1, 2, 0)


async def test_the_signal_of_the_profiler_is_for_other_threads(pools: Pools) -> None:
    pool = await pools()
    inside = await pool.run(
        Task(), lambda _vm: Stretch(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    )
    assert signal.SIGPROF in inside
    outside = await trio.to_thread.run_sync(signal.pthread_sigmask, signal.SIG_BLOCK, ())
    assert signal.SIGPROF not in outside


async def test_the_queue_has_a_bound(
    pools: Pools, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    threads, max_queue = 2, 3
    pool = await pools(threads, max_queue)
    gate = Gate()
    taken = refused = 0
    for _ in range(threads + max_queue + 2):
        if pool.stats().queued < max_queue:
            nursery.start_soon(pool.run, Task(), gate)
            await trio.testing.wait_all_tasks_blocked()
            taken += 1
        else:
            with pytest.raises(QueueFull, match=r'thread pool "p" queue overflow: 3 tasks waiting'):
                await pool.run(Task(), gate)
            refused += 1
    with capsys.disabled():
        print(
            f" [{threads} threads, queue of {max_queue}: {taken} taken, {refused} refused]", end=""
        )
    assert (taken, refused) == (threads + max_queue, 2)
    assert pool.stats().refused == 2
    gate.open.set()
    await until(lambda: pool.stats().done == taken)


async def test_a_suspended_task_keeps_its_vm_and_not_its_thread(pools: Pools) -> None:
    pool = await pools(threads=1, suspended=1)
    task: Task[DummyVM] = Task()
    vms: list[DummyVM] = []

    def begin(vm: DummyVM) -> Stretch:
        vms.append(vm)
        return Stretch("yielded", suspended=True)

    def go_on(vm: DummyVM) -> Stretch:
        vms.append(vm)
        return Stretch("end")

    assert await pool.run(task, begin) == "yielded"
    assert task.state is State.SUSPENDED
    assert await pool.run(Task(), at_once("other")) == "other"
    assert pool.stats().vms == 2
    assert await pool.run(task, go_on) == "end"
    assert vms[0] is vms[1]
    with pytest.raises(TaskError, match="cannot resume dead task"):
        await pool.run(task, go_on)


async def test_resumed_tasks_go_before_new_ones(pools: Pools, nursery: trio.Nursery) -> None:
    pool = await pools(threads=1, suspended=2)
    task: Task[DummyVM] = Task()
    await pool.run(task, at_once(None, suspended=True))
    order: list[str] = []
    gate = Gate()
    nursery.start_soon(pool.run, Task(), gate)
    await happens(gate.began)

    async def run(task: Task[DummyVM], name: str) -> None:
        await pool.run(task, at_once(None))
        order.append(name)

    for name in ("new 1", "new 2"):
        nursery.start_soon(run, Task(), name)
        await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(run, task, "resumed")
    await trio.testing.wait_all_tasks_blocked()
    gate.open.set()
    await until(lambda: len(order) == 3)
    assert order == ["resumed", "new 1", "new 2"]


async def test_new_tasks_wait_for_a_vm(pools: Pools, nursery: trio.Nursery) -> None:
    pool = await pools(threads=1, suspended=1)
    tasks: list[Task[DummyVM]] = [Task(), Task()]
    for waiter, task in enumerate(tasks, 1):
        await pool.run(task, at_once(None, suspended=True), waiter=waiter)
    done = trio.Event()

    async def run() -> None:
        assert await pool.run(Task(), at_once("ran"), waiter=3) == "ran"
        done.set()

    nursery.start_soon(run)
    await trio.testing.wait_all_tasks_blocked()
    assert pool.stats().queued == 1
    await pool.run(tasks[0], at_once("end"), waiter=1)
    await done.wait()
    assert pool.stats().vms == 2


async def test_vms_of_tasks_that_nobody_knows_are_asked_for(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    lost: list[Task[DummyVM]] = []
    asked: list[float] = []

    def reclaim() -> None:
        asked.append(trio.current_time())
        if len(asked) == 3:
            pool.drop(lost[0])

    pool: ThreadPool[DummyVM] = ThreadPool(
        "p", threads=1, max_queue=1, suspended=0, prepare=lambda: DummyVM, reclaim=reclaim
    )
    async with pool.running():
        lost.append(Task())
        await pool.run(lost[0], at_once(None, suspended=True))
        assert asked == [], "nobody waits"
        done = trio.Event()

        async def run() -> None:
            assert await pool.run(Task(), at_once("ran")) == "ran"
            done.set()

        nursery.start_soon(run)
        while not done.is_set():
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(RECLAIM)
        assert len(asked) == 3
        assert asked[1] - asked[0] == asked[2] - asked[1] == RECLAIM


async def test_who_holds_all_vms_cannot_wait_for_one(pools: Pools) -> None:
    pool = await pools(threads=1, suspended=1)
    tasks: list[Task[DummyVM]] = [Task(), Task()]
    for task in tasks:
        await pool.run(task, at_once(None, suspended=True), waiter=7)
    with pytest.raises(Deadlock, match="all 2 VMs belong to suspended tasks of those who wait"):
        await pool.run(Task(), at_once(None), waiter=7)
    assert await pool.run(tasks[0], at_once("end"), waiter=7) == "end"
    assert await pool.run(Task(), at_once("now"), waiter=7) == "now"


async def test_an_abandoned_task_that_waits_never_runs(pools: Pools, nursery: trio.Nursery) -> None:
    pool = await pools()
    gate = Gate()
    nursery.start_soon(pool.run, Task(), gate)
    await happens(gate.began)
    ran: list[DummyVM] = []
    with trio.CancelScope() as scope:
        nursery.start_soon(trio.testing.wait_all_tasks_blocked)
        scope.cancel()
        await pool.run(Task(), lambda vm: ran.append(vm) or Stretch(None))
    assert pool.stats().queued == 0
    gate.open.set()
    assert await pool.run(Task(), at_once(1)) == 1
    assert ran == []


async def test_an_abandoned_task_that_runs_is_interrupted_and_its_vm_discarded(
    pools: Pools, nursery: trio.Nursery
) -> None:
    pool = await pools(threads=1)
    gate = Gate()
    with trio.CancelScope() as scope:

        async def abandon() -> None:
            await happens(gate.began)
            scope.cancel()

        nursery.start_soon(abandon)
        await pool.run(Task(), gate)
    assert scope.cancelled_caught
    assert gate.vm is not None
    assert gate.vm.interrupted.is_set()
    assert pool.stats().running == 1, "its thread has not come back"
    gate.open.set()
    other: list[DummyVM] = []
    await pool.run(Task(), lambda vm: other.append(vm) or Stretch(None))
    assert other[0] is not gate.vm
    assert gate.vm.closed
    assert (pool.stats().vms, pool.stats().abandoned) == (1, 1)


async def test_a_dropped_suspended_task_gives_its_vm_back(pools: Pools) -> None:
    pool = await pools()
    task: Task[DummyVM] = Task()
    held: list[DummyVM] = []
    await pool.run(task, lambda vm: held.append(vm) or Stretch(None, suspended=True))
    assert pool.drop(task) is True
    assert pool.drop(task) is False
    assert held[0].forgotten == 1
    assert (pool.stats().idle, pool.stats().suspended) == (1, 0)


async def test_dropping_wakes_who_waits(pools: Pools, nursery: trio.Nursery) -> None:
    pool = await pools()
    gate = Gate()
    task: Task[DummyVM] = Task()

    async def cancel() -> None:
        await happens(gate.began)
        pool.drop(task)

    nursery.start_soon(cancel)
    with pytest.raises(TaskError, match="the task was cancelled"):
        await pool.run(task, gate)
    gate.open.set()


async def test_a_broken_vm_is_not_used_again(pools: Pools) -> None:
    pool = await pools()
    vms: list[DummyVM] = []
    for _ in range(2):
        await pool.run(Task(), lambda vm: vms.append(vm) or Stretch(None, broken=True))
    assert vms[0] is not vms[1]
    assert vms[0].closed
    assert pool.stats().vms == 0


async def test_what_work_raises_is_raised(pools: Pools) -> None:
    pool = await pools()

    def work(_vm: DummyVM) -> Stretch:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await pool.run(Task(), work)
    assert await pool.run(Task(), at_once(1)) == 1


async def test_vms_that_nobody_needs_are_dropped(
    pools: Pools, mock_clock: trio.testing.MockClock
) -> None:
    pool = await pools()
    vms: list[DummyVM] = []
    await pool.run(Task(), lambda vm: vms.append(vm) or Stretch(None))
    mock_clock.jump(IDLE - 1)
    await trio.testing.wait_all_tasks_blocked()
    assert pool.stats().vms == 1
    mock_clock.jump(2)
    await until(lambda: not pool.stats().vms and vms[0].closed)
    assert await pool.run(Task(), at_once("new")) == "new"


async def test_at_its_end_nobody_waits_any_more(nursery: trio.Nursery) -> None:
    pool: ThreadPool[DummyVM] = ThreadPool(
        "p", threads=1, max_queue=1, suspended=1, prepare=lambda: DummyVM
    )
    gate = Gate()
    errors: list[TaskError] = []

    async def run() -> None:
        try:
            await pool.run(Task(), gate)
        except TaskError as error:
            errors.append(error)

    async with pool.running():
        nursery.start_soon(run)
        await happens(gate.began)
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    assert len(errors) == 2
    assert gate.vm is not None
    assert gate.vm.interrupted.is_set()
    gate.open.set()
    with pytest.raises(TaskError, match="is not running"):
        await pool.run(Task(), gate)
