"""The Perl that files of data blocks are made of: literals, and assignments of them in front of the blocks.

Strings, ``qr//``, lists of them, ``.``, ``x`` and ``||``, and calls of a few functions that tell where files are. Everything
else needs a Perl.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["NeedsPerl", "expression_length", "literal", "pattern"]

#: A function of Perl: from its arguments to its value.
Function = Callable[..., str]


class NeedsPerl(Exception):
    """Something can only be understood by Perl; the message has it."""


_SKIP = re.compile(r"(?:\s+|#[^\n]*)*")
_NUMBER = re.compile(r"\d+")
_REPEAT = re.compile(r"x\s*(\d+)")
_QUOTE = re.compile(r"(qq|q|qr)\s*([^\w\s])|([\"'])")
_VARIABLE = re.compile(r"\$(?:ENV\{['\"]?(\w+)['\"]?\}|(?:::)?(\w+)|\{(?:::)?(\w+)\})")
_CALL = re.compile(r"(cwd|html_dir|server_root|read_file|own_folder)\b\s*(?:(\()|(?=[\s;,.]|$))")
_CLOSING = {"{": "}", "(": ")", "[": "]", "<": ">"}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "e": "\x1b", "f": "\f"}
_ESCAPE = re.compile(r"\\(?:x\{([0-9a-fA-F]+)\}|x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


def pattern(text: str, flags: str = "") -> re.Pattern[str]:
    """A Perl regular expression.

    Raises:
        NeedsPerl: Python has no such thing.
    """
    if "[:" in text:
        raise NeedsPerl(f"the pattern {text!r}")
    number = 0
    for flag in flags:
        number |= _FLAGS.get(flag, 0)
    try:
        return re.compile(text.replace(r"\z", r"\Z").replace(r"\h", r"[ \t]"), number)
    except re.error as error:
        raise NeedsPerl(f"the pattern {text!r}: {error}") from None


def literal(
    text: str, variables: Mapping[str, str], functions: Mapping[str, Function] | None = None
) -> Any:
    """The value of an expression: text, a compiled pattern, or a list.

    Args:
        text: The expression.
        variables: The values of variables, and of ``$ENV{...}``.
        functions: What may be called, by name.

    Raises:
        NeedsPerl: It is more than literals.
    """
    reader = _Reader(text, variables, functions or {})
    value = reader.expression()
    reader.skip()
    reader.take(";")
    reader.skip()
    if reader.at < len(text):
        raise NeedsPerl(text[reader.at :].split("\n")[0])
    return value


class _Anything(Mapping[str, Any]):
    """Has every name: what is read is of no importance yet."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getitem__(self, name: str) -> Any:
        return self._value

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def expression_length(text: str) -> int:
    """How long the expression is with which a text begins, up to its semicolon.

    Raises:
        NeedsPerl: It is more than literals.
    """
    reader = _Reader(text, _Anything(""), _Anything(lambda *_: ""))
    reader.expression()
    reader.skip()
    if not reader.take(";"):
        raise NeedsPerl(text.split("\n")[0])
    return reader.at - 1


class _Reader:
    def __init__(
        self, text: str, variables: Mapping[str, str], functions: Mapping[str, Function]
    ) -> None:
        self.text = text
        self.at = 0
        self._variables = variables
        self._functions = functions

    def skip(self) -> None:
        match = _SKIP.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def take(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def _fail(self) -> NeedsPerl:
        return NeedsPerl(self.text[self.at :].strip().split("\n")[0])

    def expression(self) -> Any:
        value = self._joined()
        while True:
            self.skip()
            if not self.take("||") and not self.take("//"):
                return value
            other = self._joined()
            value = value or other

    def _joined(self) -> Any:
        value = self._repeated()
        while True:
            self.skip()
            if not self.take("."):
                return value
            other = self._repeated()
            if not isinstance(value, str) or not isinstance(other, str):
                raise self._fail()
            value += other

    def _repeated(self) -> Any:
        value = self._term()
        while True:
            self.skip()
            repeat = _REPEAT.match(self.text, self.at)
            if repeat is None:
                return value
            if not isinstance(value, str):
                raise self._fail()
            self.at = repeat.end()
            value *= int(repeat[1])

    def _term(self) -> Any:
        self.skip()
        if self.take("["):
            return self._list("]")
        if self.take("("):
            value = self.expression()
            self.skip()
            if not self.take(")"):
                raise self._fail()
            return value
        quote = _QUOTE.match(self.text, self.at)
        if quote is not None:
            self.at = quote.end()
            return self._quoted(
                quote[1] or ("qq" if quote[3] == '"' else "q"), quote[2] or quote[3]
            )
        number = _NUMBER.match(self.text, self.at)
        if number is not None:
            self.at = number.end()
            return number[0]
        variable = _VARIABLE.match(self.text, self.at)
        if variable is not None:
            self.at = variable.end()
            # $x || "" is how to ask for what may not be there
            optional = re.compile(r"\s*(\|\||//)").match(self.text, self.at) is not None
            return self._value(variable, optional=optional)
        if self.take("`pwd`"):
            return self._call("cwd", [])
        call = _CALL.match(self.text, self.at)
        if call is not None:
            self.at = call.end()
            return self._call(call[1], self._list(")") if call[2] else [])
        raise self._fail()

    def _call(self, name: str, arguments: list[Any]) -> str:
        try:
            function = self._functions[name]
        except KeyError:
            raise NeedsPerl(f"{name}()") from None
        return function(*arguments)

    def _list(self, end: str) -> list[Any]:
        values: list[Any] = []
        while True:
            self.skip()
            if self.take(end):
                return values
            values.append(self.expression())
            self.skip()
            if not self.take(",") and not self.text.startswith(end, self.at):
                raise self._fail()

    def _quoted(self, kind: str, opening: str) -> Any:
        closing = _CLOSING.get(opening, opening)
        depth, begin = 1, self.at
        while True:
            if self.at >= len(self.text):
                raise NeedsPerl("a string without an end")
            char = self.text[self.at]
            self.at += 1
            if char == "\\":
                self.at += 1
            elif char == closing:
                depth -= 1
                if not depth:
                    break
            elif char == opening:
                depth += 1
        inner = self.text[begin : self.at - 1]
        if kind == "q":
            return re.sub(rf"\\([\\{re.escape(closing)}])", r"\1", inner)
        if kind == "qr":
            flags = re.compile("[a-z]*").match(self.text, self.at)
            assert flags is not None
            self.at = flags.end()
            if closing not in _CLOSING.values():
                inner = inner.replace("\\" + closing, closing)
            return pattern(inner, flags[0])
        return self._interpolated(inner)

    def _interpolated(self, text: str) -> str:
        out, at = [], 0
        while at < len(text):
            if text[at] == "\\" and (escape := _ESCAPE.match(text, at)) is not None:
                code = escape[1] or escape[2]
                if code is not None:
                    out.append(chr(int(code, 16)))
                elif escape[3] is not None:
                    out.append(chr(int(escape[3], 8)))
                else:
                    out.append(_ESCAPES.get(escape[4], escape[4]))
                at = escape.end()
            elif text[at] == "$" and (variable := _VARIABLE.match(text, at)) is not None:
                out.append(self._value(variable))
                at = variable.end()
            elif text[at] == "@" and text[at + 1 : at + 2].isidentifier():
                raise NeedsPerl(text)
            else:
                out.append(text[at])
                at += 1
        return "".join(out)

    def _value(self, variable: re.Match[str], *, optional: bool = False) -> str:
        name = variable[1] or variable[2] or variable[3]
        try:
            return self._variables[name]
        except KeyError:
            if optional:
                return ""
            raise NeedsPerl(variable[0]) from None
