"""The rewrite instructions: ``set``, ``if``, ``rewrite``, ``return``, ``break``."""

from __future__ import annotations

from collections.abc import Sequence

from trio_lua.config import regex
from trio_lua.config.blocks import IfStep, LocationBlock, ServerBlock
from trio_lua.config.directives import Context, DirectiveTable, Use, takes
from trio_lua.config.families.slots import slots
from trio_lua.config.model import (
    Break,
    Condition,
    MatchKind,
    Return,
    Rewrite,
    SetVar,
    Template,
)

__all__ = ["TABLE"]

TABLE = DirectiveTable()

slots(
    TABLE,
    Use.switch,
    Context.SETTING_IF | Context.SERVER_IF,
    "rewrite_log",
    "uninitialized_variable_warn",
)

_EXTERNAL = ("http://", "https://", "$scheme")
_FLAGS = ("last", "break", "redirect", "permanent")
_FILE_TESTS = ("-f", "!-f", "-d", "!-d", "-e", "!-e", "-x", "!-x")
_REGEX_TESTS = ("~", "~*", "!~", "!~*")


def _block(use: Use) -> LocationBlock:
    assert isinstance(use.block, LocationBlock)
    return use.block


@TABLE.directive("set", Context.REWRITE, takes(2))
def _set(use: Use) -> None:
    name = use.variable()
    _block(use).steps.append(SetVar(name, use.template(1), use.source))


@TABLE.directive("break", Context.REWRITE, takes(0))
def _break(use: Use) -> None:
    _block(use).steps.append(Break(use.source))


@TABLE.directive("rewrite", Context.REWRITE, takes(2, 3))
def _rewrite(use: Use) -> None:
    pattern, replacement, *flags = use.args
    if not replacement:
        raise use.error("empty replacement")
    regex.check(use, pattern)
    args = not replacement.endswith("?")
    if not args:
        replacement = replacement[:-1]
    if flags and flags[0] not in _FLAGS:
        raise use.error(f'invalid parameter "{flags[0]}"', "one of " + ", ".join(_FLAGS))
    _block(use).steps.append(
        Rewrite(
            regex=pattern,
            replacement=use.build.variables.template(replacement, use.source),
            flag=flags[0] if flags else "",
            args=args,
            external=replacement.startswith(_EXTERNAL),
            source=use.source,
        )
    )


@TABLE.directive("return", Context.REWRITE, takes(1, 2))
def _return(use: Use) -> None:
    first = use.args[0]
    text: Template | None = None
    if first.isascii() and first.isdigit() and int(first) <= 999:
        code = int(first)
        if len(use.args) == 2:
            text = use.template(1)
    elif len(use.args) == 1 and first.startswith(_EXTERNAL):
        code = 302
        text = use.template(0)
    else:
        raise use.error(f'invalid return code "{first}"')
    _block(use).steps.append(Return(code, text, use.source))


@TABLE.directive("if", Context.SERVER | Context.LOCATION, takes(1, None), form="{")
def _if(use: Use) -> None:
    outer = _block(use)
    condition = _condition(use)
    context = Context.SERVER_IF if isinstance(outer, ServerBlock) else Context.LOCATION_IF
    inner = LocationBlock(use.build, context, use.source, MatchKind.IF, outer.path)
    outer.steps.append(IfStep(condition, inner, use.source))
    use.read(inner)


def _condition(use: Use) -> Condition:
    words = _without_parentheses(use)
    if not words:
        raise use.error('invalid condition ")"')
    first = words[0]
    if len(first) > 1 and first.startswith("$"):
        return _comparison(use, words)
    if first in _FILE_TESTS and len(words) == 2:
        return Condition(first, use.build.variables.template(words[1], use.source))
    raise use.error(f'invalid condition "{first}"')


def _comparison(use: Use, words: Sequence[str]) -> Condition:
    first = words[0]
    if len(words) not in (1, 3):
        raise use.error(f'invalid condition "{first}"')
    # The whole word is the name, as nginx has it: no "$a$b" here.
    left = Template(first, (use.build.variables.use(first[1:], use.source),))
    if len(words) == 1:
        return Condition("true", left)
    _, kind, text = words
    if kind in ("=", "!="):
        return Condition(kind, left, use.build.variables.template(text, use.source))
    if kind in _REGEX_TESTS:
        regex.check(use, text, caseless=kind.endswith("*"))
        return Condition(kind, left, Template(text, (text,) if text else ()))
    raise use.error(f'unexpected "{kind}" in condition')


def _without_parentheses(use: Use) -> list[str]:
    words = list(use.args)
    if not words[0].startswith("("):
        raise use.error(f'invalid condition "{words[0]}"')
    words[0] = words[0][1:]
    if not words[-1].endswith(")"):
        raise use.error(f'invalid condition "{words[-1]}"')
    words[-1] = words[-1][:-1]
    return [word for index, word in enumerate(words) if word or 0 < index < len(words) - 1]
