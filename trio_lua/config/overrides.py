"""What a command line or an embedding program changes in a configuration that is already read.

Inheritance is worked out when a configuration is read, so a setting that holds for the
whole server has to be replaced in every location.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from trio_lua.config.model import (
    AccessLog,
    Config,
    ErrorLog,
    If,
    Listen,
    Location,
    Settings,
    Template,
)
from trio_lua.config.tls import TlsOptions
from trio_lua.errors import ConfigError

__all__ = [
    "add_listens",
    "map_settings",
    "with_access_log",
    "with_certificate",
    "with_error_log",
    "without_implied_logs",
]


def map_settings(config: Config, change: Callable[[Settings], Settings]) -> Config:
    """Apply a change to the settings of every level."""

    def location(old: Location) -> Location:
        return replace(
            old,
            settings=change(old.settings),
            locations=tuple(map(location, old.locations)),
            rewrite=tuple(
                replace(step, location=location(step.location)) if isinstance(step, If) else step
                for step in old.rewrite
            ),
        )

    http = config.http
    servers = tuple(replace(s, location=location(s.location)) for s in http.servers)
    return replace(config, http=replace(http, settings=change(http.settings), servers=servers))


def add_listens(config: Config, listens: Sequence[Listen]) -> Config:
    """Let the first server listen on further addresses.

    Raises:
        ConfigError: There is no server.
    """
    if not listens:
        return config
    http = config.http
    if not http.servers:
        raise ConfigError('there is no "server" that could listen', config.file)
    first, *others = http.servers
    known = {(listen.host, listen.port, listen.path) for listen in first.listens}
    new = tuple(x for x in listens if (x.host, x.port, x.path) not in known)
    first = replace(first, listens=first.listens + new)
    return replace(config, http=replace(http, servers=(first, *others)))


def with_certificate(config: Config, tls: TlsOptions) -> Config:
    """Give the first server the certificate, which the addresses with ``ssl`` need that a command line has added."""
    first, *others = config.http.servers
    if first.tls is not None and first.tls.ssl_certificate:
        raise ConfigError('the first "server" has a certificate already', config.file)
    servers = (replace(first, tls=tls), *others)
    return replace(config, http=replace(config.http, servers=servers))


def with_access_log(config: Config, target: str, format: str = "combined") -> Config:
    """Write all requests to one file, to standard output (``-``), or nowhere (``off``)."""
    logs: tuple[AccessLog, ...] = ()
    if target != "off":
        path = "/dev/stdout" if target == "-" else target
        logs = (AccessLog(Template(path, (path,)), format),)
    return map_settings(config, lambda settings: replace(settings, access_logs=logs))


def without_implied_logs(config: Config) -> Config:
    """Leave out the access log that nginx writes where a configuration names none."""

    def change(settings: Settings) -> Settings:
        kept = tuple(log for log in settings.access_logs if not log.implied)
        return settings if kept == settings.access_logs else replace(settings, access_logs=kept)

    return map_settings(config, change)


def with_error_log(config: Config, file: str | None, level: str | None) -> Config:
    """Write all errors to one file, or at another level, or both."""
    if file is None and level is None:
        return config

    def changed(log: ErrorLog) -> ErrorLog:
        return ErrorLog(file or log.file, level or log.level)

    def settings(old: Settings) -> Settings:
        return replace(old, error_log=None if old.error_log is None else changed(old.error_log))

    logs = tuple(dict.fromkeys(map(changed, config.error_logs)))
    if not logs:
        logs = (ErrorLog(file or "stderr", level or "error"),)
    return replace(map_settings(config, settings), error_logs=logs)
