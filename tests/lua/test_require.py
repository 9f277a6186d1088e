"""require, module, package, and lua_code_cache off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_lua.config.model import LuaCode, Source, Template
from trio_lua.errors import LuaError
from trio_lua.lua.driver import Outcome
from trio_lua.request.phase import Phase

if TYPE_CHECKING:
    from conftest import Lua

MakeLua = Callable[..., "Lua"]
CHUNK = "content_by_lua(nginx.conf:1)"
COUNT = "package.loaded.count = (package.loaded.count or 0) + 1\n"


def test_a_module_is_loaded_once(lua: Lua) -> None:
    lua.file("a/b.lua", COUNT + "return { name = ..., n = select('#', ...) }")
    code = (
        "local m = require 'a.b' out(m.name, m.n, m == package.loaded['a.b'], package.loaded.count)"
    )
    assert lua.eval(code) == ["a.b", "1", "true", "1"]
    assert lua.eval(code) == ["a.b", "1", "true", "1"]


def test_a_module_that_returns_nothing(lua: Lua) -> None:
    lua.file("none.lua", "")
    lua.file("own.lua", "package.loaded[...] = 'set by itself'")
    lua.file("no.lua", "return false")
    assert lua.eval(
        "out(require 'none', require 'own', require 'no', package.loaded.no, require 'no')"
    ) == ["true", "set by itself", "false", "false", "false"]


def test_standard_modules(lua: Lua) -> None:
    names = [
        "ngx",
        "string",
        "table",
        "math",
        "io",
        "os",
        "debug",
        "coroutine",
        "package",
        "bit",
        "ffi",
        "jit",
    ]
    tests = ", ".join(f"require '{name}' == package.loaded.{name}" for name in names)
    assert lua.eval(f"out({tests})") == ["true"] * len(names)
    assert (
        lua.eval(
            "out(require 'ngx' == ngx, require '_G' == getfenv(0), require 'string' == string)"
        )
        == ["true"] * 3
    )


def test_modules_run_in_the_shared_globals(lua: Lua) -> None:
    lua.file("m.lua", "global = 1 return { env = getfenv(1), get = function() return x end }")
    assert lua.eval("x = 5 local m = require 'm' out(m.env == getfenv(0), global, m.get())") == [
        "true",
        "1",
        "nil",
    ]
    assert lua.eval("out(global)") == ["1"]


def test_module_and_seeall(lua: Lua) -> None:
    lua.file(
        "old/style.lua", "module(..., package.seeall)\nfunction hi() return tostring(_NAME) end"
    )
    assert lua.eval(
        """
        local m = require "old.style"
        out(m.hi(), m._M == m, m._PACKAGE, old.style == m, rawget(m, "tostring"))
        """
    ) == ["old.style", "true", "old.", "true", "nil"]
    lua.file(
        "closed.lua", "local pairs = pairs\nmodule('closed')\nfunction hi() return tostring end"
    )
    assert lua.eval("out(require('closed').hi())") == ["nil"]


# ------------------------------------------------------------------------------------------- errors


def test_not_found(lua: Lua) -> None:
    ok, err = lua.eval("out(pcall(function() local m = require 'no.such' end))")
    assert ok == "false"
    assert err == (
        f"{CHUNK}:1: module 'no.such' not found:"
        "\n\tno field package.preload['no.such']"
        f"\n\tno file '{lua.path}/no/such.lua'"
        f"\n\tno file '{lua.path}/no/such.so'"
        f"\n\tno file '{lua.path}/no.so'"
    )


def test_not_found_without_a_dot(lua: Lua) -> None:
    _, err = lua.eval("package.path = '/x/?.lua;;/y/?/init.lua' out(pcall(require, 'so%me'))")
    assert err == (
        "module 'so%me' not found:\n\tno field package.preload['so%me']\n\tno file '/x/so%me.lua'"
        f"\n\tno file '/y/so%me/init.lua'\n\tno file '{lua.path}/so%me.so'"
    )


@pytest.mark.parametrize(
    ("argument", "got"), [("", "nil"), ("nil", "nil"), ("{}", "table"), ("true", "boolean")]
)
def test_bad_names(lua: Lua, argument: str, got: str) -> None:
    assert lua.eval(f"out(pcall(require, {argument}))" if argument else "out(pcall(require))") == [
        "false",
        f"bad argument #1 to 'require' (string expected, got {got})",
    ]


def test_a_number_is_a_name(lua: Lua) -> None:
    lua.file("5.lua", "return type(...)")
    assert lua.eval("out(require(5))") == ["string"]


def test_syntax_errors(lua: Lua) -> None:
    path = lua.file("syn.lua", "x x")
    ok, err = lua.eval("out(pcall(require, 'syn'))")
    head = f"error loading module 'syn' from file '{path}':\n\t"
    assert (ok, err[: len(head)]) == ("false", head)
    assert err.endswith("/syn.lua:1: '=' expected near 'x'")


def test_a_library_that_is_none(lua: Lua) -> None:
    path = lua.file("bad.so", "no library")
    ok, err = lua.eval("out(pcall(require, 'bad'))")
    assert ok == "false"
    assert err.startswith(f"error loading module 'bad' from file '{path}':\n\t")


def test_a_failed_module_is_tried_again(lua: Lua) -> None:
    path = lua.file("bad.lua", COUNT + "error('boom', 0)")
    code = "out(pcall(require, 'bad')) "
    lua.begin(code * 2 + "out(package.loaded.bad, package.loaded.count)")
    assert lua.take() == [["false", "boom"], ["false", "boom"], ["nil", "2"]]
    path.write_text("return 'good'")
    assert lua.eval("out(require 'bad')") == ["good"]


def test_error_values_of_modules_are_kept(lua: Lua) -> None:
    lua.file("bad.lua", "error(setmetatable({}, { __tostring = function() return 'custom' end }))")
    assert lua.eval("out(pcall(require, 'bad'))") == ["false", "custom"]


def test_traceback_of_a_modules_error_reaches_into_it(lua: Lua) -> None:
    path = lua.file("bad.lua", "local function deep()\nerror('boom')\nend\ndeep()")
    outcome, message, trace = lua.begin("\nrequire 'bad'")
    short = trace.decode().split("\n\t")[2].split(":")[0]
    assert outcome == Outcome.FAILED
    assert message.decode().endswith("bad.lua:2: boom")
    assert str(path).endswith(short.lstrip("."))
    assert trace.decode() == (
        "coroutine 0:\n\t[C]: in function 'error'"
        f"\n\t{short}:2: in function 'deep'"
        f"\n\t{short}:4: in main chunk"
        "\n\t[C]: in function 'require'"
        f"\n\t{CHUNK}:2: in main chunk"
    )
    with pytest.raises(LuaError, match=r"in function 'deep'(.*\n)*.*in function 'require'"):
        lua.init("require 'bad'")


def test_loops(lua: Lua) -> None:
    lua.file("la.lua", "return require 'lb'")
    path = lua.file("lb.lua", "\nlocal a = require 'la'")
    ok, err = lua.eval("out(pcall(require, 'la'))")
    assert ok == "false"
    assert err.endswith("lb.lua:2: loop or previous error loading module 'la'")
    path.write_text("return 'fine'")
    assert lua.eval("out(require 'la')") == ["fine"]


def test_a_module_in_a_loop_that_has_announced_itself(lua: Lua) -> None:
    lua.file("la.lua", "local M = {} package.loaded[...] = M M.b = require 'lb' return M")
    lua.file("lb.lua", "return { a = require 'la' }")
    assert lua.eval("local a = require 'la' out(a.b.a == a)") == ["true"]


# ----------------------------------------------------------------------------------- package.*


def test_preload(lua: Lua) -> None:
    assert lua.eval(
        """
        package.preload["p.q"] = function(...) return { ... } end
        local m = require "p.q"
        out(#m, m[1], package.preload["p.q"] ~= nil)
        """
    ) == ["1", "p.q", "true"]


def test_there_are_four_loaders(lua: Lua) -> None:
    lua.file("m.lua", "return 'from the path'")
    assert lua.eval(
        """
        local loaders = package.loaders
        out(#loaders, package.searchers == nil or package.searchers == loaders,
            loaders[1]("m"), loaders[2]("m")())
        """
    ) == ["4", "true", "\n\tno field package.preload['m']", "from the path"]


def test_a_loader_of_ones_own(lua: Lua) -> None:
    lua.init(
        """
        table.insert(package.loaders, function(name)
            local what = name:match("^made%.(.*)")
            if what == "odd" then
                return nil
            end
            return what and function(...) return what .. select("#", ...) end or "\\n\\tnot made: " .. name
        end)
        """
    )
    assert lua.eval("out(require 'made.up')") == ["up1"]
    _, err = lua.eval("out(pcall(require, 'nothing'))")
    assert err.endswith("\n\tnot made: nothing")
    _, err = lua.eval("out(pcall(require, 'made.odd'))")
    assert err.endswith(".so'")


def test_a_loader_before_all_others(lua: Lua) -> None:
    lua.file("m.lua", "return 'file'")
    assert lua.eval(
        """
        table.insert(package.loaders, 1, function(name)
            return name == "m" and function() return "first" end or nil
        end)
        out(require "m", require("bit") == bit)
        """
    ) == ["first", "true"]


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        ("package.loaders = nil", "'package.loaders' must be a table"),
        ("package.preload = 1", "'package.preload' must be a table"),
        ("package.path = nil", "'package.path' must be a string"),
        ("package.cpath = {}", "'package.cpath' must be a string"),
    ],
)
def test_a_damaged_package_table(lua: Lua, damage: str, error: str) -> None:
    assert lua.eval(f"{damage} out(pcall(require, 'm'))") == ["false", error]


def test_paths_of_the_configuration(make_lua: MakeLua, tmp_path: Path) -> None:
    lua = make_lua(lua_package_path="$prefix/lib/?.lua;;", lua_package_cpath="${prefix}c/?.so")
    (path, cpath) = lua.eval("out(package.path, package.cpath)")
    assert path.startswith(f"{tmp_path}//lib/?.lua;")
    assert "/usr/share/lua/5.1/?.lua" in path
    assert cpath == f"{tmp_path}/c/?.so"


# ------------------------------------------------------------------------- suspending in a module


async def test_a_module_may_suspend(lua: Lua, autojump_clock: trio.testing.MockClock) -> None:
    lua.file("slow.lua", COUNT + "ngx.sleep(1) return { n = package.loaded.count }")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(lua.run, "out(require('slow').n, require('slow').n)")
    assert lua.take() == [["1", "1"]] * 3


async def test_the_loader_leaves(lua: Lua, autojump_clock: trio.testing.MockClock) -> None:
    """By ngx.exit, and by cancellation: who waits then takes over."""
    path = lua.file(
        "slow.lua",
        COUNT + "ngx.sleep(1) if package.loaded.count == 1 then ngx.exit(403) end return 's'",
    )
    results: list[object] = []

    async def run() -> None:
        results.append(await lua.run("out(require 'slow', package.loaded.count)"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(run)
    assert sorted(map(str, results)) == ["(3, 403, None)", "None"]
    assert lua.take() == [["s", "2"]]
    path.write_text("ngx.sleep(5) return 'again'")
    lua.begin("package.loaded.slow = nil")
    with trio.move_on_after(1):
        await run()
    await run()
    assert lua.take() == [["again", "2"]]


async def test_the_loader_fails(lua: Lua, autojump_clock: trio.testing.MockClock) -> None:
    lua.file(
        "slow.lua",
        COUNT + "ngx.sleep(1) if package.loaded.count == 1 then error('boom', 0) end return 's'",
    )
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(lua.run, "out(pcall(require, 'slow')) ngx.sleep(100)")
        await trio.sleep(10)
        assert lua.take() == [["false", "boom"], ["true", "s"]]


async def test_phases_that_cannot_wait_load_it_themselves(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    lua.file(
        "slow.lua",
        COUNT + "if package.loaded.count == 1 then ngx.sleep(1) end return package.loaded.count",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lua.run, "out('handler', require 'slow')")
        await trio.testing.wait_all_tasks_blocked()
        assert lua.run_sync("out('filter', require 'slow')", Phase.HEADER_FILTER) is True
    assert lua.take() == [["filter", "2"], ["handler", "2"]]


# ------------------------------------------------------------------------------------- C modules

CJSON = [
    path
    for folder in (
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib",
        "/usr/local/lib",
    )
    if (path := Path(folder, "lua/5.1/cjson.so")).exists()
]


@pytest.mark.skipif(not CJSON, reason="lua-cjson for Lua 5.1 is not installed as a C module")
def test_a_c_module(make_lua: MakeLua) -> None:
    lua = make_lua(lua_package_cpath=f"{CJSON[0].parent}/?.so")
    assert lua.eval(
        """
        local cjson = require "cjson"
        local info = debug.getinfo(cjson.encode, "S")
        out(info.what, cjson.encode({ 1, 2, cjson.null }), cjson.decode("[null]")[1] == ngx.null,
            cjson.null == ngx.null, require("cjson.safe").decode("nonsense"))
        """
    )[:4] == ["C", "[1,2,null]", "true", "true"]


@pytest.mark.skipif(not CJSON, reason="lua-cjson for Lua 5.1 is not installed as a C module")
def test_a_c_module_without_the_function(make_lua: MakeLua, tmp_path: Path) -> None:
    (tmp_path / "other.so").symlink_to(CJSON[0])
    lua = make_lua()
    _, err = lua.eval("out(pcall(require, 'other'))")
    assert err.startswith(f"error loading module 'other' from file '{tmp_path}/other.so':\n\t")
    _, err = lua.eval("out(pcall(require, 'other.sub'))")
    assert err.endswith(f"\n\tno module 'other.sub' in file '{tmp_path}/other.so'")


def test_the_built_in_cjson_stands_in(lua: Lua) -> None:
    assert lua.eval(
        """
        local cjson = require "cjson"
        out(debug.getinfo(cjson.encode, "S").what, cjson.null == ngx.null, cjson.encode({ 1, ngx.null }),
            require("cjson.safe").null == ngx.null)
        """
    ) == ["Lua", "true", "[1,null]", "true"]


def test_a_cjson_of_the_user_goes_first(lua: Lua) -> None:
    lua.file("cjson.lua", "return 'mine'")
    assert lua.eval("out(require 'cjson')") == ["mine"]


# ----------------------------------------------------------------------------- lua_code_cache off


def uncached(lua: Lua, code: str, *, id: int | None = None) -> list[list[str]]:
    result = lua.begin(code, id=id, code_cache=False)
    assert result == Outcome.DONE, result
    return lua.take()


def test_modules_are_loaded_again(lua: Lua) -> None:
    path = lua.file("m.lua", "n = (n or 0) + 1 return 'one' .. n")
    assert uncached(lua, "out(require 'm', require 'm')") == [["one1", "one1"]]
    path.write_text("n = (n or 0) + 1 return 'two' .. n")
    assert uncached(lua, "out(require 'm')") == [["two1"]]
    assert lua.eval("out(package.loaded.m, n)") == ["nil", "nil"]


def test_the_phases_of_a_request_share_their_state(lua: Lua) -> None:
    lua.file("m.lua", COUNT + "return {}")
    id = lua.request(code_cache=False)
    lua.begin("require('m').x = 5 y = 6", id=id, phase=Phase.ACCESS)
    lua.begin("out(require('m').x, y, package.loaded.count)", id=id)
    lua.run_sync("out(require('m').x, y, package.loaded.count)", Phase.LOG, id=id)
    assert lua.take() == [["5", "6", "1"]] * 2


def test_a_location_with_the_cache_after_one_without(lua: Lua) -> None:
    id = lua.request(code_cache=False)
    lua.begin("x = 1", id=id)
    lua.rt.vm.export("enter")(id, lua.location(code_cache=True))
    lua.begin("out(x)", id=id)
    id = lua.request()
    lua.begin("x = 1", id=id)
    lua.rt.vm.export("enter")(id, lua.location(code_cache=False))
    lua.begin("out(x)", id=id)
    assert lua.take() == [["1"], ["nil"]]


def test_globals_are_fresh(lua: Lua) -> None:
    code = "_G.foo = (_G.foo or 0) + 1 out(foo, getfenv(1) == _G, _G._G == _G, package.loaded._G == _G)"
    for _ in range(2):
        assert uncached(lua, code) == [["1", "true", "true", "true"]]
    assert lua.eval("out(foo)") == ["nil"]


def test_init_runs_again(lua: Lua) -> None:
    lua.file("conf.lua", "return { n = 0 }")
    lua.init(
        """
        conf = require "conf"
        conf.n = conf.n + 1
        started = ngx.get_phase()
        chunk_global = nil
        loadstring("chunk_global = 'set'")()
        test = setfenv(function() return tostring(table) end, setmetatable({}, {
            __index = function(self, key) return rawget(self, key) or _G[key] end
        }))
        """
    )
    code = "conf.n = conf.n + 1 out(conf.n, started, chunk_global, test() == tostring(table), ngx.get_phase())"
    for _ in range(2):
        assert uncached(lua, code) == [["2", "init", "set", "true", "content"]]
    assert lua.eval("conf.n = conf.n + 1 out(conf.n)") == ["2"]
    assert lua.eval("conf.n = conf.n + 1 out(conf.n)") == ["3"]


def test_init_that_fails_in_a_request(lua: Lua) -> None:
    lua.file("once.lua", "")
    lua.init("require 'once'")
    (lua.path / "once.lua").unlink()
    outcome, message, missing = lua.begin("out(1)", code_cache=False)
    assert outcome == Outcome.LOAD_FAILED
    assert message.startswith(
        b"failed to initialize Lua VM: init_by_lua error: init_by_lua(nginx.conf:1):1: module"
    )
    assert missing is False
    ok, err = lua.rt.run_sync(
        lua.request(code_cache=False), lua.rt.handler(lua.handler("")), 1, None
    )
    assert ok is False
    assert err.startswith(b"failed to initialize")
    assert lua.take() == []


def test_files_are_read_again(lua: Lua) -> None:
    path = lua.file("h.lua", "require('trio_lua.rt').out(1)")
    handler = LuaCode(
        "content_by_lua_file", Source("c", 1), str(path), path=Template(str(path), (str(path),))
    )
    lua.begin(handler, path=str(path), code_cache=False)
    path.write_text("require('trio_lua.rt').out(2)")
    lua.begin(handler, path=str(path), code_cache=False)
    assert lua.take() == [["1"], ["2"]]


def test_module_without_the_cache(lua: Lua) -> None:
    lua.file(
        "old/style.lua",
        """
        module(..., package.seeall)
        string = require "string"
        coroutine = require "coroutine"
        package = require "package"
        function hi() return from_init .. _NAME end
        """,
    )
    lua.file("clash.lua", "module('table.concat')")
    lua.init("from_init = 'i:'")
    assert uncached(
        lua,
        """
        local m = require "old.style"
        out(m.hi(), old.style == m, m._M == m, m._PACKAGE, m.package == package, m.string == string,
            m.coroutine == coroutine)
        """,
    ) == [["i:old.style", "true", "true", "old.", "true", "true", "true"]]
    ((ok, err),) = uncached(lua, "out(pcall(require, 'clash'))")
    assert ok == "false"
    assert err.endswith("clash.lua:1: name conflict for module 'table.concat'")
    assert lua.eval("out(old)") == ["nil"]


def test_standard_tables_are_not_changed_for_others(lua: Lua) -> None:
    uncached(
        lua,
        """
        os.getenv = nil
        table.extra = 1
        ngx.mine = 1
        package.loaders[2] = nil
        package.path = "/elsewhere"
        package.preload.x = 1
        """,
    )
    look = "out(os.getenv ~= nil, table.extra, ngx.mine, #package.loaders, package.path, package.preload.x)"
    expected = ["true", "nil", "nil", "4", f"{lua.path}/?.lua", "nil"]
    assert lua.eval(look) == expected
    assert uncached(lua, look) == [expected]


def test_ngx_works_in_a_copy(lua: Lua) -> None:
    assert uncached(
        lua,
        """
        ngx.ctx.x = 1
        ngx.status = 201
        ngx.header["X-A"] = "b"
        out(ngx.ctx.x, ngx.status, ngx.header.x_a, ngx.get_phase(), require "ngx" == ngx, ngx.escape_uri(" "))
        """,
    ) == [["1", "201", "b", "content", "true", "%20"]]


def test_c_types_are_declared_once(lua: Lua) -> None:
    path = lua.file(
        "types.lua",
        """
        local ffi = require "ffi"
        ffi.cdef[[ struct trio_lua_test_point { int x, y; }; int trio_lua_test_function(void *p); ]]
        local point = ffi.metatype("struct trio_lua_test_point", { __index = { sum = function(p) return p.x + p.y end } })
        return point(2, 3):sum()
        """,
    )
    for _ in range(2):
        assert uncached(lua, "out(require 'types')") == [["5"]]
    # a location with the cache comes later
    assert lua.eval("out(require 'types')") == ["5"]
    assert lua.eval("package.loaded.types = nil out(require 'types')") == ["5"]
    path.write_text("require('ffi').cdef[[ struct trio_lua_test_point { int z; }; ]]")
    ((ok, err),) = uncached(lua, "out(pcall(require, 'types'))")
    assert ok == "false"
    assert "attempt to redefine" in err


def test_c_types_of_a_state_with_the_cache(lua: Lua) -> None:
    lua.file(
        "types.lua",
        """
        local ffi = require "ffi"
        ffi.cdef[[ struct trio_lua_test_pair { int x, y; }; ]]
        ffi.metatype("struct trio_lua_test_pair", { __index = { n = 2 } })
        return ffi.new("struct trio_lua_test_pair").n
        """,
    )
    lua.init("types = require 'types'")
    assert uncached(lua, "out(types)") == [["2"]]


def test_errors_of_declarations(lua: Lua) -> None:
    ((ok, err),) = uncached(lua, "out(pcall(require('ffi').cdef, 'nonsense here'))")
    assert ok == "false"
    assert "nonsense" in err
    ((ok, err),) = uncached(lua, "out(pcall(require('ffi').metatype, 'int', {}))")
    assert (ok, "bad argument" in err) == ("false", True)


def test_shared_globals_without_the_cache(make_lua: MakeLua) -> None:
    lua = make_lua(lua_shared_globals=True)
    lua.init("early = 1")
    lua.rt.vm.export("share_globals")()
    for _ in range(2):
        assert uncached(lua, "foo = (foo or 0) + 1 out(foo, early)") == [["1", "1"]]
    assert [line.startswith(b"[lua] _G write guard:12: ") for _, line in lua.log.lines] == [
        True
    ] * 2


async def test_suspended_requests_without_the_cache(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    lua.file("m.lua", "ngx.sleep(1) return {}")
    async with trio.open_nursery() as nursery:
        for name in "ab":
            code = f"require('m').x = '{name}' ngx.sleep(1) out('{name}', require('m').x)"
            nursery.start_soon(lambda code=code: lua.run(code, code_cache=False))
    assert sorted(lua.take()) == [["a", "a"], ["b", "b"]]
