"""The life of a worker in one process, with a stub worker and signals from a channel."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from socket import socket
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from trio_lua.config.model import Config, Http, Listen
from trio_lua.errors import ConfigError, LuaError, TrioLuaError
from trio_lua.process import single
from trio_lua.process.cycle import Cycle
from trio_lua.process.signals import DUMP
from trio_lua.process.single import SingleProcess, StartError, Worker
from trio_lua.process.sockets import Listeners


class StubWorker:
    """Serves nothing; ends when it was told to quit and ``busy`` is over."""

    def __init__(self, config: Config, listeners: list[tuple[Listen, socket]]) -> None:
        self.config = config
        self.listeners = listeners
        self.quitted = trio.Event()
        self.busy = trio.Event()
        self.busy.set()
        self.reopened = 0
        self.ended = False
        self.crash = trio.Event()

    def quit(self) -> None:
        self.quitted.set()

    def reopen_logs(self) -> None:
        self.reopened += 1


class Stage:
    """A process under test: its signals, its workers, and configurations to start or refuse."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self.send, self._receive = trio.open_memory_channel[int](10)
        self.workers: list[StubWorker] = []
        self.failure: Exception | None = None
        self.next: Callable[[Cycle], Cycle | None] | None = None
        self.status: int | BaseException | None = None
        self.finished = trio.Event()
        self.ready: list[Worker] = []
        self.replaced: list[tuple[Cycle, Cycle]] = []

    def cycle(self, name: str = "first", *listens: Listen, **config: Any) -> Cycle:
        settings = Config(http=Http(), prefix=name, **config)
        listeners = Listeners.bind(listens, error_log=self.log) if listens else Listeners()
        return Cycle(settings, self.log, listeners)

    async def run_worker(
        self,
        config: Config,
        *,
        listeners: list[tuple[Listen, socket]],
        error_log: Any,
        zones: Any,
        task_status: trio.TaskStatus[Worker],
    ) -> None:
        try:
            await trio.lowlevel.checkpoint()
            if self.failure is not None:
                raise self.failure
            worker = StubWorker(config, listeners)
            self.workers.append(worker)
            try:
                task_status.started(worker)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._crash, worker)
                    await worker.quitted.wait()
                    await worker.busy.wait()
                    nursery.cancel_scope.cancel()
            finally:
                worker.ended = True
        finally:
            for _, sock in listeners:
                sock.close()

    async def _crash(self, worker: StubWorker) -> None:
        await worker.crash.wait()
        raise RuntimeError("a bug")

    def signals(self) -> AbstractContextManager[AsyncIterator[int]]:
        return nullcontext(self._receive)

    def process(self, cycle: Cycle, **options: Any) -> SingleProcess:
        return SingleProcess(
            cycle,
            self.run_worker,
            reload=self.next,
            ready=self.ready.append,
            replaced=lambda new, old: self.replaced.append((new, old)),
            signals=self.signals,
            **options,
        )

    async def run(self, process: SingleProcess) -> None:
        try:
            self.status = await process.run()
        except TrioLuaError as exc:
            self.status = exc
        process.cycle.close()
        self.finished.set()

    async def signal(self, number: int) -> None:
        await self.send.send(number)
        await self.settle()

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def stage(log: Any, inline_threads: None) -> Stage:
    return Stage(log)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def start(stage: Stage, nursery: trio.Nursery, cycle: Cycle) -> SingleProcess:
    process = stage.process(cycle)
    nursery.start_soon(stage.run, process)
    await stage.settle()
    return process


async def test_what_it_starts_with_is_not_looked_through_for_garbage(
    stage: Stage, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    names = ("collect", "freeze", "unfreeze")
    recorder = SimpleNamespace(**{name: partial(calls.append, name) for name in names})
    monkeypatch.setattr(single, "gc", recorder)
    await start(stage, nursery, stage.cycle())
    assert calls[-2:] == ["collect", "freeze"]
    await stage.signal(signal.SIGTERM)
    assert calls[-1] == "unfreeze"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stop_ends_at_once(
    stage: Stage, nursery: trio.Nursery, log: Any, number: signal.Signals
) -> None:
    await start(stage, nursery, stage.cycle())
    assert stage.ready == stage.workers
    stage.workers[0].busy = trio.Event()
    await stage.signal(number)
    assert stage.status == 0
    assert stage.workers[0].ended
    assert not stage.workers[0].quitted.is_set()
    assert log.lines == [f"[notice] signal {int(number)} ({number.name}) received, exiting"]
    assert log.closed


async def test_quit_waits_for_requests(stage: Stage, nursery: trio.Nursery, log: Any) -> None:
    await start(stage, nursery, stage.cycle())
    busy = stage.workers[0].busy = trio.Event()
    await stage.signal(signal.SIGQUIT)
    await stage.signal(signal.SIGQUIT)
    assert stage.workers[0].quitted.is_set()
    assert stage.status is None
    busy.set()
    await stage.settle()
    assert stage.status == 0
    assert log.lines[:2] == [
        "[notice] signal 3 (SIGQUIT) received, shutting down",
        "[notice] gracefully shutting down",
    ]


async def test_stop_after_quit_does_not_wait(stage: Stage, nursery: trio.Nursery) -> None:
    await start(stage, nursery, stage.cycle())
    stage.workers[0].busy = trio.Event()
    await stage.signal(signal.SIGQUIT)
    await stage.signal(signal.SIGTERM)
    assert stage.status == 0


async def test_reopen(stage: Stage, nursery: trio.Nursery, log: Any) -> None:
    await start(stage, nursery, stage.cycle())
    await stage.signal(signal.SIGUSR1)
    assert log.reopened == 1
    assert stage.workers[0].reopened == 1
    assert log.lines[1] == "[notice] reopening logs"
    await stage.signal(signal.SIGTERM)


async def test_a_dump_of_all_threads(stage: Stage, nursery: trio.Nursery, log: Any) -> None:
    await start(stage, nursery, stage.cycle())
    await stage.signal(DUMP)
    assert log.lines[1].endswith(" Lua threads")
    await stage.signal(signal.SIGTERM)


async def test_ignored_signals(stage: Stage, nursery: trio.Nursery, log: Any) -> None:
    await start(stage, nursery, stage.cycle())
    await stage.signal(signal.SIGUSR2)
    assert log.lines == ["[notice] signal 12 (SIGUSR2) received, ignoring"]
    await stage.signal(signal.SIGTERM)


async def test_reload_replaces_the_worker(
    stage: Stage, nursery: trio.Nursery, tmp_path: Path
) -> None:
    kept, gone, new = (Listen("", 0, path=str(tmp_path / n)) for n in ("kept", "gone", "new"))
    stage.next = lambda old: replace(
        stage.cycle("second"),
        listeners=Listeners.bind([kept, new], error_log=stage.log, previous=old.listeners),
    )
    process = await start(stage, nursery, stage.cycle("first", kept, gone))
    busy = stage.workers[0].busy = trio.Event()
    await stage.signal(signal.SIGHUP)
    first, second = stage.workers
    assert process.cycle.config.prefix == second.config.prefix == "second"
    assert first.quitted.is_set()
    assert not first.ended
    assert [(n.config.prefix, o.config.prefix) for n, o in stage.replaced] == [("second", "first")]
    assert names(tmp_path) == ["kept", "new"]
    busy.set()
    await stage.settle()
    assert first.ended
    assert stage.status is None
    await stage.signal(signal.SIGQUIT)
    assert stage.status == 0
    assert names(tmp_path) == []


async def test_quit_reaches_workers_that_still_finish(stage: Stage, nursery: trio.Nursery) -> None:
    stage.next = lambda old: stage.cycle("second")
    await start(stage, nursery, stage.cycle())
    busy = stage.workers[0].busy = trio.Event()
    await stage.signal(signal.SIGHUP)
    await stage.signal(signal.SIGQUIT)
    assert stage.status is None
    assert stage.workers[1].ended
    busy.set()
    await stage.settle()
    assert stage.status == 0


async def test_refused_reload_keeps_the_old_worker(
    stage: Stage, nursery: trio.Nursery, log: Any
) -> None:
    stage.next = lambda old: None
    process = await start(stage, nursery, stage.cycle())
    await stage.signal(signal.SIGHUP)
    assert len(stage.workers) == 1
    assert not stage.workers[0].quitted.is_set()
    assert process.cycle.config.prefix == "first"
    assert "[notice] reconfiguring" in log.lines
    await stage.signal(signal.SIGTERM)


async def test_reload_whose_worker_fails_keeps_the_old_one(
    stage: Stage, nursery: trio.Nursery, log: Any, tmp_path: Path
) -> None:
    new = Listen("", 0, path=str(tmp_path / "new"))
    other = type(log)()
    stage.next = lambda old: replace(stage.cycle("second", new), error_log=other)
    process = await start(stage, nursery, stage.cycle())
    stage.failure = LuaError("init_by_lua error: no")
    await stage.signal(signal.SIGHUP)
    assert process.cycle.config.prefix == "first"
    assert other.lines == ["[error] init_by_lua error: no"]
    assert log.lines[-1] == f"[warn] deleting socket {new.path}"
    assert other.closed
    assert names(tmp_path) == []
    assert not stage.workers[0].quitted.is_set()
    await stage.signal(signal.SIGTERM)


async def test_reload_that_raises_is_reported(
    stage: Stage, nursery: trio.Nursery, log: Any
) -> None:
    def fail(_old: Cycle) -> Cycle:
        raise ConfigError("broken", "nginx.conf", 3)

    stage.next = fail
    await start(stage, nursery, stage.cycle())
    await stage.signal(signal.SIGHUP)
    assert log.lines[-1] == "[emerg] broken in nginx.conf:3"
    assert stage.status is None
    await stage.signal(signal.SIGTERM)


async def test_reload_without_a_way_to_do_it(stage: Stage, nursery: trio.Nursery, log: Any) -> None:
    process = await start(stage, nursery, stage.cycle())
    process.request_reload()
    await stage.settle()
    assert log.lines == ["[notice] reconfiguring"]
    await stage.signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (LuaError("init_by_lua error: x"), "[error] init_by_lua error: x"),
        (LuaError("x", "stack traceback:\n\ty"), "[error] x\nstack traceback:\n\ty"),
        (ConfigError("bad", "nginx.conf", 3), "[emerg] bad in nginx.conf:3"),
        (TrioLuaError("no"), "[emerg] no"),
        (
            PermissionError(13, "Permission denied", "/x"),
            '[alert] system error "/x" (13: Permission denied)',
        ),
    ],
)
async def test_failed_start(stage: Stage, log: Any, error: Exception, line: str) -> None:
    stage.failure = error
    await stage.run(stage.process(stage.cycle()))
    assert isinstance(stage.status, StartError)
    assert log.lines == [line]
    assert stage.ready == []


async def test_failed_announcement(stage: Stage, log: Any) -> None:
    def fail(_worker: Worker) -> None:
        raise TrioLuaError("no pid file")

    process = SingleProcess(stage.cycle(), stage.run_worker, ready=fail, signals=stage.signals)
    await stage.run(process)
    assert isinstance(stage.status, StartError)
    assert log.lines == ["[emerg] no pid file"]


async def test_worker_that_breaks_down(stage: Stage, nursery: trio.Nursery, log: Any) -> None:
    await start(stage, nursery, stage.cycle())
    stage.workers[0].crash.set()
    await stage.settle()
    assert stage.status == 1
    assert log.lines[0].startswith("[alert] Traceback")
    assert log.lines[-1] == "[alert] RuntimeError: a bug"


async def test_worker_that_ends_by_itself(stage: Stage, nursery: trio.Nursery) -> None:
    await start(stage, nursery, stage.cycle())
    stage.workers[0].quit()
    await stage.settle()
    assert stage.status == 0


def test_real_signals(log: Any) -> None:
    """The whole under ``trio.run`` with the real receiver."""
    received: list[int] = []

    async def main() -> int:
        stage = Stage(log)
        process = SingleProcess(
            stage.cycle(),
            stage.run_worker,
            ready=lambda _worker: signal.raise_signal(signal.SIGQUIT),
        )
        with trio.fail_after(5):
            return await process.run()

    before = signal.getsignal(signal.SIGQUIT)
    received.append(trio.run(partial(main)))
    assert received == [0]
    assert signal.getsignal(signal.SIGQUIT) == before
