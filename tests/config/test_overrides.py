from __future__ import annotations

from dataclasses import replace

import pytest

from trio_lua.config.model import (
    AccessLog,
    Break,
    Condition,
    Config,
    ErrorLog,
    Http,
    If,
    Listen,
    Location,
    MatchKind,
    Server,
    Settings,
    Source,
    Template,
)
from trio_lua.config.overrides import (
    add_listens,
    map_settings,
    with_access_log,
    with_error_log,
    without_implied_logs,
)
from trio_lua.errors import ConfigError

HERE = Source("nginx.conf", 1)


def location(kind: MatchKind = MatchKind.PREFIX, **fields: object) -> Location:
    log = AccessLog(Template("old", ("old",)), "combined")
    settings = Settings(access_logs=(log,), error_log=ErrorLog("own.log", "warn"))
    return Location(kind, "/", settings, HERE, **fields)  # type: ignore[arg-type]


@pytest.fixture
def config() -> Config:
    branch = If(Condition("true", Template("", ())), location(MatchKind.IF), HERE)
    outer = location(
        MatchKind.SERVER,
        locations=(location(rewrite=(Break(HERE), branch), locations=(location(),)),),
    )
    server = Server((Listen("", 80),), (), outer, HERE)
    return Config(http=Http(servers=(server,)), error_logs=(ErrorLog("logs/e.log", "error"),))


def every(config: Config) -> list[Settings]:
    seen: list[Settings] = []
    map_settings(config, lambda settings: seen.append(settings) or settings)  # type: ignore[func-returns-value]
    return seen


def test_every_level_is_visited(config: Config) -> None:
    assert len(every(config)) == 5
    assert map_settings(config, lambda settings: settings) == config


@pytest.mark.parametrize(
    ("target", "path"), [("off", None), ("-", "/dev/stdout"), ("/x/a.log", "/x/a.log")]
)
def test_access_log(config: Config, target: str, path: str | None) -> None:
    for settings in every(with_access_log(config, target)):
        assert [log.path.literal for log in settings.access_logs] == ([path] if path else [])


def test_implied_access_logs(config: Config) -> None:
    assert without_implied_logs(config) == config
    path = Template("logs/access.log", ("logs/access.log",))
    implied = (AccessLog(path, "combined", implied=True),)
    default = map_settings(config, lambda settings: replace(settings, access_logs=implied))
    assert all(not settings.access_logs for settings in every(without_implied_logs(default)))


def test_error_log(config: Config) -> None:
    assert with_error_log(config, None, None) is config
    assert with_error_log(config, None, "debug").error_logs == (ErrorLog("logs/e.log", "debug"),)
    assert with_error_log(config, "stderr", None).error_logs == (ErrorLog("stderr", "error"),)
    changed = with_error_log(config, "stderr", "info")
    logs = [settings.error_log for settings in every(changed)]
    assert logs.count(ErrorLog("stderr", "info")) == 4
    assert logs.count(None) == 1
    assert with_error_log(Config(), None, "info").error_logs == (ErrorLog("stderr", "info"),)


def test_listens(config: Config) -> None:
    more = (Listen("", 80), Listen("127.0.0.1", 81))
    assert add_listens(config, ()) is config
    assert add_listens(config, more).http.servers[0].listens == (
        Listen("", 80),
        Listen("127.0.0.1", 81),
    )
    with pytest.raises(ConfigError, match='no "server"'):
        add_listens(Config(), more)
