"""Configurations as the commands get them: from nginx.conf, or from one Lua file or string."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

from trio_lua.config.model import Config, Listen, Source
from trio_lua.errors import ConfigError
from trio_lua.log.error_log import LEVELS, WARN, Log

__all__ = [
    "DEFAULT_LISTEN",
    "from_code",
    "from_conf",
    "from_script",
    "is_script",
    "log_warnings",
    "one_line",
]

#: Where an application without a configuration listens.
DEFAULT_LISTEN = "127.0.0.1:8000"

_COMMAND_LINE = Source("command line", 1)


def is_script(path: str) -> bool:
    """Whether a target is a Lua application rather than a configuration."""
    return path.endswith(".lua")


def from_conf(path: str, *, prefix: str, directives: str = "") -> Config:
    """The configuration in an nginx.conf.

    Raises:
        ConfigError: It cannot be used.
    """
    from trio_lua.config import nginx
    from trio_lua.modules import BUNDLED

    return nginx.load(path, prefix=prefix, overrides=directives, modules=BUNDLED)


def from_script(path: str, *, prefix: str, listens: tuple[Listen, ...]) -> Config:
    """The configuration that serves every request by one Lua file.

    ``require`` looks beside the file, in its folder ``lib`` and in the prefix first.

    Raises:
        ConfigError: The file cannot be read.
    """
    if not os.access(path, os.R_OK):
        reason = os.strerror(errno.EACCES if os.path.exists(path) else errno.ENOENT)
        raise ConfigError(reason, path)
    folder = os.path.dirname(path)
    return _application(Path(path), prefix, listens, (f"{folder}/", f"{folder}/lib/", prefix))


def from_code(code: str, *, prefix: str, listens: tuple[Listen, ...]) -> Config:
    """The configuration that serves every request by a piece of Lua code."""
    return _application(code, prefix, listens, (prefix,))


def _application(
    source: str | Path, prefix: str, listens: tuple[Listen, ...], folders: tuple[str, ...]
) -> Config:
    from trio_lua.config.builder import from_lua
    from trio_lua.modules import BUNDLED

    search = "".join(f"{f}?.lua;{f}?/init.lua;" for f in dict.fromkeys(folders))
    try:
        config = from_lua(
            source,
            prefix=prefix,
            modules=BUNDLED,
            lua_package_path=f"{search};",
            access_log="off",
        )
    except ConfigError as exc:
        # its place is this module's
        raise ConfigError(exc.message, hint=exc.hint) from None
    [server] = config.http.servers
    [location] = server.location.locations
    assert location.content is not None
    if isinstance(source, str):
        handler = replace(location.content, source=_COMMAND_LINE, chunk_name="command line")
    else:
        handler = replace(location.content, source=Source(str(source), 1))
    location = replace(location, content=handler)
    outer = replace(server.location, locations=(location,))
    server = replace(server, listens=listens, location=outer)
    return replace(config, http=replace(config.http, servers=(server,)))


def one_line(error: ConfigError) -> str:
    """A configuration error as compilers write theirs: ``file:line: message (hint)``."""
    place = ""
    if error.file:
        place = f"{error.file}:{error.line}: " if error.line else f"{error.file}: "
    return f"{place}{error.message}" + (f" ({error.hint})" if error.hint else "")


def log_warnings(config: Config, log: Log) -> None:
    """Write to a log what was noticed while a configuration was read."""
    for warning in config.warnings:
        level, _, text = warning.removeprefix("[").partition("] ")
        log.log(LEVELS.get(level, WARN), text.encode("utf-8", "surrogateescape"))
