"""The table and thread modules that OpenResty's LuaJIT has and stock LuaJIT lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trio_lua.api
from trio_lua.api import codec
from trio_lua.lua.vm import VM

API = Path(trio_lua.api.__file__).parent

Eval = Callable[..., Any]


@pytest.fixture
def lua() -> Eval:
    vm = VM(calls=codec.calls(), files=[API / "codec.lua"])

    def run(code: str) -> Any:
        vm.run(f"local rt = ... function rt.export.f() {code} end".encode(), "=test")
        return vm.export("f")()

    return run


@pytest.mark.parametrize(
    ("table", "keys", "array", "empty"),
    [
        ("{}", 0, True, True),
        ("{1, 2}", 2, True, False),
        ("{1, nil, 3}", 2, True, False),
        ("{[3] = 1}", 1, True, False),
        ("{[0] = 1, 2}", 2, True, False),
        ("{[-1] = 1}", 1, True, False),
        ("{[2^53] = 1, [1/0] = 1}", 2, True, False),
        ("{[1.5] = 1}", 1, False, False),
        ("{1, a = 1}", 2, False, False),
        ("{[true] = 1}", 1, False, False),
        ("{false}", 1, True, False),
        ("setmetatable({}, {__len = function() return 5 end, __index = {1}})", 0, True, True),
    ],
)
def test_questions(lua: Eval, table: str, keys: int, array: bool, empty: bool) -> None:
    code = f"""
        local t = {table}
        return require("table.nkeys")(t), require("table.isarray")(t), require("table.isempty")(t)
    """
    assert lua(code) == (keys, array, empty)


def test_clone(lua: Eval) -> None:
    code = """
        local inner = {}
        local t = setmetatable({1, 2, inner, a = inner}, {})
        local copy = require("table.clone")(t)
        return copy ~= t, copy[1], copy[3] == inner, copy.a == inner, getmetatable(copy)
    """
    assert lua(code) == (True, 1, True, True, None)


@pytest.mark.parametrize("name", ["nkeys", "isarray", "isempty", "clone"])
def test_functions(lua: Eval, name: str) -> None:
    code = f'local {name} = require("table.{name}") '
    message = f"bad argument #1 to '{name}' (table expected, got %s)"
    call = f"return pcall(function() local x = {name}(%s) end)"
    assert lua(code + call % "nil") == (False, f"test:1: {message % 'nil'}".encode())
    assert lua(code + call % "") == (False, f"test:1: {message % 'no value'}".encode())
    assert lua(code + call % "'x'") == (False, f"test:1: {message % 'string'}".encode())
    assert lua(code + f"return table.{name} == {name}") is True


def test_new_and_clear_are_the_native_ones(lua: Eval) -> None:
    assert (
        lua('local t = require("table.new")(4, 4) t[1] = 1 require("table.clear")(t) return #t')
        == 0
    )


class TestExdata:
    def test_tells_requests_apart(self, lua: Eval) -> None:
        code = """
            local get = require("thread.exdata")
            local a = get()
            rt.S.r = {id = 7}
            local b = get()
            rt.S.r = nil
            return type(a), a == nil, b ~= nil, b ~= a
        """
        assert lua(code) == (b"cdata", True, True, True)

    @pytest.mark.parametrize("name", ["exdata", "exdata2"])
    def test_is_kept_per_coroutine_and_request(self, lua: Eval, name: str) -> None:
        code = f"""
            local ffi = require "ffi"
            local slot = require("thread.{name}")
            local function number() return tonumber(ffi.cast("uintptr_t", slot())) end
            local co = coroutine.wrap(function()
                slot(ffi.cast("void *", 22))
                coroutine._yield(number())
                coroutine._yield(number())
            end)
            rt.S.r = {{id = 1}}
            slot(ffi.cast("void *", 11))
            local inner, outer = co(), number()
            rt.S.r = {{id = 2}}
            local later, forgotten = co(), number()
            rt.S.r = nil
            return inner, outer, later, forgotten
        """
        fallback = 2 if name == "exdata" else 0
        assert lua(code) == (22, 11, fallback, fallback)

    def test_wants_cdata(self, lua: Eval) -> None:
        assert lua('return pcall(require("thread.exdata"), 1)') == (
            False,
            b"bad argument #1 to '?' (cdata expected, got number)",
        )
