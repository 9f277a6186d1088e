"""``serve`` as a whole, under the real event loop, with a stub for the worker."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import trio
import trio.testing

from trio_lua.cli import loading
from trio_lua.cli.serve import ServeOptions, load, serve
from trio_lua.config.model import (
    AccessLog,
    Config,
    ErrorLog,
    Http,
    Listen,
    Location,
    MatchKind,
    Server,
    Settings,
    Source,
    Template,
)
from trio_lua.config.overrides import map_settings
from trio_lua.errors import ConfigError, LuaError

HERE = Source("nginx.conf", 1)


def conf(prefix: str = "/p/", *listens: Listen, **fields: Any) -> Config:
    server = Server(listens, (), Location(MatchKind.SERVER, "", Settings(), HERE), HERE)
    return Config(http=Http(servers=(server,)), prefix=prefix, **fields)


@pytest.fixture(autouse=True)
def configuration(monkeypatch: pytest.MonkeyPatch) -> list[Config | ConfigError]:
    """What reading a configuration gives, one after the other; the last one stays."""
    found: list[Config | ConfigError] = [conf()]

    def from_conf(path: str, *, prefix: str, directives: str = "") -> Config:
        result = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(result, ConfigError):
            raise result
        return result

    def from_lua(_what: str, *, prefix: str, listens: tuple[Listen, ...]) -> Config:
        return conf(prefix, *listens)

    monkeypatch.setattr(loading, "from_conf", from_conf)
    monkeypatch.setattr(loading, "from_script", from_lua)
    monkeypatch.setattr(loading, "from_code", from_lua)
    return found


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # a configuration reduces the environment of the process: of this one, here
    monkeypatch.setattr("trio_lua.process.environment.apply", lambda *_args: None)


class StubWorker:
    """Sends the process the signals that it is given, then waits."""

    def __init__(self, *signals: signal.Signals) -> None:
        self.signals = list(signals)
        self.started: list[Config] = []
        self.addresses: list[Any] = []
        self.error: Exception | None = None

    def quit(self) -> None: ...

    def reopen_logs(self) -> None: ...

    async def __call__(
        self, config: Config, *, listeners: Any, error_log: Any, zones: Any, task_status: Any
    ) -> None:
        if self.error is not None:
            raise self.error
        self.started.append(config)
        self.addresses += [sock.getsockname() for _, sock in listeners]
        error_log.log(4, b"from the worker")
        task_status.started(self)
        await trio.testing.wait_all_tasks_blocked()
        if self.signals:
            signal.raise_signal(self.signals.pop(0))
        await trio.sleep_forever()


def test_serves_until_stopped(capfd: pytest.CaptureFixture[str]) -> None:
    worker = StubWorker(signal.SIGTERM)
    assert serve(ServeOptions("app.lua", binds=("127.0.0.1:0",)), run_worker=worker) == 0
    [(host, port)] = worker.addresses
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[0].endswith("from the worker")
    assert f"serves app.lua on http://{host}:{port} (Ctrl-C" in err.splitlines()[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port))


def test_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    worker = StubWorker(signal.SIGINT)
    options = ServeOptions(code="x", binds=("127.0.0.1:0",), quiet=True, log_level="crit")
    assert serve(options, run_worker=worker) == 0
    assert capfd.readouterr() == ("", "")


def test_reload_in_place(
    configuration: list[Config | ConfigError], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    listen = Listen("", 0, path=str(tmp_path / "s"))
    worker = StubWorker(signal.SIGHUP, signal.SIGTERM)
    configuration[:] = [conf("/first/", listen), conf("/second/", listen)]
    assert serve(ServeOptions("nginx.conf"), run_worker=worker) == 0
    assert [config.prefix for config in worker.started] == ["/first/", "/second/"]
    assert capfd.readouterr().err.count("serves nginx.conf on") == 1
    assert list(tmp_path.iterdir()) == []


def test_inherited_socket(capfd: pytest.CaptureFixture[str]) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    worker = StubWorker(signal.SIGTERM)
    options = ServeOptions("app.lua", binds=(f"fd://{sock.detach()}",))
    assert serve(options, run_worker=worker) == 0
    assert worker.addresses == [address]
    capfd.readouterr()


def test_port_in_use(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        options = ServeOptions("app.lua", binds=(f"127.0.0.1:{port}",))
        assert serve(options, run_worker=StubWorker()) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert err.endswith(f"bind() to 127.0.0.1:{port} failed (98: Address already in use)\n")


def test_failed_start(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    worker = StubWorker()
    worker.error = LuaError("init_by_lua error: no")
    options = ServeOptions("app.lua", binds=("127.0.0.1:0",), error_log=str(tmp_path / "e.log"))
    assert serve(options, run_worker=worker) == 1
    assert capfd.readouterr().err == "trio-lua: [error] init_by_lua error: no\n"
    assert (tmp_path / "e.log").read_text().endswith(["[error", "init_by_lua error: no\n"][1])


@pytest.mark.parametrize("bind", ["x", "fd://x"])
def test_wrong_address(bind: str) -> None:
    with pytest.raises(click.BadParameter):
        serve(ServeOptions("app.lua", binds=(bind,)), run_worker=StubWorker())


def test_unwritable_log(tmp_path: Path) -> None:
    options = ServeOptions(
        "app.lua", binds=("127.0.0.1:0",), error_log=str(tmp_path / "no" / "e.log")
    )
    with pytest.raises(ConfigError, match="No such file or directory"):
        serve(options, run_worker=StubWorker())


def test_warnings_are_logged(
    configuration: list[Config | ConfigError], capfd: pytest.CaptureFixture[str]
) -> None:
    configuration[:] = [conf(warnings=("[warn] odd", "[notice] old"))]
    options = ServeOptions("nginx.conf", quiet=True, log_level="notice")
    assert serve(options, run_worker=StubWorker(signal.SIGTERM)) == 0
    lines = capfd.readouterr().err.splitlines()
    assert ["[warn]" in lines[0], lines[0].endswith(": odd")] == [True, True]
    assert "[notice]" in lines[1]


def test_default_access_log_needs_its_folder(
    configuration: list[Config | ConfigError], tmp_path: Path
) -> None:
    implied = AccessLog(Template("logs/access.log", ("logs/access.log",)), "combined", implied=True)
    default = map_settings(conf(), lambda settings: replace(settings, access_logs=(implied,)))
    configuration[:] = [default]
    options = ServeOptions("nginx.conf", prefix=str(tmp_path))
    assert load(options).http.settings.access_logs == ()
    (tmp_path / "logs").mkdir()
    assert load(options) == default


def test_default_address() -> None:
    from trio_lua.cli.serve import _parse_binds
    from trio_lua.process.sockets import Listeners

    assert _parse_binds(ServeOptions("app.lua"), Listeners()) == (Listen("127.0.0.1", 8000),)
    assert _parse_binds(ServeOptions("nginx.conf"), Listeners()) == ()


def test_overrides(
    configuration: list[Config | ConfigError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configuration[:] = [conf(error_logs=(ErrorLog("logs/error.log", "error"),))]
    options = ServeOptions("nginx.conf", log_level="info", error_log="e.log", access_log="a.log")
    config = load(options, (Listen("", 81),))
    assert config.error_logs == (ErrorLog(f"{tmp_path}/e.log", "info"),)
    [server] = config.http.servers
    assert server.listens == (Listen("", 81),)
    [log] = server.location.settings.access_logs
    assert isinstance(log, AccessLog)
    assert log.path.literal == f"{tmp_path}/a.log"
    assert load(ServeOptions("nginx.conf", error_log="stderr")).error_logs == (
        ErrorLog("stderr", "error"),
    )
    assert options.folder == f"{tmp_path}/"
    assert ServeOptions("x", prefix="/").folder == "/"
    assert ServeOptions("x", prefix="sub").folder == f"{os.getcwd()}/sub/"


def test_certificate_of_the_command_line(configuration: list[Config | ConfigError]) -> None:
    listens = (Listen("127.0.0.1", 8443, ssl=True),)
    config = load(ServeOptions(code="", certfile="c.pem", keyfile="k.pem"), listens)
    [server] = config.http.servers
    assert server.tls is not None
    assert server.tls.ssl_certificate == (os.path.abspath("c.pem"),)
    assert server.tls.ssl_certificate_key == (os.path.abspath("k.pem"),)
    both = load(ServeOptions(code="", certfile="c.pem"), listens).http.servers[0].tls
    assert both is not None
    assert both.ssl_certificate_key == both.ssl_certificate
    configuration[0] = config
    with pytest.raises(ConfigError, match="has a certificate already"):
        load(ServeOptions(target="nginx.conf", certfile="c.pem"))
