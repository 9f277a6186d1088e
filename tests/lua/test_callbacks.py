"""Functions of Lua's library that call back may wait, and else are what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_lua.lua.vm import VM

if TYPE_CHECKING:
    from conftest import Lua

Clock = trio.testing.MockClock


@pytest.fixture(scope="module")
def both() -> Callable[[str], list[tuple[object, object]]]:
    """Evaluates ``f(own, original)`` for sort, load or gsub; ``own`` in a VM with lua_strict_phases off."""
    vm = VM(values={"strict_phases": False}, calls={"alarm": lambda _at: None})
    vm.run(
        b"""
        local rt = ...
        local function upvalue(f, wanted)
            for i = 1, 60 do
                local name, value = debug.getupvalue(f, i)
                if name == wanted then return value end
            end
        end
        rt.originals = {
            sort = upvalue(table.sort, "raw_sort"), gsub = upvalue(string.gsub, "raw_gsub"),
            load = upvalue(upvalue(load, "load") or load, "raw_load"),
        }
        rt.own = { sort = table.sort, gsub = string.gsub, load = load }
        function rt.export.both(code)
            local f = assert(loadstring("local sort, gsub, load = ... " .. code))
            local results = {}
            for i, fs in ipairs { rt.own, rt.originals } do
                local ok, a, b = pcall(f, fs.sort, fs.gsub, fs.load)
                results[i] = tostring(ok) .. " " .. tostring(a) .. " " .. tostring(b)
            end
            return results[1], results[2]
        end
        """,
        "=both",
    )
    call = vm.export("both")
    return lambda code: call(code.encode())  # type: ignore[no-any-return]


GSUB = [
    "'hello world', '%w+', string.upper",
    "'hello world', '%w+', function(w) return w == 'world' and 'x' end",
    "'hello world', '(%w)(%w*)', function(a, b) return a:upper() .. b end",
    "'abc', '(a)(b)(c)', function(...) return select('#', ...) end",
    "'hello', '', function() return '-' end",
    "'hello', 'l*', function(x) return '<' .. x .. '>' end",
    "'hello', '()', function(i) return i end",
    "'hello', '.', function(x) return x == 'l' and 7 or nil end",
    "'hello', '.', function() return false end",
    "'aaa', '^a', function() return 'b' end",
    "'aaa', 'a$', function() return 'b' end",
    "'THE (quick) fox', '%f[%a]%a+', function(x) return '[' .. x .. ']' end",
    "'f(a(b)c)d', '%b()', function(x) return #x end",
    "'aaa', 'a', function() return 'b' end, 2",
    "'aaa', 'a', function() return 'b' end, 0",
    "'aaa', 'a', function() return 'b' end, -1",
    "'', 'a*', function() return 'b' end",
    "'a\\0b', '%z', function() return '0' end",
    "'abc', 'b', { b = 'x' }",
    "'abc', 'b', 'x%0'",
    "'abc', 'b', function() return {} end",
    "'abc', 'b', function() error('e', 0) end",
    "'abc', 'b', nil",
    "'abc', 'b', true",
    "123, 2, function(x) return x .. x end",
    "'abc', 'b', function() return 'x' end, 'y'",
]


@pytest.mark.parametrize("arguments", GSUB)
def test_gsub_is_what_it_was(both: Callable[[str], tuple[bytes, bytes]], arguments: str) -> None:
    own, original = both(f"local text, n = gsub({arguments}) return text, n")
    assert own == original


@pytest.mark.parametrize(
    "code",
    [
        "return load(function() end)",
        "local n = 0 return load(function() n = n + 1 return ({'return ', '', '1'})[n] end)",
        "local n = 0 return load(function() n = n + 1 return ({'return ', 1})[n] end)()",
        "local n = 0 return load(function() n = n + 1 return ({'return 1 +'})[n] end)",
        "local n = 0 return load(function() n = n + 1 return ({'return 1 +'})[n] end, '=x')",
        "return load(function() return {} end)",
        "return load(function() error('e', 0) end)",
        "return load('return 7')()",
        "return load('return x', 'n', 't', { x = 3 })()",
        "local n = 0 return load(function() n = n + 1 return ({'return x'})[n] end, 'n', 't', { x = 3 })()",
        "return load('return +')",
    ],
)
def test_load_is_what_it_was(both: Callable[[str], tuple[bytes, bytes]], code: str) -> None:
    own, original = (text.split(b"function: ")[0] for text in both(code))
    assert own == original


@pytest.mark.parametrize(
    "arguments",
    ["1", "{}, 1", "{ 3, 1, 2 }", "{ 1, 'a' }", "nil, function() end", "{ 2, 1 }, nil"],
)
def test_mistakes_in_sort(both: Callable[[str], tuple[bytes, bytes]], arguments: str) -> None:
    own, original = both(f"sort({arguments})")
    assert own == original


def test_sort_compares_what_it_compared(both: Callable[[str], tuple[bytes, bytes]]) -> None:
    own, original = both("""
        local seen, n = {}, 0
        math.randomseed(7)
        for round = 1, 400 do
            local list = {}
            for i = 1, math.random(0, 70) do list[i] = { key = math.random(9), i = i } end
            -- an order that contradicts itself now and then
            local broken = round % 5 == 0
            local ok, err = pcall(sort, list, function(a, b)
                n = n + 1
                seen[n] = (a and a.i or "nil") .. " " .. (b and b.i or "nil")
                if broken then return true end
                return a.key < b.key
            end)
            n = n + 1
            seen[n] = tostring(ok) .. (err or "")
            for i = 1, #list do n = n + 1 seen[n] = list[i].i end
        end
        return table.concat(seen, "\\n")
        """)
    assert own == original
    assert b"invalid order function" in own


async def test_they_may_wait(lua: Lua, autojump_clock: Clock) -> None:
    await lua.run(
        """
        local list = { 3, 1, 2 }
        table.sort(list, function(a, b) ngx.sleep(1) return a < b end)
        out(table.concat(list, " "))
        local pieces = { "return ", "7" }
        local f = load(function() ngx.sleep(1) return table.remove(pieces, 1) end)
        out(f())
        """
    )
    assert lua.take() == [["1 2 3"], ["7"]]
    assert trio.current_time() == 5


async def test_gsub_may_wait_without_strict_phases(
    make_lua: Callable[..., Lua], autojump_clock: Clock
) -> None:
    lua = make_lua(lua_strict_phases=False)
    await lua.run('out((("a b c"):gsub("%w", function(x) ngx.sleep(1) return x .. x end)))')
    assert lua.take() == [["aa bb cc"]]
    assert trio.current_time() == 3
