"""The headers-more module: set, add and clear any header (OpenResty's headers-more-nginx-module).

Each directive is one command; a location runs those of the blocks around it first, then its own. Commands for
the response run as a header filter, those for the request at the end of the rewrite phase.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trio_lua.config.directives import Context, Use, takes
from trio_lua.config.model import Template
from trio_lua.request.module import Module

__all__ = ["MODULE", "Command", "Header"]

MODULE = Module("headers_more", lua=Path(__file__).with_name("headers_more.lua"))

#: Headers that have one value, to which none can be added.
_SINGLE = frozenset(
    [
        "server",
        "date",
        "content-encoding",
        "location",
        "refresh",
        "last-modified",
        "content-range",
        "accept-ranges",
        "www-authenticate",
        "expires",
        "e-tag",
        "content-length",
        "content-type",
        "cache-control",
    ]
)

_NAME = re.compile(r"\s*([^\s:]+)[\s:]*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Header:
    """A header to set, or to clear when ``value`` is empty.

    Attributes:
        name: As written, without the "*" of a wildcard.
        key: The same in lower case.
        value: The value.
        wildcard: Whether every header is meant whose name begins with ``name``.
    """

    name: str
    key: str
    value: Template
    wildcard: bool


@dataclass(frozen=True, slots=True)
class Command:
    """One directive.

    Attributes:
        headers: What it sets and clears.
        statuses: The statuses of responses that it applies to; None for all.
        types: The same for content types, without parameters.
        append: Whether values are added to those there are (``-a``).
        replace: Whether only headers that exist are set (``-r``).
    """

    headers: tuple[Header, ...]
    statuses: frozenset[int] | None
    types: frozenset[str] | None
    append: bool
    replace: bool


def _header(use: Use, word: str) -> Header:
    found = _NAME.match(word)
    if found is None:
        raise use.error(f"{use.name}: no key found in the header argument: {word}")
    name, value = found.groups()
    wildcard = name.endswith("*")
    if wildcard:
        name = name[:-1]
        if not name:
            raise use.error(f"{use.name}: wildcard key too short: {word}")
    if "clear" in use.name:
        value = ""
    template = use.build.variables.template(value, use.source)
    return Header(name, name.lower(), template, wildcard)


def _statuses(use: Use, words: str) -> list[int]:
    for word in words.split():
        for char in word:
            if char not in "0123456789":
                raise use.error(
                    f'{use.name}: invalid digit "{char}" found in the status code list "{words}"'
                )
    return [int(word) for word in words.split()]


def _command(use: Use, options: str) -> Command:
    """A command; ``options`` are the letters that the directive knows."""
    headers: list[Header] = []
    statuses: list[int] = []
    types: list[str] = []
    flags = ""
    words = iter(use.args)
    for word in words:
        if not word.startswith("-"):
            if word:
                headers.append(_header(use, word))
            continue
        option = word[1:]
        if len(option) != 1 or option not in options:
            raise use.error(f'{use.name}: invalid option name: "{word}"')
        if option in "ra":
            flags += option
            continue
        values = next(words, None)
        if values is None:
            raise use.error(f"{use.name}: option {word} takes an argument.")
        if option == "s":
            statuses += _statuses(use, values)
        else:
            types += values.replace(";", " ").split()
    for header in headers:
        if "a" in flags and header.key in _SINGLE:
            raise use.error(f'{use.name}: can not append builtin headers "{header.name}"')
    return Command(
        tuple(headers),
        frozenset(statuses) if statuses else None,
        frozenset(types) if types else None,
        append="a" in flags,
        replace="r" in flags,
    )


def _directive(name: str, setting: str, options: str) -> None:
    @MODULE.directive(name, Context.SETTING_IF, takes(1, None))
    def directive(use: Use) -> None:
        use.append_setting(setting, _command(use, options))


_directive("more_set_headers", "more_set_headers", "sta")
_directive("more_clear_headers", "more_set_headers", "st")
_directive("more_set_input_headers", "more_set_input_headers", "tr")
_directive("more_clear_input_headers", "more_set_input_headers", "tr")


@MODULE.merge("more_set_headers")
@MODULE.merge("more_set_input_headers")
def _merge(outer: tuple[Command, ...], inner: tuple[Command, ...]) -> tuple[Command, ...]:
    return outer + inner
