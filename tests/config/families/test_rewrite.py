from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_lua.config.model import (
    Break,
    If,
    Location,
    MatchKind,
    Return,
    Rewrite,
    Server,
    SetByLua,
    SetVar,
    Template,
    Var,
)

Read = Callable[[str], Location]
Refused = Callable[[Callable[[str], object], str], str]


def test_instructions_keep_their_order(location: Read) -> None:
    steps = location(
        "set $a x$uri;\nset_by_lua_block $b { return 1 }\nrewrite ^/(.)$ /$1? last;\n"
        "if ($a) { break; }\nreturn 204; set $a 2;"
    ).rewrite
    assert [type(step) for step in steps] == [SetVar, SetByLua, Rewrite, If, Return, SetVar]
    assert [step.source.line for step in steps] == [4, 5, 6, 7, 8, 8]
    first = steps[0]
    assert isinstance(first, SetVar)
    assert (first.name, first.value.parts) == ("a", ("x", Var("uri")))


@pytest.mark.parametrize(
    ("text", "replacement", "flag", "args", "external"),
    [
        ("^ /b", "/b", "", True, False),
        ("^ /b? break", "/b", "break", False, False),
        ("^ http://x/$1", "http://x/$1", "", True, True),
        ("^ https://x permanent", "https://x", "permanent", True, True),
        ("^ $scheme://x", "$scheme://x", "", True, True),
        ("^ /b redirect", "/b", "redirect", True, False),
    ],
)
def test_rewrite(
    location: Read, text: str, replacement: str, flag: str, args: bool, external: bool
) -> None:
    [step] = location(f"rewrite {text};").rewrite
    assert isinstance(step, Rewrite)
    assert (step.regex, step.replacement.raw) == ("^", replacement)
    assert (step.flag, step.args, step.external) == (flag, args, external)


@pytest.mark.parametrize(
    ("text", "code", "body"),
    [
        ("204", 204, None),
        ("0", 0, None),
        ("200 'a $uri'", 200, "a $uri"),
        ("301 /x", 301, "/x"),
        ("https://x", 302, "https://x"),
        ("$scheme://x", 302, "$scheme://x"),
    ],
)
def test_return(location: Read, text: str, code: int, body: str | None) -> None:
    [step] = location(f"return {text};").rewrite
    assert isinstance(step, Return)
    assert (step.code, step.text.raw if step.text else None) == (code, body)


@pytest.mark.parametrize(
    ("text", "kind", "left", "right"),
    [
        ("($a)", "true", "$a", None),
        ("( $a )", "true", "$a", None),
        ('($a = "")', "=", "$a", ""),
        ("($a != x$b)", "!=", "$a", "x$b"),
        ("($a ~ ^x$)", "~", "$a", "^x$"),
        ('($a ~* "(x) y")', "~*", "$a", "(x) y"),
        ("($a !~ x)", "!~", "$a", "x"),
        ("($a !~* x )", "!~*", "$a", "x"),
        ("(-f $a/x)", "-f", "$a/x", None),
        ("( !-d $a)", "!-d", "$a", None),
        ("(-e $a)", "-e", "$a", None),
        ("(!-x $a)", "!-x", "$a", None),
    ],
)
def test_conditions(location: Read, text: str, kind: str, left: str, right: str | None) -> None:
    *_, step = location(f"set $a 1; set $b 2; if {text} {{ }}").rewrite
    assert isinstance(step, If)
    condition = step.condition
    assert (condition.kind, condition.left.raw) == (kind, left)
    assert (condition.right.raw if condition.right else None) == right
    assert step.location.kind is MatchKind.IF


def test_a_pattern_is_literal(location: Read) -> None:
    [step] = location("if ($uri ~ a$) { }").rewrite
    assert isinstance(step, If)
    assert step.condition.right == Template("a$", ("a$",))


def test_server_level(server: Callable[[str], Server]) -> None:
    first, second = server("set $a 1; if ($a) { rewrite ^ /; }").location.rewrite
    assert isinstance(first, SetVar)
    assert isinstance(second, If)
    assert isinstance(second.location.rewrite[0], Rewrite)


def test_break(location: Read) -> None:
    [step] = location("break;").rewrite
    assert isinstance(step, Break)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("set a 1;", 'invalid variable name "a"'),
        ("set '' 1;", 'invalid variable name ""'),
        ("set $ 1;", 'invalid variable name "$"'),
        ("set $uri 1;", 'the duplicate "uri" variable'),
        ("set $a $;", "invalid variable name"),
        ("set $a $nope;", 'unknown "nope" variable'),
        ("set_by_lua a 'x';", 'invalid variable name "a"'),
        ("rewrite ^ '';", "empty replacement"),
        ("rewrite ^ / now;", 'invalid parameter "now"'),
        ("return 1000;", 'invalid return code "1000"'),
        ("return x;", 'invalid return code "x"'),
        ("return http://a b;", 'invalid return code "http://a"'),
        ("if $uri { }", 'invalid condition "$uri"'),
        ("if ($uri { }", 'invalid condition "$uri"'),
        ("if () { }", 'invalid condition ")"'),
        ("if ( ) { }", 'invalid condition ")"'),
        ("if ($) { }", 'invalid condition "$"'),
        ("if (a = b) { }", 'invalid condition "a"'),
        ("if ($uri = a b) { }", 'invalid condition "$uri"'),
        ("if ($uri == a) { }", 'unexpected "==" in condition'),
        ("if (-f) { }", 'invalid condition "-f"'),
        ("if (-g $uri) { }", 'invalid condition "-g"'),
        ("if ($1) { }", 'unknown "1" variable'),
        ("if ($uri) { location /a { } }", '"location" directive is not allowed here'),
        ("if ($uri) { if ($uri) { } }", '"if" directive is not allowed here'),
    ],
)
def test_mistakes(location: Read, refused: Refused, text: str, message: str) -> None:
    assert refused(location, text) == f"{message} in nginx.conf:4"
