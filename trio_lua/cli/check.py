"""``trio-lua check``: every mistake that can be found without running anything.

nginx accepts a configuration whose Lua code does not compile, since inline code is
compiled on first use; the mistake shows when a client meets it. Here all of it is
compiled, and reported by the line of the file that it was written in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from trio_lua.cli import loading
from trio_lua.cli.serve import ServeOptions, load
from trio_lua.config.model import Config, If, Location, LuaCode, SetByLua
from trio_lua.errors import ConfigError
from trio_lua.log.files import resolve

if TYPE_CHECKING:
    from trio_lua.config.model import Settings

__all__ = ["check_target", "codes_of", "lua_errors", "syntax_checker"]

_LUA = b"""
local rt = ...
local load = loadstring
rt.export.check_syntax = function(code)
    local _, message = load(code, "=x")
    return message
end
"""

_PLACE = re.compile(r"^x:(\d+): (.*)$", re.DOTALL)
_INNER_LINE = re.compile(r"\bat line (\d+)")

#: Gives the error in a piece of Lua code: line within it and message; None when it compiles.
Checker = Callable[[bytes], "tuple[int, str] | None"]


def syntax_checker() -> Checker:
    """A checker on a Lua VM of its own."""
    from trio_lua.lua.vm import VM

    vm = VM()
    vm.run(_LUA, "=check")
    compile_ = vm.export("check_syntax")

    def check(code: bytes) -> tuple[int, str] | None:
        message = compile_(code)
        if message is None:
            return None
        text = message.decode("utf-8", "replace")
        found = _PLACE.match(text)
        return (int(found[1]), found[2]) if found else (1, text)

    return check


def codes_of(config: Config) -> Iterator[LuaCode]:
    """Every Lua handler of a configuration, each once, in the order of the file."""
    http = config.http
    found = [http.init_by_lua, http.init_worker_by_lua, http.exit_worker_by_lua]
    found += _of_settings(http.settings)
    for server in http.servers:
        found += _of_location(server.location)
    unique = {(str(c.source), c.directive, c.code, c.path): c for c in found if c is not None}
    yield from sorted(unique.values(), key=lambda c: (c.source.file, c.source.line))


def _of_settings(settings: Settings) -> list[LuaCode | None]:
    names = (name for name in settings.__slots__ if name.endswith("_by_lua"))
    return [getattr(settings, name) for name in names]


def _of_location(location: Location) -> list[LuaCode | None]:
    found = [location.content, *_of_settings(location.settings)]
    for step in location.rewrite:
        if isinstance(step, SetByLua):
            found.append(step.handler)
        elif isinstance(step, If):
            found += _of_location(step.location)
    for inner in location.locations:
        found += _of_location(inner)
    return found


def lua_errors(config: Config, check: Checker) -> Iterator[ConfigError]:
    """The errors in the Lua code of a configuration."""
    for code in codes_of(config):
        if code.code is not None:
            yield from _inline(code, code.code, check)
        elif code.path is not None and code.path.literal is not None:
            yield from _file(code, resolve(code.path.literal, config.prefix), check)


def _inline(code: LuaCode, text: str, check: Checker) -> Iterator[ConfigError]:
    found = check(text.encode("utf-8", "surrogateescape"))
    if found is None:
        return
    line, message = found
    # a block is named after its first line, a quoted string after its last
    first = code.source.line
    if not code.directive.endswith("_block"):
        first = max(1, first - text.count("\n"))
    shift = first - 1
    message = _INNER_LINE.sub(lambda m: f"at line {int(m[1]) + shift}", message)
    yield ConfigError(f"{code.directive}: {message}", code.source.file, line + shift)


def _file(code: LuaCode, path: str, check: Checker) -> Iterator[ConfigError]:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as exc:
        reason = f'{code.directive}: cannot open "{path}": {exc.strerror}'
        yield ConfigError(reason, code.source.file, code.source.line)
        return
    found = check(_without_shebang(text))
    if found is not None:
        yield ConfigError(found[1], path, found[0])


def _without_shebang(text: bytes) -> bytes:
    return b"--" + text if text.startswith(b"#") else text


def check_target(options: ServeOptions) -> int:
    """Print every error of what ``serve`` would serve; returns 0, or 78 when there are some."""
    errors: list[ConfigError] = []
    config = None
    try:
        config = load(options)
    except ConfigError as exc:
        errors.append(exc)
    if config is not None:
        errors += lua_errors(config, syntax_checker())
        errors += _certificate_errors(config)
        for warning in config.warnings:
            click.echo(_relative(warning), err=True)
    for error in errors:
        click.echo(_relative(loading.one_line(error)), err=True)
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        click.echo(f"trio-lua: {options.title}: {count}", err=True)
        return 78
    if not options.quiet:
        click.echo(f"{options.title}: no errors")
    return 0


def _certificate_errors(config: Config) -> Iterator[ConfigError]:
    if any(server.tls is not None for server in config.http.servers):
        from trio_lua.net.tls_server import check_certificates

        try:
            check_certificates(config)
        except ConfigError as exc:
            yield exc


def _relative(text: str) -> str:
    return text.removeprefix(os.path.join(os.getcwd(), ""))
