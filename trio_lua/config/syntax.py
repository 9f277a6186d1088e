"""From text to statements: the words of each directive, and where it was written.

crossplane's lexer cuts the text into tokens; this module puts them together as nginx's
reader would and finds the mistakes nginx finds, in its words. crossplane loses three things
that matter here, and all three follow from knowing how far it has read, so it is fed one
character at a time: the line a directive *ends* on (nginx reports that one, and names Lua
chunks by it), what stands right behind a closing quote, and a file's unfinished end.

Files are UTF-8; bytes that are not are kept as lone surrogates (``surrogateescape``), so that
Lua code reaches Lua byte for byte.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from crossplane.errors import NgxParserBaseException
from crossplane.lexer import _lex_file_object

from trio_lua.config import lua_lexer
from trio_lua.config.model import Source
from trio_lua.errors import ConfigError

#: The file of text given as ``-g``; nginx says "in command line" instead of a place.
COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Statement:
    """``name word ... ;`` or ``name word ... {`` or a lone ``}``, or the end of the file.

    ``end`` is ";", "{", "}" or "" (the end of the file), or "lua" for a Lua block, whose code is
    then ``code``. The line of ``source`` is the one ``end`` is on (of a Lua block: the opening
    brace).
    """

    words: tuple[str, ...]
    end: str
    source: Source
    code: str = ""


def fail(message: str, source: Source, hint: str = "") -> ConfigError:
    """The error to raise for something written at ``source``."""
    if source.file == COMMAND_LINE and not source.line:
        return ConfigError(f"{message} in command line", hint=hint)
    return ConfigError(message, source.file, source.line, hint=hint)


_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"}
_ESCAPE = re.compile(r"""\\(["'\\trn])""")


def unescape(word: str) -> str:
    """Resolves nginx's escapes: ``\\"`` ``\\'`` ``\\\\`` ``\\t`` ``\\r`` ``\\n``; others stay."""
    if "\\" not in word:
        return word
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), word)


class _Feed:
    """Gives out a text one character at a time and knows how far the reader is."""

    __slots__ = ("position", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        position = self.position
        if position >= len(self.text):
            raise StopIteration
        self.position = position + 1
        return self.text[position]


class _Lines:
    """Which line a position is on."""

    def __init__(self, text: str) -> None:
        self._ends = [found.start() for found in re.finditer("\n", text)]

    def at(self, position: int) -> int:
        return bisect_left(self._ends, position) + 1


def statements(text: str, file: str) -> Iterator[Statement]:
    """Reads a text statement by statement.

    Braces are not matched here: the caller knows whether a ``}`` has something to close, and
    whether the text may end (which is the last statement, with ``end`` "").

    Raises:
        ConfigError: At the point where the text stops making sense.
    """
    # A line end completes a last word or comment, which crossplane would drop otherwise.
    feed = _Feed(text + "\n")
    lines = _Lines(text)
    tokens = _lex_file_object(feed)
    words: list[str] = []
    done = 0  # everything before this position belongs to a token
    glue = -1  # where a word ended with a brace that may not have been its last letter
    drift = 0  # lines that were read behind crossplane's back
    command_line = file == COMMAND_LINE

    def source(position: int) -> Source:
        return Source(file, 0 if command_line else lines.at(position))

    while True:
        try:
            token, _, quoted = next(tokens)
        except StopIteration:
            break
        except NgxParserBaseException as error:
            raise ConfigError(error.strerror, file, error.lineno + drift) from None
        done = feed.position
        if quoted:
            if words and words[0] in lua_lexer.LUA_BLOCKS and feed.text[done - 1] not in "\"'":
                brace = feed.text.rindex("}", 0, done) - len(token) - 1
                next(tokens)
                yield Statement(tuple(words), "lua", source(brace), token)
                words = []
                continue
            follower = feed.text[done]
            if follower not in " \t\r\n;{)":
                raise fail(f'unexpected "{follower}"', source(done))
            words.append(unescape(token))
        elif token == ";" or token == "{":
            place = source(done - 1)
            if not words:
                raise fail(f'unexpected "{token}"', place)
            if token == "{" and command_line:
                raise fail("block directives are not supported in -g option", place)
            if token == "{" and words[0] in lua_lexer.LUA_BLOCKS:
                # No blank before the brace: crossplane has not handed over to the Lua lexer.
                code, drift = _adjoining_block(feed, place, drift)
                yield Statement(tuple(words), "lua", place, code)
            else:
                yield Statement(tuple(words), token, place)
            words = []
        elif token == "}":
            place = source(done - 1)
            if words and (glue == done - 1 or feed.text[done - 2] not in " \t\r\n"):
                # Inside a word it is a letter like any other, which crossplane does not know.
                words[-1] += "}"
                glue = done
                continue
            if words:
                raise fail('unexpected "}"', place)
            yield Statement((), "}", place)
        elif words and glue == done - 1 - len(token):
            words[-1] += unescape(token)
        elif token[0] != "#":
            words.append(unescape(token))
    if words or feed.text[done:].strip():
        end = source(len(text))
        if command_line:
            raise fail('unexpected end of parameter, expecting ";"', end)
        raise fail('unexpected end of file, expecting ";" or "}"', end)
    yield Statement((), "", source(len(text)))


def _adjoining_block(feed: _Feed, place: Source, drift: int) -> tuple[str, int]:
    line = place.line

    def chars() -> Iterator[tuple[str, int]]:
        nonlocal line
        for char in feed:
            if char == "\n":
                line += 1
            yield char, line

    try:
        code = lua_lexer.read_body(chars(), line)
    except lua_lexer.LuaBlockError as error:
        raise ConfigError(error.message, place.file, error.line) from None
    return code, drift + line - place.line
