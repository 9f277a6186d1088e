from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trio_lua.config.model import (
    Break,
    Condition,
    If,
    Instruction,
    LuaCode,
    Return,
    Rewrite,
    SetByLua,
    SetVar,
)
from trio_lua.phases.rewrite import (
    Broke,
    Continue,
    Failed,
    Finish,
    Redirect,
    Restart,
    compile_program,
    run,
)


class Lines:
    """Writes instructions as a configuration file would."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def rewrite(self, regex: str, replacement: str, flag: str = "") -> Rewrite:
        keep = not replacement.endswith("?")
        external = replacement.startswith(("http://", "https://", "$scheme"))
        text = self.make.template(replacement if keep else replacement[:-1])
        return Rewrite(regex, text, flag, keep, external, self.make.source)

    def set(self, name: str, value: str) -> SetVar:
        return SetVar(name, self.make.template(value), self.make.source)

    def give(self, code: int, text: str | None = None) -> Return:
        return Return(code, None if text is None else self.make.template(text), self.make.source)

    def stop(self) -> Break:
        return Break(self.make.source)

    def when(self, left: str, kind: str, right: str | None, *body: Instruction) -> If:
        literal = kind.endswith(("~", "~*")) and right is not None
        value = None
        if right is not None:
            value = type(self.make.template(""))(right, (right,)) if literal else None
            value = value or self.make.template(right)
        condition = Condition(kind, self.make.template(left), value)
        inner = self.make.location("if " + left, rewrite=body)
        return If(condition, inner, self.make.source)


@pytest.fixture
def lines(make: Any) -> Lines:
    return Lines(make)


def test_empty_program(make: Any) -> None:
    program = compile_program(())
    assert not program
    assert run(program, make.exchange()) == Continue()


def test_set_in_order(make: Any, lines: Lines) -> None:
    exchange = make.exchange(b"/a?x=1")
    program = compile_program([lines.set("a", "1"), lines.set("b", "$a-$uri-${args}.")])
    assert run(program, exchange) == Continue()
    assert exchange.variables == {"a": b"1", "b": b"1-/a-x=1."}


def test_set_by_lua(make: Any, lines: Lines) -> None:
    exchange = make.exchange()
    code = LuaCode("set_by_lua", make.source, "set_by_lua(nginx.conf:7)", "return 1")
    program = compile_program([SetByLua("a", code, make.source), lines.set("b", "$a")])
    assert run(program, exchange) == Continue()
    assert exchange.variables == {"a": b"lua", "b": b"lua"}
    exchange.lua = lambda handler: None
    exchange.variables.clear()
    assert run(program, exchange) == Failed()
    assert exchange.variables == {}


@pytest.mark.parametrize(
    ("target", "replacement", "uri", "args"),
    [
        (b"/a/b", "/c/$1", b"/c/b", None),
        (b"/a/b?x=1", "/c/$1", b"/c/b", b"x=1"),
        (b"/a/b?x=1", "/c/$1?", b"/c/b", None),
        (b"/a/b?x=1", "/c?n=$1", b"/c", b"n=b&x=1"),
        (b"/a/b?x=1", "/c?n=$1?", b"/c", b"n=b"),
        (b"/a/b", "/c?n=$1", b"/c", b"n=b"),
        (b"/a/b", "/c?", b"/c", None),
        (b"/a/b?x=1", "/c?$none", b"/c", b"&x=1"),
        (b"/a/b?x=1", "/c?n=$args?m?", b"/c", b"n=x=1?m"),
        (b"/a/b?x=1", "$uri$args", b"/a/bx=1", b"x=1"),
        (b"/a/b", "$question", b"/q?r", None),
        (b"/a/b", "relative", b"relative", None),
    ],
)
def test_rewrite_target(
    make: Any, lines: Lines, target: bytes, replacement: str, uri: bytes, args: bytes | None
) -> None:
    exchange = make.exchange(target, variables={"question": b"/q?r"})
    program = compile_program([lines.rewrite("^/a/(.*)$", replacement, "last"), lines.give(500)])
    assert run(program, exchange) == Restart()
    assert (exchange.uri, exchange.args) == (uri, args)


def test_rewrite_that_does_not_match(make: Any, lines: Lines) -> None:
    exchange = make.exchange(b"/x?y")
    assert run(compile_program([lines.rewrite("^/a", "/b", "last")]), exchange) == Continue()
    assert (exchange.uri, exchange.args) == (b"/x", b"y")


def test_rewrite_without_flag_goes_on(make: Any, lines: Lines) -> None:
    exchange = make.exchange(b"/a")
    program = compile_program(
        [lines.rewrite("^/a", "/b"), lines.rewrite("^/b", "/c"), lines.set("seen", "$uri")]
    )
    assert run(program, exchange) == Restart()
    assert exchange.variables == {"seen": b"/c"}


def test_break_keeps_location_after_rewrite(make: Any, lines: Lines) -> None:
    program = compile_program([lines.rewrite("^/a", "/b"), lines.stop(), lines.give(500)])
    assert run(program, make.exchange(b"/a")) == Broke(rewritten=True)
    assert run(program, make.exchange(b"/x")) == Broke()


def test_rewrite_break(make: Any, lines: Lines) -> None:
    exchange = make.exchange(b"/a")
    program = compile_program([lines.rewrite("^/a", "/b", "break"), lines.give(500)])
    assert run(program, exchange) == Broke(rewritten=True)
    assert exchange.uri == b"/b"


def test_rewrite_to_nothing(make: Any, lines: Lines) -> None:
    exchange = make.exchange(b"/a")
    program = compile_program([lines.rewrite("^/a", "$none", "last")])
    assert run(program, exchange) == Failed()
    assert exchange.logged == [(4, b"the rewritten URI has a zero length")]


@pytest.mark.parametrize("line", ["rewrite", "~", "!~"])
def test_match_that_fails_ends_the_request(make: Any, lines: Lines, line: str) -> None:
    step = (
        lines.rewrite("limit", "/b", "last")
        if line == "rewrite"
        else lines.when("$uri", line, "limit")
    )
    assert run(compile_program([step]), make.exchange(b"/a")) == Failed()


@pytest.mark.parametrize(
    ("target", "replacement", "flag", "status", "location"),
    [
        (b"/a/b", "/c/$1", "redirect", 302, b"/c/b"),
        (b"/a/b", "/c/$1", "permanent", 301, b"/c/b"),
        (b"/a/b?x=1", "/c/$1", "redirect", 302, b"/c/b?x=1"),
        (b"/a/b?x=1", "/c?y=2", "redirect", 302, b"/c?y=2&x=1"),
        (b"/a/b?x=1", "/c?y=2?", "redirect", 302, b"/c?y=2"),
        (b"/a/b?x=1", "/c?", "redirect", 302, b"/c"),
        (b"/a/b", "http://h/$1", "", 302, b"http://h/b"),
        (b"/a/b", "https://h/$1", "last", 302, b"https://h/b"),
        (b"/a/b", "https://h/$1", "break", 302, b"https://h/b"),
        (b"/a/b", "$scheme://h/$1", "permanent", 301, b"s://h/b"),
        (b"/a/%7Ex%20%2By", "/c/$1", "redirect", 302, b"/c/~x%20+y"),
        (b"/a/x%3Fy", "/c/$1", "redirect", 302, b"/c/x?y"),
        (b"/a/b", "/%41%zq%4", "redirect", 302, b"/Azq"),
        (b"/a/b", "/x?%41", "redirect", 302, b"/x?%41"),
    ],
)
def test_redirect(
    make: Any,
    lines: Lines,
    target: bytes,
    replacement: str,
    flag: str,
    status: int,
    location: bytes,
) -> None:
    decoded = target.partition(b"?")[0]
    for code, byte in ((b"%7E", b"~"), (b"%20", b" "), (b"%2B", b"+"), (b"%3F", b"?")):
        decoded = decoded.replace(code, byte)
    exchange = make.exchange(target, uri=decoded, variables={"scheme": b"s"})
    program = compile_program([lines.rewrite("^/a/(.*)$", replacement, flag), lines.give(500)])
    assert run(program, exchange) == Redirect(status, location)


def test_captures_are_encoded_in_new_arguments_only(make: Any, lines: Lines) -> None:
    exchange = make.exchange(b"/a/b%26c%3D%20d", uri=b"/a/b&c= d")
    program = compile_program([lines.rewrite("^/a/(.*)$", "/x/$1?q=$1&r=$raw", "last")])
    exchange.variables["raw"] = b"&"
    run(program, exchange)
    assert (exchange.uri, exchange.args) == (b"/x/b&c= d", b"q=b%26c=%20d&r=&")


def test_captures_of_a_plain_path_are_not_encoded(make: Any, lines: Lines) -> None:
    exchange = make.exchange(b"/a/b&c?%20+")
    run(compile_program([lines.rewrite("^/a/(.*)$", "/x?q=$1?", "last")]), exchange)
    assert exchange.args == b"q=b&c"


def test_set_encodes_captures_until_a_rewrite_matched(make: Any, lines: Lines) -> None:
    exchange = make.exchange(b"/a/b%20c", uri=b"/a/b c")
    program = compile_program(
        [
            lines.when("$uri", "~", "^/a/(.*)$", lines.set("one", "<$1>")),
            lines.rewrite("^/a/(.*)$", "/x"),
            lines.set("two", "<$1>"),
        ]
    )
    run(program, exchange)
    assert exchange.variables == {"one": b"<b%20c>", "two": b"<b c>"}


@pytest.mark.parametrize(
    ("code", "text", "outcome"),
    [
        (200, "hi $uri", Finish(200, b"hi /a")),
        (200, None, Finish(200, b"")),
        (204, None, Finish(204, b"")),
        (301, "/b$uri", Redirect(301, b"/b/a")),
        (302, "http://h$uri", Redirect(302, b"http://h/a")),
        (303, "/b", Redirect(303, b"/b")),
        (304, None, Finish(304, b"")),
        (307, "/b", Redirect(307, b"/b")),
        (308, None, Redirect(308, b"")),
        (404, None, Finish(404, None)),
        (404, "", Finish(404, None)),
        (404, "$none", Finish(404, b"")),
        (403, "no", Finish(403, b"no")),
        (444, None, Finish(444, None)),
    ],
)
def test_return(make: Any, lines: Lines, code: int, text: str | None, outcome: Any) -> None:
    program = compile_program([lines.give(code, text), lines.give(500)])
    assert run(program, make.exchange(b"/a")) == outcome


@pytest.mark.parametrize(
    ("left", "kind", "right", "holds"),
    [
        ("$v", "true", None, True),
        ("$none", "true", None, False),
        ("$zero", "true", None, False),
        ("$zeros", "true", None, True),
        ("$v", "=", "Abc", True),
        ("$v", "=", "abc", False),
        ("$v", "=", "$w", True),
        ("$v", "!=", "abc", True),
        ("$v", "!=", "Abc", False),
        ("$v", "~", "^A", True),
        ("$v", "~", "^a", False),
        ("$v", "~*", "^a", True),
        ("$v", "!~", "^a", True),
        ("$v", "!~", "^A", False),
        ("$v", "!~*", "^a", False),
    ],
)
def test_conditions(
    make: Any, lines: Lines, left: str, kind: str, right: str | None, holds: bool
) -> None:
    variables = {"v": b"Abc", "w": b"Abc", "zero": b"0", "zeros": b"00"}
    exchange = make.exchange(b"/", variables=variables)
    program = compile_program([lines.when(left, kind, right, lines.give(403)), lines.give(404)])
    outcome = run(program, exchange)
    assert isinstance(outcome, Finish)
    assert outcome.status == (403 if holds else 404)


def test_file_conditions(make: Any, lines: Lines, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "run").write_text("x")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    expected = {
        "file": "fe",
        "run": "fex",
        "dir": "dex",
        "fifo": "",
        "dangling": "",
        "none": "",
        "file/x": "",
        "x" * 300: "",
    }
    for name, kinds in expected.items():
        for kind in "fdex":
            for negation in ("", "!"):
                exchange = make.exchange(b"/", variables={"root": os.fsencode(tmp_path)})
                test = lines.when(f"$root/{name}", f"{negation}-{kind}", None, lines.give(403))
                outcome = run(compile_program([test]), exchange)
                holds = isinstance(outcome, Finish)
                assert holds is ((kind in kinds) is not bool(negation)), (name, kind, negation)
                assert exchange.logged == []


def test_file_condition_logs_what_is_odd(make: Any, lines: Lines, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    path = os.fsencode(tmp_path / "loop")
    exchange = make.exchange(b"/", variables={"path": path + b"\0.txt"})
    assert run(compile_program([lines.when("$path", "!-f", None, lines.give(403))]), exchange)
    message = b'stat() "%b" failed (40: Too many levels of symbolic links)' % path
    assert exchange.logged == [(3, message)]


def test_last_true_if_is_the_location(make: Any, lines: Lines) -> None:
    first = lines.when("1", "true", None, lines.set("a", "1"))
    inner = lines.when("1", "true", None)
    second = lines.when("1", "true", None, inner, lines.set("b", "2"))
    third = lines.when("0", "true", None, lines.set("c", "3"))
    exchange = make.exchange()
    program = compile_program([first, second, third, lines.set("d", "4")])
    assert run(program, exchange) == Continue(inner.location)
    assert exchange.variables == {"a": b"1", "b": b"2", "d": b"4"}


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ("return", Finish(403, None)),
        ("redirect", Redirect(301, b"/x")),
        ("break", Broke()),
        ("last", Restart()),
        ("rewrite break", Broke(rewritten=True)),
        ("empty", Failed()),
    ],
)
def test_outcomes_name_the_if(make: Any, lines: Lines, step: str, outcome: Any) -> None:
    steps: dict[str, Instruction] = {
        "return": lines.give(403),
        "redirect": lines.give(301, "/x"),
        "break": lines.stop(),
        "last": lines.rewrite("^", "/b", "last"),
        "rewrite break": lines.rewrite("^", "/b", "break"),
        "empty": lines.rewrite("^", "$none", "last"),
    }
    test = lines.when("1", "true", None, steps[step])
    program = compile_program([test, lines.give(500)])
    result = run(program, make.exchange(b"/a"))
    assert result == type(outcome)(**{**_fields(outcome), "location": test.location})


def _fields(outcome: Any) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in outcome.__dataclass_fields__}


def test_if_makes_no_location_at_server_level(make: Any, lines: Lines) -> None:
    test = lines.when("1", "true", None, lines.set("a", "1"))
    exchange = make.exchange()
    assert run(compile_program([test], server_level=True), exchange) == Continue()
    assert exchange.variables == {"a": b"1"}


def test_set_args(make: Any, lines: Lines) -> None:
    exchange = make.exchange(b"/a?x=1")
    program = compile_program([lines.set("args", "$args&y"), lines.rewrite("^", "/b", "last")])
    run(program, exchange)
    assert exchange.args == b"x=1&y"
