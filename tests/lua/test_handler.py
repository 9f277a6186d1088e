"""Handlers and their globals: each request has its own, whether its closures are shared or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lua.conftest import Lua

#: Ways of writing a global that a look at the handler's own instructions has to find.
WRITERS = {
    "assignment": "leak = 1",
    "function": "function leak() end",
    "in an inner function": "local function f() leak = 1 end f()",
    "two functions deep": "local function f() return function() leak = 1 end end f()()",
    "in a loop": "for i = 1, 2 do leak = i end",
    "_G": "_G.leak = 1",
    "rawset": "rawset(_G, 'leak', 1)",
    "getfenv": "getfenv(1).leak = 1",
    "inner getfenv": "(function() getfenv(2).leak = 1 end)()",
    "loadstring": "loadstring('leak = 1')()",
    "load": "load('leak = 1')()",
    "alias": "local l = loadstring l('leak = 1')()",
}


@pytest.mark.parametrize("code", WRITERS.values(), ids=WRITERS.keys())
def test_a_global_ends_with_its_request(lua: Lua, code: str) -> None:
    lua.begin(f"{code} out(leak ~= nil)")
    lua.begin(f"out(leak ~= nil) {code}")
    lua.begin("out(leak ~= nil)")
    assert lua.take() == [["true"], ["false"], ["false"]]


def test_a_global_is_seen_by_the_later_handlers_of_its_request(lua: Lua) -> None:
    id = lua.request()
    lua.begin("seen = 'yes'", id=id)
    lua.begin("out(_G.seen, seen)", id=id)
    assert lua.take() == [["yes", "yes"]]


def test_a_reader_sees_what_its_request_wrote(lua: Lua) -> None:
    """A handler that only reads globals must read its request's, too."""
    reader = "out(seen)"
    id = lua.request()
    lua.begin("seen = 'yes'", id=id)
    lua.begin(reader, id=id)
    lua.begin(reader)
    assert lua.take() == [["yes"], ["nil"]]


def test_a_function_sees_what_is_written_after_it_was_made(lua: Lua) -> None:
    id = lua.request()
    lua.begin("ngx.ctx.f = function() return late end", id=id)
    lua.begin("late = 'yes' out(ngx.ctx.f())", id=id)
    assert lua.take() == [["yes"]]


def test_a_callee_that_changes_the_environment(lua: Lua) -> None:
    lua.file("m.lua", "return function() setfenv(2, { x = 'changed' }) end")
    code = "local out, change = out, require('m') change() out(x)"
    lua.begin(code)
    lua.begin("out(x)")
    lua.begin(code)
    assert lua.take() == [["changed"], ["nil"], ["changed"]]


def test_locals_of_one_run_are_not_those_of_the_next(lua: Lua) -> None:
    code = "local n = 0 local function next() n = n + 1 return n end next() out(next())"
    lua.begin(code)
    lua.begin(code)
    assert lua.take() == [["2"], ["2"]]
