"""The process behind nginx's command line: pid file, announcement, end."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trio_lua.config.model import Config
from trio_lua.errors import LuaError, TrioLuaError
from trio_lua.process import environment
from trio_lua.process.cycle import Cycle
from trio_lua.process.daemon import Ready
from trio_lua.process.run import pid_path, prepare, run_nginx
from trio_lua.process.sockets import Listeners


class StubWorker:
    """Looks at the pid file, then sends the process the next signal."""

    def __init__(self, *signals: signal.Signals) -> None:
        self.signals = list(signals)
        self.files: list[list[str]] = []
        self.error: Exception | None = None
        self.folder = ""

    def quit(self) -> None: ...

    def reopen_logs(self) -> None: ...

    async def __call__(
        self, config: Config, *, listeners: Any, error_log: Any, zones: Any, task_status: Any
    ) -> None:
        if self.error is not None:
            raise self.error
        task_status.started(self)
        await trio.testing.wait_all_tasks_blocked()
        self.files.append(sorted(os.listdir(self.folder)))
        if self.signals:
            signal.raise_signal(self.signals.pop(0))
        await trio.sleep_forever()


def cycle(log: Any, folder: Path, pid: str = "one.pid") -> Cycle:
    return Cycle(Config(prefix=f"{folder}/", pid=pid), log, Listeners())


def worker(folder: Path, *signals: signal.Signals) -> StubWorker:
    stub = StubWorker(*signals)
    stub.folder = str(folder)
    return stub


def test_pid_file_exists_while_it_serves(log: Any, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    stub = worker(tmp_path, signal.SIGTERM)
    status = run_nginx(
        cycle(log, tmp_path), reload=lambda _: None, announce=Ready(writing), run_worker=stub
    )
    assert status == 0
    assert os.read(reading, 2) == b"R"
    os.close(reading)
    assert stub.files == [["one.pid"]]
    assert os.listdir(tmp_path) == []
    assert log.lines[-1] == "[notice] exit"
    assert log.closed


def test_failed_start_leaves_nothing_and_announces_nothing(log: Any, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    ready = Ready(writing)
    stub = worker(tmp_path)
    stub.error = LuaError("init_by_lua error: no")
    status = run_nginx(cycle(log, tmp_path), reload=lambda _: None, announce=ready, run_worker=stub)
    assert status == 1
    ready.close()
    assert os.read(reading, 1) == b""
    os.close(reading)
    assert os.listdir(tmp_path) == []
    assert log.lines == ["[error] init_by_lua error: no"]


def test_pid_file_that_cannot_be_written_ends_the_start(log: Any, tmp_path: Path) -> None:
    stub = worker(tmp_path)
    status = run_nginx(cycle(log, tmp_path, "no/one.pid"), reload=lambda _: None, run_worker=stub)
    assert status == 1
    [line] = log.lines
    assert f'open() "{tmp_path}/no/one.pid" failed (2: No such file or directory)' in line


def test_reload_may_move_the_pid_file(log: Any, tmp_path: Path) -> None:
    def reload(old: Cycle) -> Cycle:
        return replace(old, config=replace(old.config, pid="two.pid"))

    stub = worker(tmp_path, signal.SIGHUP, signal.SIGTERM)
    assert run_nginx(cycle(log, tmp_path), reload=reload, run_worker=stub) == 0
    assert stub.files[0] == ["one.pid"]
    assert os.listdir(tmp_path) == []


def test_privileges_go_when_all_is_open(
    log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def become(who: environment.Account) -> None:
        seen.append((who, os.path.exists(tmp_path / "one.pid")))

    monkeypatch.setattr(environment, "become", become)
    run_nginx(
        cycle(log, tmp_path),
        reload=lambda _: None,
        account=("www", 33, 33),
        run_worker=worker(tmp_path, signal.SIGTERM),
    )
    assert seen == [(("www", 33, 33), True)]


def test_pid_path() -> None:
    assert pid_path(Config(prefix="/p/", pid="logs/nginx.pid")) == "/p/logs/nginx.pid"
    assert pid_path(Config(prefix="/p/", pid="/run/nginx.pid")) == "/run/nginx.pid"


def test_prepare(log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setattr(environment, "apply", lambda *_args: None)
    prepare(Config(working_directory=str(tmp_path)), {}, log)
    assert os.getcwd() == os.path.realpath(tmp_path)
    prepare(Config(worker_rlimit_nofile=-5), {}, log)
    assert log.lines[0].startswith("[alert] setrlimit(RLIMIT_NOFILE, -5) failed")
    with pytest.raises(TrioLuaError, match="chdir"):
        prepare(Config(working_directory="/no/such"), {}, log)
