"""Values that cross between two VMs, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trio_lua.lua.vm import VM

#: Strings from this length on go beside the message.
LONG = 4096


class Refused(Exception):
    """The error that Lua raised."""


class Pair:
    """Two VMs: Lua code in one makes values, code in the other looks at them."""

    def __init__(self) -> None:
        self.sender, self.receiver = VM(), VM()
        for vm in (self.sender, self.receiver):
            vm.run(
                b"""
                local rt = ...
                local message = require "trio_lua.message"
                local decode, reset = message.decoder()
                rt.export.send = function(code, plain)
                    local make = loadstring("return " .. code) or loadstring(code)
                    if plain then
                        return pcall(message.encode_plain, "argument", make())
                    end
                    return pcall(message.encode, "argument", false, make())
                end
                rt.export.look = function(code, ...)
                    local globals = setmetatable({}, { __index = _G })
                    return loadstring(code)(decode(globals, ...))
                end
                rt.export.reset = reset
                """,
                "=pair",
            )

    def message(self, code: str, *, plain: bool = False) -> tuple[bytes, ...]:
        ok, *parts = self.sender.export("send")(code.encode(), plain)
        if not ok:
            raise Refused(parts[0].decode())
        return tuple(parts)

    def cross(self, make: str, look: str) -> Any:
        result = self.receiver.export("look")(look.encode(), *self.message(make))
        self.receiver.export("reset")()
        return result


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.mark.parametrize(
    ("value", "check"),
    [
        ("nil", "v == nil"),
        ("true", "v == true"),
        ("false", "v == false"),
        ("1.5", "v == 1.5"),
        ("-0.0", "1 / v == -math.huge"),
        ("0/0", "v ~= v"),
        ("2^60", "v == 2^60"),
        ('"a\\0b"', 'v == "a\\0b"'),
        (f'("x"):rep({LONG})', f"#v == {LONG}"),
        ("{ 1, 2, nil, 4, a = { b = { true } } }", "v[1] == 1 and v[4] == 4 and v.a.b[1] == true"),
        ("{ [false] = 1, [1.5] = 2 }", "v[false] == 1 and v[1.5] == 2"),
        ("ngx.null", "v == ngx.null"),
        (
            f'{{ deep = {{ ("y"):rep({LONG}), [("k"):rep({LONG})] = 1 }} }}',
            f'v.deep[1] == ("y"):rep({LONG}) and v.deep[("k"):rep({LONG})] == 1',
        ),
        ("setmetatable({ 1 }, { __index = error })", "v[1] == 1 and getmetatable(v) == nil"),
    ],
)
def test_values(pair: Pair, value: str, check: str) -> None:
    assert pair.cross(value, f"local v = ... return {check}") is True


def test_any_number_of_values(pair: Pair) -> None:
    assert pair.cross("nil, 1, nil", 'return select("#", ...)') == 3
    assert pair.cross("", 'return select("#", ...)') == 0


def test_a_long_string_is_beside_the_message_and_only_once(pair: Pair) -> None:
    head, *beside = pair.message(f'{{ a = ("z"):rep({LONG}), b = ("z"):rep({LONG}) }}')
    assert beside == [b"z" * LONG]
    assert len(head) < 100


def test_very_many_long_strings(pair: Pair) -> None:
    many = 300
    make = f'local t = {{}} for i = 1, {many} do t[i] = ("x"):rep({LONG}) .. i end return t'
    look = f'local t = ... return #t == {many} and t[{many}] == ("x"):rep({LONG}) .. {many}'
    assert len(pair.message(make)) < many
    assert pair.cross(make, look) is True


def test_functions_bring_their_variables(pair: Pair) -> None:
    make = """
        local step, options = 2, { limit = 10 }
        return function(n) return n + step < options.limit end
    """
    assert pair.cross(make, "local f = ... return f(7) and not f(8)") is True


def test_functions_share_variables_and_refer_to_each_other(pair: Pair) -> None:
    make = """
        local n = 0
        local odd
        local function even(i) return i == 0 or odd(i - 1) end
        odd = function(i) return i ~= 0 and even(i - 1) end
        return function() n = n + 1 return n end, { get = function() return n end }, even
    """
    look = "local inc, t, even = ... inc() inc() return t.get() == 2 and even(10) and not even(7)"
    assert pair.cross(make, look) is True


def test_functions_have_the_receivers_globals(pair: Pair) -> None:
    look = "local f = ... f() return rawget(_G, 'made') == nil and getfenv(f).made == 1"
    assert pair.cross("function() made = 1 end", look) is True


def test_a_loaded_function_is_used_again_with_fresh_variables(pair: Pair) -> None:
    make = "local n = 0 return function() n = n + 1 return n end"
    look = "local f = ... first = first or f return f == first and f() == 1"
    assert pair.cross(make, look) is True
    assert pair.cross(make, look) is True


def test_two_functions_of_one_task_with_the_same_code_are_two(pair: Pair) -> None:
    make = """
        local function counter(n) return function() n = n + 1 return n end end
        return counter(0), counter(10)
    """
    assert pair.cross(make, "local a, b = ... return a() == 1 and b() == 11 and a() == 2") is True


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("{ a = { [3] = { coroutine.create(print) } } }", "a coroutine cannot cross between threads: argument #1.a[3][1]"),
        ("1, { ['x y'] = io.stdout }", 'userdata cannot cross between threads: argument #2["x y"]'),
        ("{ 1LL }", "a C value (cdata) cannot cross between threads: argument #1[1]"),
        ("os.time", "the C function os.time cannot cross between threads: argument #1"),
        ("(function() local t = {} t.a = { b = t } return t end)()", "a table that contains itself cannot cross between threads: argument #1.a.b"),
        ("(function() local t = {} for i = 1, 100 do t = { t } end return t end)()", "tables nested more than 100 deep cannot cross between threads: argument #1" + "[1]" * 100),
        ("(function() local file = io.stdout return function() return file end end)()", 'userdata cannot cross between threads: upvalue "file" of the function at [string "return (function() local file = io.stdout ret..."]:1, which is argument #1'),
    ],
)  # fmt: skip
def test_what_cannot_cross(pair: Pair, value: str, error: str) -> None:
    with pytest.raises(Refused) as caught:
        pair.message(value)
    assert str(caught.value) == error


def test_depth_100_crosses(pair: Pair) -> None:
    make = "local t = {} for i = 1, 99 do t = { t } end return t"
    look = "local t, n = ..., 0 while t do t, n = t[1], n + 1 end return n"
    assert pair.cross(make, look) == 100


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("print", "unsupported Lua type: LUA_TFUNCTION in the argument"),
        ("{ io.stdout }", "unsupported Lua type: LUA_TUSERDATA in the argument"),
        ("coroutine.create(print)", "unsupported Lua type: LUA_TTHREAD in the argument"),
        ("1LL", "unsupported Lua type in the argument"),
        ("(function() local t = {} for i = 1, 99 do t = { t } end return t end)()", "suspicious circular references, table depth exceed max depth: 100 in the argument"),
    ],
)  # fmt: skip
def test_in_openrestys_words(pair: Pair, value: str, error: str) -> None:
    with pytest.raises(Refused) as caught:
        pair.message(value, plain=True)
    assert str(caught.value) == error


def test_an_error_leaves_nothing_behind(pair: Pair) -> None:
    send: Callable[..., Any] = pair.message
    with pytest.raises(Refused, match="C function"):
        send("1, 2, os.time")
    assert pair.cross("1, 2, 3", "return select('#', ...)") == 3
