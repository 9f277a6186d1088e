"""Configurations from Python, for programs that embed the server.

The builder writes no model of its own: every call becomes the statement that nginx.conf would have
in its place, and the same table of directives checks it. So everything that can be written in a
file can be written here, by the same name::

    app = ConfigBuilder()
    app.http(lua_package_path="/srv/lua/?.lua;;")
    server = app.server(listen="127.0.0.1:8000", server_name=["example.com", "*.example.com"])
    server.location("/hello", content_by_lua="ngx.say('hello')")
    server.location("= /old", return_=(301, "/hello"))
    config = app.build()

How Python values are written:

=====================  ==========================================================
``True``, ``False``    ``on``, ``off``; for directives without arguments (``internal``,
                       ``break_``): there or not
number                 itself; a fraction of a second as milliseconds
text, path             one argument, taken as it is: no quotes or escapes are needed
tuple                  several arguments: ``return_=(301, "/hello")``
list                   the directive once for each element
dict                   the directive once for each item, ``set={"$a": "1"}``; the entries of a
                       block such as ``types``
``None``               nothing
=====================  ==========================================================

A name that is a Python keyword gets a trailing underscore. Errors and tracebacks name the line of
the Python program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Union

from trio_lua.config.blocks import Build
from trio_lua.config.directives import DirectiveTable, Extension, default_table, interpret
from trio_lua.config.model import Config, PythonFunction, Source
from trio_lua.config.syntax import Statement, fail

__all__ = [
    "BlockBuilder",
    "ConfigBuilder",
    "HttpBuilder",
    "LocationBuilder",
    "ServerBuilder",
    "from_lua",
]

Word = Union[str, int, float, bool, "os.PathLike[str]"]
#: What a keyword argument may be; see the table above.
Value = Union[Word, None, tuple[Word, ...], list[Any], Mapping[str, Any]]


class BlockBuilder:
    """Directives between two braces, in the order of the calls."""

    def __init__(self, table: DirectiveTable) -> None:
        self._table = table
        self._items: list[Statement | BlockBuilder] = []

    def set_options(self, **directives: Value) -> None:
        """Adds directives by keyword."""
        self._add_all(directives, _caller())

    def add(self, name: str, *words: Word) -> None:
        """Adds one directive: ``add("rewrite", "^/a", "/b", "last")``."""
        self._add(name, words, _caller())

    def _add_all(self, directives: Mapping[str, Value], source: Source) -> None:
        for keyword, value in directives.items():
            name = keyword.removesuffix("_")
            if isinstance(value, list):
                for element in value:
                    self._add_value(name, element, source)
            else:
                self._add_value(name, value, source)

    def _add_value(self, name: str, value: Value, source: Source) -> None:
        if value is None:
            return
        rows = [row for row in self._table if row.name == name]
        if isinstance(value, bool) and any(row.arity.most == 0 for row in rows):
            if value:
                self._add(name, (), source)
        elif isinstance(value, Mapping) and any(row.form == "{" for row in rows):
            self._open(name, (), source, [(key, *_several(item)) for key, item in value.items()])
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self._add(name, (key, *_several(item)), source)
        else:
            self._add(name, _several(value), source)

    def _add(self, name: str, values: tuple[Word, ...], source: Source) -> None:
        words = [name, *(_word(name, value, source) for value in values)]
        code = ""
        end = ";"
        if name.endswith("_by_lua") and f"{name}_block" in self._table and len(words) > 1:
            place = 2 if name == "set_by_lua" else 1
            if len(words) == place + 1:
                # A block's first line is the line it is named after, as it is in Python.
                code = words.pop()
                words[0] = f"{name}_block"
                end = "lua"
        self._items.append(Statement(tuple(words), end, source, code))

    def _open(
        self, name: str, words: tuple[str, ...], source: Source, entries: list[tuple[Word, ...]]
    ) -> None:
        self._items.append(Statement((name, *words), "{", source))
        for entry in entries:
            entry_words = tuple(_word(name, value, source) for value in entry)
            self._items.append(Statement(entry_words, ";", source))
        self._items.append(Statement((), "}", source))

    def _nest(
        self, inner: BlockBuilder, words: tuple[str, ...], directives: Mapping[str, Value]
    ) -> None:
        source = _caller()
        self._items += (Statement(words, "{", source), inner, Statement((), "}", source))
        inner._add_all(directives, source)

    def _statements(self) -> Iterator[Statement]:
        for item in self._items:
            if isinstance(item, BlockBuilder):
                yield from item._statements()
            else:
                yield item


class LocationBuilder(BlockBuilder):
    """A ``location``, or an ``if`` in one."""

    def location(self, pattern: str, **directives: Value) -> LocationBuilder:
        """Adds a location: ``"/path"``, ``"= /exact"``, ``"^~ /path"``, ``"~ regex"``, ``"@name"``."""
        inner = LocationBuilder(self._table)
        head, _, rest = pattern.partition(" ")
        words = (head, rest.lstrip()) if head in ("=", "^~", "~", "~*") else (pattern,)
        self._nest(inner, ("location", *words), directives)
        return inner

    def if_(self, *condition: str, **directives: Value) -> LocationBuilder:
        """Adds an ``if``: ``if_("$arg_debug", "=", "1", return_=404)``."""
        inner = LocationBuilder(self._table)
        self._nest(inner, ("if", "(", *condition, ")"), directives)
        return inner


class ServerBuilder(LocationBuilder):
    """A ``server``."""


class HttpBuilder(BlockBuilder):
    """The ``http`` block."""

    def server(self, **directives: Value) -> ServerBuilder:
        """Adds a server."""
        inner = ServerBuilder(self._table)
        self._nest(inner, ("server",), directives)
        return inner


class ConfigBuilder(BlockBuilder):
    """A whole configuration.

    Args:
        prefix: Where relative paths start, with a trailing slash; "" is the working directory.
        table: The directives that are known; those of nginx's core and of the Lua module by default.
        modules: Directive modules whose directives are known, too.
        directives: Directives of the main context.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        table: DirectiveTable | None = None,
        modules: Sequence[Extension] = (),
        **directives: Value,
    ) -> None:
        table = table or default_table()
        super().__init__(table.extended(modules) if modules else table)
        self._prefix = prefix
        self._http: HttpBuilder | None = None
        self._functions: list[PythonFunction] = []
        self._add_all(directives, _caller())

    def http(self, **directives: Value) -> HttpBuilder:
        """Adds to the ``http`` block, of which there is one."""
        if self._http is None:
            self._http = HttpBuilder(self._table)
            self._nest(self._http, ("http",), directives)
        else:
            self._http._add_all(directives, _caller())
        return self._http

    def server(self, **directives: Value) -> ServerBuilder:
        """Adds a server to the ``http`` block."""
        return self.http().server(**directives)

    def events(self, **directives: Value) -> None:
        """Adds the ``events`` block; without it, all of that is as usual."""
        self._nest(BlockBuilder(self._table), ("events",), directives)

    def expose(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        errors: type[Exception] | tuple[type[Exception], ...] = (),
        text: bool = True,
    ) -> None:
        """Adds a Python function that Lua code may call, as :meth:`Config.expose` does."""
        self._functions.append(PythonFunction(name, function, errors, text))

    def build(self) -> Config:
        """The configuration.

        Raises:
            ConfigError: A directive is unknown, misplaced or wrong.
        """
        build = Build(self._table, prefix=self._prefix, file="")
        interpret(self._statements(), build.main)
        config = build.config()
        functions = {entry.name: entry for entry in self._functions}
        return replace(config, functions=MappingProxyType(functions))


def from_lua(
    source: str | os.PathLike[str],
    *,
    listen: str | list[str] = "127.0.0.1:8000",
    prefix: str = "",
    modules: Sequence[Extension] = (),
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
    app = ConfigBuilder(prefix=prefix, modules=modules)
    app.http(**directives)
    server = app.server(listen=listen)
    if isinstance(source, str):
        server.location("/", content_by_lua=source)
    else:
        server.location("/", content_by_lua_file=source)
    return app.build()


def _several(value: Any) -> tuple[Word, ...]:
    if isinstance(value, tuple):
        return value
    return tuple(value) if isinstance(value, list) else (value,)


def _word(name: str, value: object, source: Source) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        milliseconds = round(value * 1000) if value == value and abs(value) < 1e15 else -1
        return str(value) if milliseconds < 0 else f"{milliseconds}ms"
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise fail(f'invalid value of type "{type(value).__name__}" in "{name}" directive', source)


_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def _caller() -> Source:
    """The line of the program that called this package."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    return Source(frame.f_code.co_filename, frame.f_lineno)
