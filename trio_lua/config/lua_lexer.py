"""Reads the Lua code of ``*_by_lua_block { ... }`` out of a configuration file.

Such a block ends at the brace that balances its opening one, where braces inside Lua
strings, comments and long brackets of any level do not count. crossplane's own lexer for
these directives stumbles over long brackets and knows only half of the directives, so this
one is registered in its place (crossplane keeps one table of them per process).

Lua that is wrong in itself is not this module's business: as with the real thing, the
block is cut out all the same and fails when it is compiled. Only what makes the end of the
block unknowable is an error here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from crossplane.errors import NgxParserSyntaxError
from crossplane.lexer import register_external_lexer

#: What crossplane's iterators give: a character (or a backslash with its follower) and its line.
Chars = Iterable[tuple[str, int]]
#: What crossplane's lexers give: text, line, whether it was quoted.
Token = tuple[str, int, bool]

_STEMS = (
    "init",
    "init_worker",
    "exit_worker",
    "set",
    "server_rewrite",
    "rewrite",
    "access",
    "precontent",
    "content",
    "header_filter",
    "body_filter",
    "log",
    "balancer",
    "ssl_client_hello",
    "ssl_certificate",
    "ssl_session_fetch",
    "ssl_session_store",
    "proxy_ssl_certificate",
    "proxy_ssl_verify",
)

#: The directives whose block is Lua code.
LUA_BLOCKS = frozenset(f"{stem}_by_lua_block" for stem in _STEMS)

_ENDLESS = "unexpected end of file, expecting terminating characters for lua code block"


class LuaBlockError(Exception):
    """The end of a Lua block cannot be found; ``line`` is where to look."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def read_body(chars: Chars, line: int = 1) -> str:
    """The text of a block, up to and without its closing brace.

    Args:
        chars: Gives what follows the opening brace; is left just behind the closing one.
        line: Line of the opening brace, for errors.

    Raises:
        LuaBlockError: The block does not end.
    """
    return _Body(chars, line).read()


class _Body:
    """One pass over a block. ``next`` gives "" at the end of the file."""

    def __init__(self, chars: Chars, line: int) -> None:
        self._chars = iter(chars)
        self._again: list[str] = []  # characters to be seen again, the next one last
        self._taken: list[str] = []
        self._line = line
        self._brace_line = line

    def _next(self) -> str:
        if self._again:
            char = self._again.pop()
        else:
            item = next(self._chars, None)
            if item is None:
                return ""
            text, self._line = item
            char = text[0]
            # crossplane pairs a backslash with what follows; Lua sees two characters.
            self._again.extend(text[:0:-1])
        self._taken.append(char)
        return char

    def read(self) -> str:
        depth = 1
        char = self._next()
        while True:
            if char == "}":
                depth -= 1
                if depth == 0:
                    break
            elif char == "{":
                depth += 1
                self._brace_line = self._line
            elif char == "-":
                char = self._next()
                if char != "-":
                    continue
                char = self._comment()
                continue
            elif char == "[":
                char = self._bracket()
                continue
            elif char in ('"', "'"):
                self._string(char)
            elif not char:
                raise LuaBlockError(_ENDLESS, self._brace_line)
            char = self._next()
        # Only a string without its end leaves characters behind; what is not blank among them
        # belongs to the configuration and cannot be given back.
        if "".join(self._again).strip():
            raise LuaBlockError("unfinished string in lua code block", self._line)
        self._taken.pop()
        return "".join(self._taken)

    def _comment(self) -> str:
        """Behind ``--``: skips the comment and returns the next character to look at."""
        char = self._next()
        if char == "[":
            level = 0
            char = self._next()
            while char == "=":
                level += 1
                char = self._next()
            if char == "[":
                self._long(level)
                return self._next()
        while char not in ("\n", ""):
            char = self._next()
        return char

    def _bracket(self) -> str:
        """Behind ``[``: skips a long string, if it is one, and returns the next character."""
        level = 0
        char = self._next()
        while char == "=":
            level += 1
            char = self._next()
        if char != "[":
            return char
        self._long(level)
        return self._next()

    def _long(self, level: int) -> None:
        opened = self._line
        close = "=" * level + "]"
        char = self._next()
        while char:
            if char != "]":
                char = self._next()
                continue
            for expected in close:
                char = self._next()
                if char != expected:
                    break
            else:
                return
        raise LuaBlockError(
            f'Lua code block missing the closing long bracket "]{close}", '
            "the inlined Lua code may be too long",
            opened,
        )

    def _string(self, quote: str) -> None:
        start = len(self._taken)
        char = self._next()
        while True:
            if char == quote:
                return
            if char == "\\":
                char = self._next()
                if char == "z":
                    # Skips the blanks behind it, line ends too.
                    char = self._next()
                    while char.isspace():
                        char = self._next()
                    continue
            elif char in ("\n", ""):
                # No string after all (as in "it's"): the quote stands alone, and what follows
                # is looked at once more.
                self._again.extend(reversed(self._taken[start:]))
                del self._taken[start:]
                return
            char = self._next()


def lex(chars: Iterator[tuple[str, int]], directive: str) -> Iterator[Token]:
    """The lexer that crossplane calls behind the name of a Lua block directive.

    Yields the directive's words, then the code as one quoted token (its line is that of the
    opening brace) and ``;``. Without a block, what stands there instead is yielded as it is.
    """
    word = ""
    line = 1
    for char, line in chars:
        if not word and char in ('"', "'"):
            quote = char
            for inner, _ in chars:
                if inner == quote:
                    break
                word += quote if inner == "\\" + quote else inner
            else:
                return
            yield word, line, True
            word = ""
        elif char.isspace():
            if word:
                yield word, line, False
                word = ""
        elif char in "{};":
            if word:
                yield word, line, False
            if char != "{":
                yield char, line, False
                return
            try:
                body = read_body(chars, line)
            except LuaBlockError as error:
                raise NgxParserSyntaxError(error.message, None, error.line) from error
            yield body, line, True
            yield ";", line, False
            return
        elif char == "#" and not word:
            for inner, _ in chars:
                if inner.endswith("\n"):
                    break
        else:
            word += char
    if word:
        yield word, line, False


register_external_lexer(LUA_BLOCKS, lex)
