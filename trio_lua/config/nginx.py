"""Configurations in nginx's language: ``nginx.conf`` and what it includes.

Mistakes are reported in nginx's words with file and line, the first one ends the reading. Where
nginx would go on with a guess, so does this: unknown directives are errors, values are not
interpreted twice, and what is inherited follows nginx's rules (see
:mod:`trio_lua.config.blocks`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from trio_lua.config.blocks import Build
from trio_lua.config.directives import DirectiveTable, Extension, default_table, interpret
from trio_lua.config.model import Config
from trio_lua.config.syntax import COMMAND_LINE, statements
from trio_lua.errors import ConfigError

__all__ = ["dump", "load", "loads"]


def load(
    path: str | os.PathLike[str],
    *,
    prefix: str = "",
    overrides: str = "",
    table: DirectiveTable | None = None,
    modules: Sequence[Extension] = (),
    embedded: bool = False,
) -> Config:
    """Reads a configuration file.

    Args:
        path: The file. Files it includes are looked for in its folder.
        prefix: Where other relative paths start, with a trailing slash; it is only recorded.
        overrides: Directives of the main context that are read before the file (nginx: ``-g``).
        table: The directives that are known; those of nginx's core and of the Lua module by default.
        modules: Directive modules whose directives are known, too.
        embedded: The process is somebody else's: ``user`` has no effect, and may name nobody.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    return _load(os.fspath(path), None, prefix, overrides, table, modules, embedded).config()


def loads(
    text: str,
    *,
    prefix: str = "",
    overrides: str = "",
    file: str = "nginx.conf",
    table: DirectiveTable | None = None,
    modules: Sequence[Extension] = (),
    embedded: bool = False,
) -> Config:
    """Reads a configuration from a string; ``file`` is what errors and tracebacks call it.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    return _load(file, text, prefix, overrides, table, modules, embedded).config()


def dump(
    path: str | os.PathLike[str],
    *,
    prefix: str = "",
    overrides: str = "",
    table: DirectiveTable | None = None,
    modules: Sequence[Extension] = (),
) -> str:
    """All files of a configuration, as ``nginx -T`` prints them. It has to be a valid one.

    Bytes that are not UTF-8 are lone surrogates in the result (``surrogateescape``).

    Raises:
        ConfigError: The configuration cannot be used.
    """
    build = _load(os.fspath(path), None, prefix, overrides, table, modules)
    build.config()
    # A file that is included twice is shown once.
    files = dict(build.files)
    return "".join(f"# configuration file {name}:\n{text}\n" for name, text in files.items())


def _load(
    file: str,
    text: str | None,
    prefix: str,
    overrides: str,
    table: DirectiveTable | None,
    modules: Sequence[Extension],
    embedded: bool = False,
) -> Build:
    table = table or default_table()
    build = Build(table.extended(modules) if modules else table, prefix=prefix, file=file)
    build.embedded = embedded
    if overrides:
        interpret(statements(overrides, COMMAND_LINE), build.main)
    interpret(
        build.read_file(file) if text is None else statements(text, file),
        build.main,
    )
    if not build.has_events:
        raise ConfigError('no "events" section in configuration')
    return build
