"""The rewrite program: ``set``, ``if``, ``rewrite``, ``return`` and ``break`` in the order written.

A program is compiled once, when the configuration is loaded, and run for each request; what it
decided comes back as an :class:`Outcome`, and the engine acts on it. The rules are those of
nginx's script engine, the surprising ones included:

* An ``if`` that holds makes its block the request's location from then on, and the lines after the
  block go on running.
* A question mark written in a replacement starts the new query string; one that a variable brings
  along does not.
* Captures are percent-encoded where they end in a query string, in a redirect, or in a variable
  that is set before any ``rewrite`` matched, but only if the client's own path was encoded.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Union

from trio_lua.config.model import (
    Break,
    Condition,
    Instruction,
    Location,
    LuaCode,
    Return,
    Rewrite,
    SetByFunction,
    SetByLua,
    SetVar,
    Template,
    Var,
)
from trio_lua.http.uri import Escape, escape
from trio_lua.request.exchange import Exchange

__all__ = [
    "Broke",
    "Continue",
    "Failed",
    "Finish",
    "InternalRedirect",
    "Outcome",
    "Program",
    "Redirect",
    "Restart",
    "WaitForLua",
    "compile_program",
    "go_on",
    "jump",
    "run",
]

_CRIT, _ERR = 3, 4
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REQUEST_URI = Template("$request_uri", (Var("request_uri"),))


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on with the next phase.

    ``location`` is the block of the last ``if`` that held, None when there was none.
    """

    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Broke:
    """Go on with the next phase and keep the location, though the path may have changed.

    ``rewritten`` tells that it has: the request is internal now, and ``alias`` no longer applies.
    """

    location: Location | None = None
    rewritten: bool = False


@dataclass(frozen=True, slots=True)
class Restart:
    """The path changed: search the location again. The request is internal now."""

    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """End the request with a status.

    ``text`` is the whole response body, of the location's default type; None asks for the
    status's own page, so that ``error_page`` applies.
    """

    status: int
    text: bytes | None
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """End the request with a redirect status and this ``Location``, which may be a bare path."""

    status: int
    target: bytes
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong and was logged: end the request with 500."""

    location: Location | None = None


@dataclass(frozen=True, slots=True)
class InternalRedirect:
    """Start over inside the server with this path and query string.

    A ``uri`` that begins with "@" is the name of a location: the request's path stays as it is. A
    rewrite program never asks for a redirect; ``index``, ``try_files`` and ``error_page`` do.
    """

    uri: bytes
    args: bytes | None


def jump(target: bytes) -> InternalRedirect:
    """Where an evaluated ``uri`` or ``@name`` leads; a question mark begins the query string."""
    if target.startswith(b"@"):
        return InternalRedirect(target, None)
    uri, _, args = target.partition(b"?")
    return InternalRedirect(uri, args or None)


@dataclass(frozen=True, slots=True)
class WaitForLua:
    """Run a ``set_by_lua`` handler and hand its value to :func:`go_on`; None when it failed."""

    handler: LuaCode
    state: _State
    name: str


Outcome = Union[Continue, Broke, Restart, Finish, Redirect, Failed, WaitForLua]

_CONTINUE = Continue()


# ------------------------------------------------------------------------ compiled programs


class _Text:
    """A template prepared for evaluation; its captures can be percent-encoded on demand."""

    __slots__ = ("_literal", "_parts", "_template")

    def __init__(self, template: Template) -> None:
        self._template = template
        literal = template.literal
        self._literal = None if literal is None else _encode(literal)
        self._parts: tuple[tuple[bytes | None, Template | None, bool], ...] | None = None
        if any(_is_capture(part) for part in template.parts):
            self._parts = tuple(
                (_encode(part), None, False)
                if isinstance(part, str)
                else (None, Template(f"${part.name}", (part,)), _is_capture(part))
                for part in template.parts
            )

    @property
    def is_empty(self) -> bool:
        return self._literal == b""

    def evaluate(self, exchange: Exchange, *, encode: bool = False) -> bytes:
        if self._literal is not None:
            return self._literal
        if not encode or self._parts is None or not _is_encoded(exchange):
            return exchange.evaluate(self._template)
        pieces = []
        for literal, template, is_capture in self._parts:
            if template is None:
                assert literal is not None
                pieces.append(literal)
            else:
                value = exchange.evaluate(template)
                pieces.append(escape(value, Escape.ARGS) if is_capture else value)
        return b"".join(pieces)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _is_capture(part: str | Var) -> bool:
    return isinstance(part, Var) and len(part.name) == 1 and part.name in "123456789"


def _is_encoded(exchange: Exchange) -> bool:
    """Whether the path, as the client sent it, had escapes or plus signs."""
    path = exchange.evaluate(_REQUEST_URI).partition(b"#")[0].partition(b"?")[0]
    return b"%" in path or b"+" in path


@dataclass(frozen=True, slots=True)
class _Set:
    name: str
    value: _Text


@dataclass(frozen=True, slots=True)
class _SetByLua:
    name: str
    handler: LuaCode


@dataclass(frozen=True, slots=True)
class _WaitForLua:
    """``set_by_lua`` whose handler may wait (``lua_strict_phases off``)."""

    name: str
    handler: LuaCode


@dataclass(frozen=True, slots=True)
class _SetByFunction:
    name: str
    function: str
    args: tuple[_Text, ...]


@dataclass(frozen=True, slots=True)
class _Rewrite:
    regex: str
    path: _Text  # of a redirect: all of it
    args: _Text | None
    keep_args: bool
    has_question_mark: bool
    status: int  # 0 unless it redirects
    flag: str


@dataclass(frozen=True, slots=True)
class _Return:
    status: int
    text: _Text | None


@dataclass(frozen=True, slots=True)
class _Test:
    kind: str  # without "!"
    negated: bool
    left: _Text
    right: _Text | None
    regex: str


@dataclass(frozen=True, slots=True)
class _If:
    test: _Test
    location: Location | None
    body: tuple[_Step, ...]


@dataclass(frozen=True, slots=True)
class _Break:
    pass


_Step = Union[_Set, _SetByLua, _WaitForLua, _SetByFunction, _Rewrite, _Return, _Break, _If]


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled rewrite program."""

    steps: tuple[_Step, ...]

    def __bool__(self) -> bool:
        return bool(self.steps)


def compile_program(
    instructions: Iterable[Instruction], *, server_level: bool = False, strict: bool = True
) -> Program:
    """Prepare a program for :func:`run`.

    Args:
        instructions: In the order written.
        server_level: Whether they stand directly in a server, where ``if`` makes no location.
        strict: Whether Lua handlers cannot wait (``lua_strict_phases``); if they can, the program stops for each.
    """
    return Program(_compile(instructions, server_level, strict))


def _compile(
    instructions: Iterable[Instruction], server_level: bool, strict: bool
) -> tuple[_Step, ...]:
    return tuple(_compile_step(instruction, server_level, strict) for instruction in instructions)


def _compile_step(instruction: Instruction, server_level: bool, strict: bool) -> _Step:
    if isinstance(instruction, SetVar):
        return _Set(instruction.name, _Text(instruction.value))
    if isinstance(instruction, SetByLua):
        kind = _SetByLua if strict else _WaitForLua
        return kind(instruction.name, instruction.handler)
    if isinstance(instruction, SetByFunction):
        args = tuple(_Text(arg) for arg in instruction.args)
        return _SetByFunction(instruction.name, instruction.function, args)
    if isinstance(instruction, Rewrite):
        return _compile_rewrite(instruction)
    if isinstance(instruction, Return):
        text = instruction.text
        return _Return(instruction.code, None if text is None else _Text(text))
    if isinstance(instruction, Break):
        return _Break()
    return _If(
        _compile_condition(instruction.condition),
        None if server_level else instruction.location,
        _compile(instruction.location.rewrite, server_level, strict),
    )


def _compile_rewrite(rewrite: Rewrite) -> _Rewrite:
    status = {"redirect": 302, "permanent": 301}.get(rewrite.flag, 302 if rewrite.external else 0)
    path, args = _split_at_question_mark(rewrite.replacement)
    return _Rewrite(
        regex=rewrite.regex,
        path=_Text(rewrite.replacement if status else path),
        args=None if status or args is None else _Text(args),
        keep_args=rewrite.args,
        has_question_mark=args is not None,
        status=status,
        flag=rewrite.flag,
    )


def _split_at_question_mark(template: Template) -> tuple[Template, Template | None]:
    for place, part in enumerate(template.parts):
        if isinstance(part, str) and "?" in part:
            before, _, after = part.partition("?")
            path = (*template.parts[:place], before) if before else template.parts[:place]
            args = (after, *template.parts[place + 1 :]) if after else template.parts[place + 1 :]
            return Template(template.raw, path), Template(template.raw, args)
    return template, None


def _compile_condition(condition: Condition) -> _Test:
    kind = condition.kind.removeprefix("!")
    right = condition.right
    is_regex = kind in ("~", "~*")
    return _Test(
        kind=kind,
        negated=kind != condition.kind,
        left=_Text(condition.left),
        right=None if right is None or is_regex else _Text(right),
        regex=(right.literal or right.raw) if right is not None and is_regex else "",
    )


# ------------------------------------------------------------------------------- execution


class _State:
    """What a running program has to remember."""

    __slots__ = ("changed", "encode", "exchange", "location", "stack")

    def __init__(self, exchange: Exchange, steps: tuple[_Step, ...]) -> None:
        self.exchange = exchange
        #: The steps that are still to run: of the block that runs last, of those around it before.
        self.stack = [iter(steps)]
        self.location: Location | None = None
        self.changed = False
        # nginx starts in its quoting mode, which the first matching rewrite leaves.
        self.encode = True


def run(program: Program, exchange: Exchange) -> Outcome:
    """Run a program for one request and tell what it decided."""
    if not program.steps:
        return _CONTINUE
    return _run(_State(exchange, program.steps))


def go_on(waiting: WaitForLua, value: bytes | None) -> Outcome:
    """Run the rest of a program that stopped for a handler."""
    state = waiting.state
    if value is None:
        return Failed(state.location)
    state.exchange.set_variable(waiting.name, value)
    return _run(state)


def _run(state: _State) -> Outcome:
    stack = state.stack
    while stack:
        outcome = _run_block(stack[-1], state)
        if outcome is not None:
            return outcome
    if state.changed:
        return Restart(state.location)
    return Continue(state.location) if state.location is not None else _CONTINUE


def _run_block(steps: Iterator[_Step], state: _State) -> Outcome | None:
    """Run up to the end of a block, or to an ``if`` that holds: its block is the top of the stack then."""
    exchange = state.exchange
    for step in steps:
        if isinstance(step, _Set):
            exchange.set_variable(step.name, step.value.evaluate(exchange, encode=state.encode))
            continue
        outcome: Outcome | None
        if isinstance(step, _If):
            holds = _holds(step.test, state)
            if holds is None:
                return Failed(state.location)
            if not holds:
                continue
            if step.location is not None:
                state.location = step.location
            state.stack.append(iter(step.body))
            return None
        if isinstance(step, _Rewrite):
            outcome = _rewrite(step, state)
        elif isinstance(step, _Return):
            return _return(step, state)
        elif isinstance(step, (_SetByLua, _SetByFunction)):
            if isinstance(step, _SetByLua):
                value = exchange.run_set_by_lua(step.handler)
            else:
                args = [arg.evaluate(exchange, encode=state.encode) for arg in step.args]
                value = exchange.call_set_function(step.function, args)
            if value is None:
                return Failed(state.location)
            exchange.set_variable(step.name, value)
            continue
        elif isinstance(step, _WaitForLua):
            return WaitForLua(step.handler, state, step.name)
        else:
            return Broke(state.location, state.changed)
        if outcome is not None:
            return outcome
    state.stack.pop()
    return None


def _rewrite(step: _Rewrite, state: _State) -> Outcome | None:
    exchange = state.exchange
    matches = _matches(exchange, step.regex, exchange.uri)
    if matches is None:
        return Failed(state.location)
    if not matches:
        return None
    state.encode = False
    old_args = exchange.args if step.keep_args else None
    if step.status:
        target = _unescape_redirect(step.path.evaluate(exchange, encode=True))
        if old_args:
            target += (b"&" if step.has_question_mark else b"?") + old_args
        return Redirect(step.status, target, state.location)
    path = step.path.evaluate(exchange)
    if step.args is not None:
        args = step.args.evaluate(exchange, encode=True)
        if old_args:
            args += b"&" + old_args
        exchange.set_args(args or None)
    elif not step.keep_args:
        exchange.set_args(None)
    exchange.set_uri(path)
    if not path:
        exchange.log(_ERR, b"the rewritten URI has a zero length")
        return Failed(state.location)
    if step.flag == "break":
        return Broke(state.location, rewritten=True)
    state.changed = True
    return Restart(state.location) if step.flag == "last" else None


def _return(step: _Return, state: _State) -> Outcome:
    text = None if step.text is None else step.text.evaluate(state.exchange)
    if step.status in _REDIRECTS:
        return Redirect(step.status, text or b"", state.location)
    if step.status < 400:
        text = text or b""
    elif step.text is not None and step.text.is_empty:
        text = None
    return Finish(step.status, text, state.location)


def _matches(exchange: Exchange, regex: str, subject: bytes, caseless: bool = False) -> bool | None:
    """Match a regular expression; None when that failed, such as at a match limit."""
    try:
        return exchange.match(regex, subject, caseless=caseless)
    except ValueError:
        return None


def _holds(test: _Test, state: _State) -> bool | None:
    exchange = state.exchange
    left = test.left.evaluate(exchange, encode=state.encode)
    if test.kind == "true":
        return left not in (b"", b"0")
    if test.kind == "=":
        assert test.right is not None
        result = left == test.right.evaluate(exchange, encode=state.encode)
    elif test.kind in ("~", "~*"):
        matches = _matches(exchange, test.regex, left, test.kind == "~*")
        if matches is None:
            return None
        result = matches
    else:
        result = _test_file(exchange, test.kind, left)
    return result is not test.negated


def _test_file(exchange: Exchange, kind: str, path: bytes) -> bool:
    path = path.partition(b"\0")[0]
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            exchange.log(
                _CRIT,
                b'stat() "%b" failed (%d: %b)'
                % (path, error.errno or 0, os.strerror(error.errno or 0).encode()),
            )
        return False
    if kind == "-f":
        return stat.S_ISREG(mode)
    if kind == "-d":
        return stat.S_ISDIR(mode)
    if kind == "-e":
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return bool(mode & stat.S_IXUSR)


# "%" with what follows it, read as leniently as nginx does: two digits, one digit and whatever
# comes next, or one other byte.
_escapes = re.compile(
    rb"%(?:([0-9A-Fa-f])(?:([0-9A-Fa-f])|[^0-9A-Fa-f]|\Z)|([^0-9A-Fa-f])|\Z)|\?", re.DOTALL
)


def _unescape_redirect(target: bytes) -> bytes:
    """Decode the printable escapes before the question mark, so that none are encoded twice."""
    if b"%" not in target:
        return target
    pieces: list[bytes] = []
    end = 0
    for match in _escapes.finditer(target):
        pieces.append(target[end : match.start()])
        end = match.end()
        high, low, other = match.groups()
        code = int(high + low, 16) if low is not None else None
        if code == 0x3F or match.group() == b"?":
            pieces.append(b"?")
            break
        if code is not None:
            pieces.append(bytes((code,)) if 0x25 < code < 0x7F else match.group())
        elif other is not None:
            pieces.append(other)
    pieces.append(target[end:])
    return b"".join(pieces)
