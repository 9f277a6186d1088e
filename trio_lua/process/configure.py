"""Configurations for embedding programs: the readers of :mod:`trio_lua.config`, with the bundled modules.

The configuration layer knows no modules, so that it can be used and tested alone; what a program writes should know
the same directives as what the commands read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from trio_lua.config import builder, nginx
from trio_lua.config.builder import Value
from trio_lua.config.directives import DirectiveTable
from trio_lua.config.model import Config
from trio_lua.modules import BUNDLED, Module

__all__ = ["ConfigBuilder", "from_lua", "load", "loads"]


def _all(modules: Sequence[Module]) -> tuple[Module, ...]:
    return (*BUNDLED, *(module for module in modules if module not in BUNDLED))


def load(
    path: str | os.PathLike[str],
    *,
    prefix: str = "",
    overrides: str = "",
    modules: Sequence[Module] = (),
) -> Config:
    """Read an nginx.conf.

    Args:
        path: The file. Files it includes are looked for in its folder.
        prefix: Where other relative paths start, with a trailing slash; "" is the working folder.
        overrides: Directives of the main context that are read before the file (nginx: ``-g``).
        modules: Directive modules besides those that are bundled.

    Raises:
        ConfigError: The configuration cannot be used; it names file and line.
    """
    return nginx.load(
        path, prefix=prefix, overrides=overrides, modules=_all(modules), embedded=True
    )


def loads(
    text: str,
    *,
    prefix: str = "",
    overrides: str = "",
    file: str = "nginx.conf",
    modules: Sequence[Module] = (),
) -> Config:
    """Read a configuration from a string; ``file`` is what errors and tracebacks call it.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    return nginx.loads(
        text,
        prefix=prefix,
        overrides=overrides,
        file=file,
        modules=_all(modules),
        embedded=True,
    )


class ConfigBuilder(builder.ConfigBuilder):
    """A whole configuration, directive by directive: see :mod:`trio_lua.config.builder`.

    Args:
        prefix: Where relative paths start, with a trailing slash; "" is the working folder.
        table: The directives that are known; those of nginx's core and of the Lua module by default.
        modules: Directive modules besides those that are bundled.
        directives: Directives of the main context.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        table: DirectiveTable | None = None,
        modules: Sequence[Module] = (),
        **directives: Value,
    ) -> None:
        super().__init__(prefix=prefix, table=table, modules=_all(modules), **directives)


def from_lua(
    source: str | os.PathLike[str],
    *,
    listen: str | list[str] = "127.0.0.1:8000",
    prefix: str = "",
    modules: Sequence[Module] = (),
    **directives: Value,
) -> Config:
    """The configuration that answers every request with one Lua handler.

    Args:
        source: Lua code as a string, or the path of a file with it.
        listen: Where to listen, as ``listen`` has it.
        prefix, modules: As for :class:`ConfigBuilder`.
        directives: Directives of the ``http`` block.

    Raises:
        ConfigError: A directive is unknown, misplaced or wrong.
    """
    return builder.from_lua(
        source, listen=listen, prefix=prefix, modules=_all(modules), **directives
    )
