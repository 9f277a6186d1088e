"""The table of directives: where each may stand, how many words it takes, what it does.

A :class:`Directive` is one row. Its setter gets a :class:`Use` (one occurrence in a file, or
one call of the builder) and writes what it means into the :class:`~trio_lua.config.blocks.Block`
it stands in. The rows themselves are in :mod:`trio_lua.config.families`, one module per subject.
Directives of other origin come with an :class:`Extension` (:class:`trio_lua.request.module.Module`
is one), which is handed in where a configuration is read: ``load("nginx.conf", modules=[extension])``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from trio_lua.config import units
from trio_lua.config.model import Computed, Instruction, Source, Template
from trio_lua.config.syntax import Statement, fail
from trio_lua.errors import ConfigError

if TYPE_CHECKING:
    from trio_lua.config.blocks import Block, Build, LocationBlock


class Context(IntFlag):
    """The kinds of block a directive may stand in."""

    MAIN = 1
    EVENTS = 2
    HTTP = 4
    SERVER = 8
    LOCATION = 16
    SERVER_IF = 32
    LOCATION_IF = 64
    LIMIT_EXCEPT = 128
    UPSTREAM = 256

    #: http, server, location: where nearly every setting may stand.
    SETTING = HTTP | SERVER | LOCATION
    #: The same and ``if`` in location.
    SETTING_IF = SETTING | LOCATION_IF
    #: Where rewrite instructions may stand.
    REWRITE = SERVER | SERVER_IF | LOCATION | LOCATION_IF
    ANY = MAIN | EVENTS | SETTING_IF | SERVER_IF | LIMIT_EXCEPT | UPSTREAM


_CONTEXT_NAMES = {
    Context.MAIN: "the main context",
    Context.EVENTS: '"events"',
    Context.HTTP: '"http"',
    Context.SERVER: '"server"',
    Context.LOCATION: '"location"',
    Context.SERVER_IF: '"if" in "server"',
    Context.LOCATION_IF: '"if" in "location"',
    Context.LIMIT_EXCEPT: '"limit_except"',
    Context.UPSTREAM: '"upstream"',
}


@dataclass(frozen=True, slots=True)
class Arity:
    """How many words may follow the name; ``most`` None is any number."""

    least: int
    most: int | None

    def accepts(self, count: int) -> bool:
        return count >= self.least and (self.most is None or count <= self.most)

    def __str__(self) -> str:
        if self.most is None:
            return f"at least {_words(self.least)}" if self.least else "any number of arguments"
        if self.least == self.most:
            return _words(self.least) if self.least else "no arguments"
        return f"{self.least} to {_words(self.most)}"


def _words(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"


def takes(least: int, most: int | None = -1) -> Arity:
    """``takes(1)`` exactly one, ``takes(1, 2)`` one or two, ``takes(1, None)`` one or more."""
    return Arity(least, least if most == -1 else most)


Setter = Callable[["Use"], None]

#: How a setting of an outer block and one of an inner block become one.
Merge = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Directive:
    """One row of the table.

    ``form`` is what ends the directive: ";" for a simple one, "{" for a block (of directives or of
    Lua code), "any" when the setter refuses it anyway.
    """

    name: str
    contexts: Context
    arity: Arity
    setter: Setter
    form: str = ";"


class Extension(Protocol):
    """What is added to the configuration's language from outside."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def directives(self) -> DirectiveTable:
        """Its directives."""

    @property
    def variables(self) -> Iterable[str]:
        """Its variables, without "$"; ``name_*`` is every variable whose name begins so."""

    @property
    def merges(self) -> Mapping[str, Merge]:
        """By name of a setting (:meth:`Use.put_setting`); without one, the inner value holds alone."""


_F = TypeVar("_F", bound=Setter)
_T = TypeVar("_T")


class DirectiveTable:
    """Directives by name. A name may have several rows, for different contexts.

    Attributes:
        extensions: What has been added with :meth:`extend`; the model hands it on to the server.
    """

    def __init__(self) -> None:
        self.extensions: list[Extension] = []
        self._rows: dict[str, list[Directive]] = {}
        self._families: dict[str, Setter] = {}
        self._absent: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[Directive]:
        for rows in self._rows.values():
            yield from rows

    def copy(self) -> DirectiveTable:
        """A table of its own, to be extended without touching this one."""
        table = DirectiveTable()
        table.update(self)
        return table

    def update(self, other: DirectiveTable) -> None:
        """Adds all of another table."""
        for row in other:
            self.register(row)
        self._families.update(other._families)
        self._absent.update(other._absent)
        self.extensions += other.extensions

    def extend(self, extension: Extension) -> None:
        """Adds the directives of an extension, and what they mean at run time.

        Raises:
            ValueError: One of them is there already.
        """
        self.update(extension.directives)
        self.extensions.append(extension)
        for prefix in [
            prefix
            for prefix in self._absent
            if any(row.name.startswith(prefix) for row in extension.directives)
        ]:
            del self._absent[prefix]

    def extended(self, extensions: Iterable[Extension]) -> DirectiveTable:
        """A table of its own with these extensions added, if they are not there already."""
        table = self.copy()
        for extension in extensions:
            if extension not in table.extensions:
                table.extend(extension)
        return table

    def merge(self, setting: str) -> Merge | None:
        """How an extension's setting is merged."""
        for extension in self.extensions:
            if setting in extension.merges:
                return extension.merges[setting]
        return None

    def register_family(self, prefix: str, setter: Setter) -> None:
        """Adds every directive whose name begins so and that has no row of its own."""
        self._families[prefix] = setter

    def explain(self, prefix: str, hint: str) -> None:
        """What to say about unknown directives whose name begins so."""
        self._absent[prefix] = hint

    def register(self, row: Directive) -> None:
        """Adds a directive; rows of the same name must not share a context."""
        rows = self._rows.setdefault(row.name, [])
        if any(other.contexts & row.contexts for other in rows):
            raise ValueError(f'directive "{row.name}" is already registered')
        rows.append(row)

    def directive(
        self, name: str, contexts: Context, arity: Arity, *, form: str = ";"
    ) -> Callable[[_F], _F]:
        """:meth:`register` as a decorator of the setter."""

        def decorate(setter: _F) -> _F:
            self.register(Directive(name, contexts, arity, setter, form))
            return setter

        return decorate

    def find(self, statement: Statement, context: Context) -> Directive:
        """The row for a statement, checked as nginx checks it.

        Raises:
            ConfigError: Unknown, misplaced, wrongly ended, or too few or many words.
        """
        name = statement.words[0]
        rows = self._rows.get(name) or self._family(name)
        if not rows:
            raise fail(
                f'unknown directive "{name}"', statement.source, self._suggest(name, context)
            )
        for row in rows:
            if row.contexts & context:
                break
        else:
            raise fail(
                f'"{name}" directive is not allowed here', statement.source, self.places(name)
            )
        if row.form == ";" and statement.end != ";":
            raise fail(f'directive "{name}" is not terminated by ";"', statement.source)
        if row.form == "{" and statement.end == ";":
            raise fail(f'directive "{name}" has no opening "{{"', statement.source)
        if not row.arity.accepts(len(statement.words) - 1):
            raise fail(
                f'invalid number of arguments in "{name}" directive',
                statement.source,
                f'"{name}" takes {row.arity}',
            )
        return row

    def _family(self, name: str) -> list[Directive]:
        return [
            Directive(name, Context.ANY, takes(0, None), setter, "any")
            for prefix, setter in self._families.items()
            if name.startswith(prefix)
        ]

    def places(self, name: str) -> str:
        """Where a directive may stand, as a hint."""
        contexts = 0
        for row in self._rows[name]:
            contexts |= row.contexts
        names = [text for context, text in _CONTEXT_NAMES.items() if contexts & context]
        return f'"{name}" belongs into {" or ".join(names)}'

    def _suggest(self, name: str, context: Context) -> str:
        for prefix, hint in self._absent.items():
            if name.startswith(prefix):
                return hint
        # Only on the way to an error, so not worth an import at the start.
        from difflib import get_close_matches

        here = [row.name for row in self if row.contexts & context]
        close = get_close_matches(name, here, 1, 0.75) or get_close_matches(
            name, list(self._rows), 1, 0.75
        )
        return f'did you mean "{close[0]}"?' if close else ""


@dataclass(slots=True)
class Use:
    """One occurrence of a directive, as its setter sees it."""

    name: str
    args: Sequence[str]
    source: Source
    block: Block
    build: Build
    code: str = ""
    rest: Iterator[Statement] = field(default_factory=lambda: iter(()))

    # ------------------------------------------------------------ errors

    def error(self, message: str, hint: str = "") -> ConfigError:
        """An error at this place."""
        return fail(message, self.source, hint)

    def fault(self, what: str) -> ConfigError:
        """``fault("is duplicate")``: an error about this directive."""
        return fail(f'"{self.name}" directive {what}', self.source)

    def warn(self, message: str, level: str = "warn") -> None:
        """A message that does not stop anything."""
        self.build.warn(f"{message} in {self.source}", level)

    # ------------------------------------------------------------ arguments

    def template(self, index: int) -> Template:
        """An argument that may hold variables."""
        return self.build.variables.template(self.args[index], self.source)

    def variable(self, index: int = 0) -> str:
        """The name of the variable that an argument declares."""
        word = self.args[index]
        if not word.startswith("$"):
            raise self.error(f'invalid variable name "{word}"')
        return self.build.variables.declare(word[1:], self.source)

    def number(self, index: int = 0) -> int:
        return self._parsed(units.parse_number, self.args[index], "invalid number")

    def size(self, index: int = 0) -> int:
        return self._parsed(units.parse_size, self.args[index], "invalid value")

    def offset(self, index: int = 0) -> int:
        """A size that may be given in gigabytes."""
        return self._parsed(lambda text: units.parse_size(text, giga=True), self.args[index])

    def time(self, index: int = 0) -> float:
        return self._parsed(units.parse_time, self.args[index])

    def seconds(self, index: int = 0) -> int:
        """A time in whole seconds."""
        return int(
            self._parsed(lambda text: units.parse_time(text, seconds=True), self.args[index])
        )

    def switch(self, index: int = 0) -> bool:
        try:
            return units.parse_switch(self.args[index])
        except ValueError:
            raise self.error(
                f'invalid value "{self.args[index]}" in "{self.name}" directive, '
                'it must be "on" or "off"'
            ) from None

    def choice(self, allowed: Sequence[str], index: int = 0) -> str:
        word = self.args[index]
        if word not in allowed:
            raise self.error(
                f'invalid value "{word}"', "one of " + ", ".join(f'"{name}"' for name in allowed)
            )
        return word

    def _parsed(
        self, parse: Callable[[str], _T], text: str, complaint: str = "invalid value"
    ) -> _T:
        try:
            return parse(text)
        except ValueError:
            raise self.fault(complaint) from None

    # ------------------------------------------------------------ effects

    @property
    def location(self) -> LocationBlock:
        """The block, of a directive that stands in a server, a location or an ``if``."""
        from trio_lua.config.blocks import LocationBlock

        assert isinstance(self.block, LocationBlock)
        return self.block

    def put(self, name: str, value: object) -> None:
        """Stores a value that may be given once per block."""
        if name in self.block.values:
            raise self.fault("is duplicate")
        self.block.values[name] = value

    def append(self, name: str, value: object) -> None:
        """Adds to a list; a list in an inner block replaces the outer one."""
        self.block.values.setdefault(name, []).append(value)

    def put_setting(self, name: str, value: object) -> None:
        """Stores a setting of an extension, which may be given once per block (``Settings.extra``)."""
        if name in self.block.extra:
            raise self.fault("is duplicate")
        self.block.extra[name] = value

    def append_setting(self, name: str, value: object) -> None:
        """Adds to a list among the settings of an extension."""
        self.block.extra.setdefault(name, []).append(value)

    def set_content(self, name: str, value: object) -> None:
        """Makes an extension's content handler that of the location; the last one written holds."""
        block = self.location
        block.values.pop("content", None)
        block.handlers.clear()
        block.handlers[name] = value

    def compute(self, name: str, kind: str, value: object, *, cached: bool = True) -> None:
        """Makes a declared variable (:meth:`variable`) one that an extension computes.

        Args:
            name: The variable.
            kind: The extension's function.
            value: What that gets.
            cached: Whether a request computes it only once.
        """
        assert self.build.http is not None
        self.build.http.computed[name] = Computed(kind, value, cached)

    def add_step(self, instruction: Instruction) -> None:
        """Adds an instruction to the rewrite program."""
        self.location.steps.append(instruction)

    def read(self, inner: Block) -> None:
        """Reads this directive's own block into ``inner``."""
        with self.build.deeper(self.source):
            interpret(self.rest, inner, inside=True)

    def entries(self) -> Iterator[tuple[Sequence[str], Source]]:
        """The lines of a block that holds no directives, such as ``types``; ``include`` is followed."""
        return _entries(self.rest, self.build, inside=True)


def interpret(statements: Iterator[Statement], block: Block, *, inside: bool = False) -> None:
    """Applies statements to a block.

    Args:
        inside: The statements go on until the block's closing brace; otherwise until the end of
            the file.
    """
    build = block.build
    context = block.context
    for statement in statements:
        if not statement.words:
            _check_end(statement, inside)
            return
        row = build.table.find(statement, context)
        row.setter(
            Use(
                statement.words[0],
                statement.words[1:],
                statement.source,
                block,
                build,
                statement.code,
                statements,
            )
        )


def _entries(
    statements: Iterator[Statement], build: Build, *, inside: bool
) -> Iterator[tuple[Sequence[str], Source]]:
    for statement in statements:
        if not statement.words:
            _check_end(statement, inside)
            return
        if statement.end != ";":
            raise fail('unexpected "{"', statement.source)
        if statement.words[0] != "include":
            yield statement.words, statement.source
        elif len(statement.words) != 2:
            raise fail('invalid number of arguments in "include" directive', statement.source)
        else:
            for included in build.include(statement.words[1], statement.source):
                yield from _entries(included, build, inside=False)


def _check_end(statement: Statement, inside: bool) -> None:
    if statement.end == "}" and not inside:
        raise fail('unexpected "}"', statement.source)
    if statement.end != "}" and inside:
        raise fail('unexpected end of file, expecting "}"', statement.source)


@cache
def default_table() -> DirectiveTable:
    """Every directive this package knows. Shared: :meth:`~DirectiveTable.copy` it to extend it."""
    from trio_lua.config.families import FAMILIES

    table = DirectiveTable()
    for family in FAMILIES:
        table.update(family)
    return table
