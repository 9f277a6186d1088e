"""Coroutines, handlers and their globals, as Lua code sees them."""

from __future__ import annotations

from collections.abc import Callable
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


# ------------------------------------------------------------------------------- nested coroutines


@pytest.mark.parametrize(
    ("recursion", "message"),
    [
        ("select(2, coroutine.resume(coroutine.create(f)))", "C stack overflow"),
        ("coroutine.wrap(f)()", f"{CHUNK}:3: C stack overflow"),
    ],
)
def test_coroutines_that_resume_each_other_without_end(
    lua: Lua, recursion: str, message: str
) -> None:
    """They would use up the C stack, which ends the process; and the next handler starts anew."""
    code = f"""
        local n = 0
        local function f() n = n + 1 local a = {recursion} return a end
        local co = coroutine.create(f)
        local _, last = coroutine.resume(co)
        out(n, last)
        """
    for _ in range(3):
        assert lua.begin(code) == Outcome.DONE
        assert lua.take() == [["5000", message]]


def test_values_in_and_out(lua: Lua) -> None:
    assert (
        lua.begin(
            """
        local co = coroutine.create(function(a, b)
            out("in", a, b)
            local r = coroutine.yield(2 * a)
            out("in", r)
            local s, t = coroutine.yield(a + b, a - b)
            out("in", s, t)
            return b, "end"
        end)
        out(coroutine.resume(co, 1, 10))
        out(coroutine.resume(co, "r"))
        out(coroutine.resume(co, "x", "y"))
        out(coroutine.resume(co, "x", "y"))
        """
        )
        == Outcome.DONE
    )
    assert lua.take() == [
        ["in", "1", "10"],
        ["true", "2"],
        ["in", "r"],
        ["true", "11", "-9"],
        ["in", "x", "y"],
        ["true", "10", "end"],
        ["false", "cannot resume dead coroutine"],
    ]


async def test_numbers_of_values_are_kept(lua: Lua, autojump_clock: trio.testing.MockClock) -> None:
    await lua.run(
        """
        local n = function(...) return select("#", ...) end
        local co = coroutine.create(function()
            out(n(coroutine.yield()), n(coroutine.yield(nil)), n(coroutine.yield(nil, nil)), n(ngx.sleep(1)))
        end)
        local counts = {}
        for i = 0, 3 do
            counts[#counts + 1] = n(coroutine.resume(co, unpack({}, 1, i)))
        end
        out(unpack(counts))
        local f = coroutine.wrap(function() coroutine.yield() coroutine.yield(nil) return nil, nil end)
        out(n(f()), n(f()), n(f()))
        """
    )
    assert lua.take() == [["1", "2", "3", "0"], ["1", "2", "3", "1"], ["0", "1", "2"]]


async def test_suspending_below_other_coroutines_is_invisible_to_them(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    await lua.run(
        """
        local resume, create, yield = coroutine.resume, coroutine.create, coroutine.yield
        local inner = create(function()
            ngx.sleep(1)
            yield("inner")
            ngx.sleep(1)
            return "inner ends"
        end)
        local outer = create(function()
            ngx.sleep(1)
            out(resume(inner))
            yield("outer")
            out(resume(inner))
            ngx.sleep(1)
            return "outer ends"
        end)
        out(resume(outer))
        out(resume(outer))
        """
    )
    assert lua.take() == [
        ["true", "inner"],
        ["true", "outer"],
        ["true", "inner ends"],
        ["true", "outer ends"],
    ]
    assert trio.current_time() == 4


async def test_suspending_across_pcall_metamethods_and_iterators(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    await lua.run(
        """
        local sleepy = setmetatable({}, {
            __index = function(_, k) ngx.sleep(1) return k end,
            __call = function(_, x) ngx.sleep(1) return x end,
            __concat = function() ngx.sleep(1) return "concat" end,
            __eq = function() ngx.sleep(1) return true end,
        })
        local function each()
            ngx.sleep(1)
            return nil
        end
        for _ in each do end
        out(pcall(function(x) ngx.sleep(1) return x end, 1))
        out(xpcall(function() ngx.sleep(1) error("e", 0) end, function(e) return e .. "!" end))
        out(sleepy.key, sleepy(2), sleepy .. "x", sleepy == setmetatable({}, getmetatable(sleepy)))
        out(pcall(error, { 1 }) == false)
        """
    )
    assert lua.take() == [["true", "1"], ["false", "e!"], ["key", "2", "concat", "true"], ["true"]]
    assert trio.current_time() == 7


async def test_c_functions_cannot_be_suspended(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    await lua.run('out(pcall(string.gsub, "a", "a", function() ngx.sleep(1) end))')
    ((ok, err),) = lua.take()
    assert ok == "false"
    assert err.endswith("attempt to yield across C-call boundary")
    await lua.run('xpcall(error, function() ngx.sleep(1) end) out("on")')
    assert lua.take() == [["on"]]


def test_statuses(lua: Lua) -> None:
    assert (
        lua.begin(
            """
        local status = coroutine.status
        local entry = coroutine.running()
        local co
        co = coroutine.create(function()
            out(status(co), status(entry), coroutine.running() == co)
            out(coroutine.resume(co))
            out(coroutine.resume(entry))
            coroutine.yield()
            error("bad")
        end)
        out(status(co), status(entry), type(entry))
        coroutine.resume(co)
        out(status(co))
        coroutine.resume(co)
        out(status(co))
        out(coroutine.resume(entry))
        out(coroutine.running())
        out(coroutine.isyieldable)
        """
        )
        == Outcome.DONE
    )
    *lines, running, isyieldable = lua.take()
    assert lines == [
        ["suspended", "running", "thread"],
        ["running", "normal", "true"],
        ["false", "cannot resume running coroutine"],
        ["false", "cannot resume normal coroutine"],
        ["suspended"],
        ["dead"],
        ["false", "cannot resume running coroutine"],
    ]
    assert running[0].startswith("thread: ")
    assert len(running) == 1
    assert isyieldable == ["nil"]


def test_statuses_while_an_operation_runs(lua: Lua) -> None:
    """Another request looks at coroutines in whose depth something waits."""
    _, thread, *_ = lua.begin(
        """
        local outer, inner
        inner = coroutine.create(function() pause() coroutine.yield() end)
        outer = coroutine.create(function() coroutine.resume(inner) coroutine.yield() end)
        package.loaded.cos = { coroutine.running(), outer, inner }
        coroutine.resume(outer)
        """
    )
    look = """
        for i, co in ipairs(package.loaded.cos) do
            local ok, err = coroutine.resume(co)
            out(coroutine.status(co), ok, err)
        end
        """
    assert lua.begin(look) == Outcome.DONE
    assert lua.take() == [
        ["normal", "false", "cannot resume normal coroutine"],
        ["normal", "false", "cannot resume normal coroutine"],
        ["running", "false", "cannot resume running coroutine"],
    ]
    assert lua.rt.driver._resume(thread) == Outcome.DONE
    assert lua.begin(look.replace("local ok, err = coroutine.resume(co)", "local ok, err")) == 0
    # the first is free again, and it is the one that looks
    assert [status for status, *_ in lua.take()] == ["running", "suspended", "suspended"]


async def test_yield_in_the_handler_itself_lets_others_run(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(
                lua.run, f'for i = 1, 2 do out("{name}", i, select("#", coroutine.yield(1, 2))) end'
            )
    assert sorted(lua.take()) == [
        ["a", "1", "0"],
        ["a", "2", "0"],
        ["b", "1", "0"],
        ["b", "2", "0"],
    ]


def test_bad_arguments(lua: Lua) -> None:
    assert lua.eval(
        """
        local t = {}
        for _, name in ipairs { "create", "wrap", "resume", "status" } do
            t[#t + 1] = select(2, pcall(function() local x = coroutine[name](1) end))
        end
        out(unpack(t))
        """
    ) == [
        f"{CHUNK}:4: bad argument #1 to '{name}' ({what} expected)"
        for name, what in [
            ("create", "Lua function"),
            ("wrap", "Lua function"),
            ("resume", "coroutine"),
            ("status", "coroutine"),
        ]
    ]


def test_raw_functions_are_kept(lua: Lua) -> None:
    assert lua.eval(
        """
        local co = coroutine._create(function() coroutine._yield(1) end)
        local ok, value = coroutine._resume(co)
        out(ok, value, coroutine._status(co), coroutine._wrap(function() return 2 end)(),
            require("coroutine") == coroutine)
        """
    ) == ["true", "1", "suspended", "2", "true"]


def test_own_versions_have_a_second_name(lua: Lua) -> None:
    result = lua.eval(
        """
        local same = {}
        for i, name in ipairs { "create", "resume", "yield", "wrap", "status" } do
            same[i] = coroutine["__" .. name] == coroutine[name]
        end
        out(unpack(same))
        """
    )
    assert result == ["true"] * 5


# ------------------------------------------------------------------------------------------- wrap


def test_wrap_as_an_iterator(lua: Lua) -> None:
    assert lua.eval(
        """
        local t = {}
        for a, b in coroutine.wrap(function(n)
            for i = 1, 3 do coroutine.yield(i, i * i) end
        end) do t[#t + 1] = a .. ":" .. b end
        out(unpack(t))
        """
    ) == ["1:1", "2:4", "3:9"]


async def test_wrap_with_operations_inside(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    await lua.run(
        """
        local f = coroutine.wrap(function(step)
            while true do
                ngx.sleep(1)
                step = step + coroutine.yield(step)
            end
        end)
        local g = coroutine.wrap(function() out(f(1), f(2), f(3)) end)
        g()
        out(g())
        """
    )
    assert lua.take() == [["1", "3", "6"], ["false", "cannot resume dead coroutine"]]
    assert trio.current_time() == 3


def test_wrap_errors_pass_every_pcall(lua: Lua) -> None:
    result = lua.begin(
        """
        local co1 = coroutine.wrap(function()
            error("wrong in co1")
        end)
        local co2 = coroutine.wrap(function()
            pcall(co1)
        end)
        pcall(co2)
        out("not reached")
        """
    )
    outcome, message, trace = result
    assert outcome == Outcome.FAILED
    assert message.decode() == f"{CHUNK}:3: wrong in co1"
    assert trace.decode() == (
        "coroutine 0:"
        "\n\t[C]: in function 'error'"
        f"\n\t{CHUNK}:3: in function <{CHUNK}:2>"
        "\ncoroutine 1:"
        "\n\t[C]: ?"
        "\n\t[C]: in function 'pcall'"
        f"\n\t{CHUNK}:6: in function <{CHUNK}:5>"
        "\ncoroutine 2:"
        "\n\t[C]: ?"
        "\n\t[C]: in function 'pcall'"
        f"\n\t{CHUNK}:8: in main chunk"
    )
    assert lua.take() == []


def test_wrap_errors_stop_at_resume(lua: Lua) -> None:
    assert lua.eval(
        """
        local value = {}
        local co = coroutine.create(function()
            pcall(coroutine.wrap(function() error(value) end))
        end)
        local ok, err = coroutine.resume(co)
        out(ok, err == value, coroutine.status(co), coroutine.resume(co))
        """
    ) == ["false", "true", "dead", "false", "cannot resume dead coroutine"]


def test_wrap_errors_that_are_no_strings(lua: Lua) -> None:
    assert lua.begin("coroutine.wrap(function() error({}) end)()")[:2] == (2, b"unknown reason")
    assert lua.begin("coroutine.wrap(function() error(5, 0) end)()")[:2] == (2, b"5")


def test_wrap_error_with_a_level_above_its_coroutine(lua: Lua) -> None:
    assert lua.begin("coroutine.wrap(function() error('bare', 2) end)()")[:2] == (2, b"bare")


def test_leaving_from_inside_coroutines(lua: Lua) -> None:
    result = lua.begin(
        """
        local co = coroutine.create(function()
            pcall(coroutine.wrap(function() pcall(ngx.exit, 403) end))
            out("not reached")
        end)
        coroutine.resume(co)
        out("not reached")
        """
    )
    assert result[:2] == (Outcome.EXIT, 403)
    assert lua.take() == []


# ----------------------------------------------------------------------------- phases without yields


@pytest.mark.parametrize("phase", [Phase.SET, Phase.LOG])
def test_coroutines_are_refused(lua: Lua, phase: Phase) -> None:
    for call in ("create(print)", "wrap(print)", "yield()", "status(coroutine.create(print))"):
        ok, err = lua.run_sync(f"coroutine.{call}", phase)
        assert ok is False
        name = phase.name.lower()  # type: ignore[union-attr]
        assert err.startswith(
            f"{name}_by_lua(nginx.conf:1):1: API disabled in the context of {name}_by_lua*\nstack"
        )


@pytest.mark.parametrize("phase", [Phase.HEADER_FILTER, Phase.BODY_FILTER])
def test_plain_coroutines_in_filters(lua: Lua, phase: Phase) -> None:
    assert lua.run_sync(
        """
        local co = coroutine.create(function(x) coroutine.yield(x) return 2 end)
        local _, a = coroutine.resume(co, 1)
        local _, b = coroutine.resume(co)
        local f = coroutine.wrap(function() coroutine.yield(3) end)
        out(a, b, f(), coroutine.status(co))
        """,
        phase,
    )
    assert lua.take() == [["1", "2", "3", "dead"]]


def test_plain_wrap_errors_can_be_caught(lua: Lua) -> None:
    lua.run_sync(
        """
        local co = coroutine.wrap(function() error("wrong") end)
        out(pcall(function() local x = co() end))
        local x = co()
        """,
        Phase.HEADER_FILTER,
    )
    where = "header_filter_by_lua(nginx.conf:1)"
    assert lua.take() == [["false", f"{where}:3: {where}:2: wrong"]]


def test_an_error_in_a_filter_names_its_place(lua: Lua) -> None:
    ok, err = lua.run_sync(
        """
        local function deep() error("wrong") end
        deep()
        """,
        Phase.HEADER_FILTER,
    )
    where = "header_filter_by_lua(nginx.conf:1)"
    assert ok is False
    assert err == (
        f"{where}:2: wrong\nstack traceback:\n\t[C]: in function 'error'"
        f"\n\t{where}:2: in function 'deep'\n\t{where}:3: in main chunk"
    )
    assert lua.run_sync("error({})", Phase.HEADER_FILTER) == (False, "unknown reason")
    assert lua.run_sync("error(5, 0)", Phase.HEADER_FILTER)[1].startswith("5\nstack traceback:\n")


def test_a_wrap_function_of_another_phase(lua: Lua) -> None:
    id = lua.request()
    lua.begin("package.loaded.f = coroutine.wrap(function() end)", id=id)
    ok, err = lua.run_sync("package.loaded.f()", Phase.BODY_FILTER, id=id)
    assert ok is False
    assert err.startswith(
        "body_filter_by_lua(nginx.conf:1):1: API disabled in the context of body_filter_by_lua*\n"
    )


def test_a_filter_on_the_handlers_stack_cannot_yield_it(lua: Lua) -> None:
    id = lua.request()
    filter = lua.handler("out(pcall(coroutine.yield, 1))", "header_filter_by_lua")
    lua.rt.vm.run(
        b"""
        local rt = ...
        function rt.nest(f) return rt.run_sync(rt.S.r, 0x20, f) end
        """,
        "=ngx/nest",
    )
    assert lua.rt.handler(filter)
    assert (
        lua.begin(
            """
        local rt = require "trio_lua.rt"
        rt.nest(function() out(pcall(coroutine.yield, 1)) end)
        local f = coroutine.wrap(function()
            rt.nest(function() out(pcall(coroutine.yield, 1)) end)
        end)
        f()
        out(ngx.get_phase(), coroutine.status(coroutine.running()))
        """,
            id=id,
        )
        == Outcome.DONE
    )
    refused = ["false", "attempt to yield across C-call boundary"]
    assert lua.take() == [refused, refused, ["content", "running"]]


def test_coroutines_in_init(lua: Lua) -> None:
    lua.init(
        """
        local co = coroutine.create(function() coroutine.yield(1) end)
        local _, value = coroutine.resume(co)
        wrap = coroutine.wrap
        out(value, coroutine.status(co), coroutine.wrap(function() return 2 end)())
        """
    )
    assert lua.take() == [["1", "suspended", "2"]]
    with pytest.raises(LuaError, match=r"API disabled in the context of init_worker_by_lua\*"):
        lua.init("coroutine.create(print)", Phase.INIT_WORKER)
    assert lua.eval("out(wrap(function() coroutine.yield('data') end)())") == ["data"]


def test_an_error_in_init_names_its_place(lua: Lua) -> None:
    where = r"init_by_lua\(nginx\.conf:1\)"
    with pytest.raises(
        LuaError, match=rf"^{where}:1: no\nstack traceback:\n(.*\n)*\t{where}:1: in main chunk$"
    ):
        lua.init("error('no')")


def test_broken_code_in_init(lua: Lua) -> None:
    with pytest.raises(LuaError, match=r"^init_by_lua\(nginx\.conf:1\):2: '=' expected near 'x'$"):
        lua.init("\nx x")
    path = lua.path / "init.lua"
    handler = LuaCode(
        "init_by_lua_file", Source("c", 1), "init.lua", path=Template("init.lua", ("init.lua",))
    )
    with pytest.raises(LuaError, match=rf"^cannot open {path}: No such file or directory$"):
        lua.rt.run_init(handler, Phase.INIT)
    path.write_text("\n\ny y")
    with pytest.raises(LuaError, match=r"^[^:]*/init\.lua:3: '=' expected near 'y'$"):
        lua.rt.run_init(handler, Phase.INIT)


# -------------------------------------------------------------------------------- errors and tracebacks


def test_traceback_of_a_handler(lua: Lua) -> None:
    outcome, message, trace = lua.begin(
        """
        local function bar() error("blah") end
        local function foo() bar() end
        foo()
        """
    )
    assert (outcome, message.decode()) == (Outcome.FAILED, f"{CHUNK}:2: blah")
    assert trace.decode() == (
        "coroutine 0:\n\t[C]: in function 'error'"
        f"\n\t{CHUNK}:2: in function 'bar'"
        f"\n\t{CHUNK}:3: in function 'foo'"
        f"\n\t{CHUNK}:4: in main chunk"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nil", b"unknown reason"),
        ("{}", b"unknown reason"),
        ("7, 0", b"7"),
        ("true", b"unknown reason"),
    ],
)
def test_error_values(lua: Lua, value: str, message: bytes) -> None:
    assert lua.begin(f"error({value})")[:2] == (Outcome.FAILED, message)


def test_functions_of_this_package_look_like_c_in_tracebacks(lua: Lua) -> None:
    trace = lua.begin("\nlocal ok = ngx.redirect('/', 1)")[2].decode()
    assert trace == f"coroutine 0:\n\t[C]: in function 'redirect'\n\t{CHUNK}:2: in main chunk"


def test_deep_tracebacks_are_cut(lua: Lua) -> None:
    trace = lua.begin(
        """
        local function deep(n)
            if n == 0 then error("deep") end
            local x = deep(n - 1)
            return x
        end
        deep(100)
        """
    )[2].decode()
    lines = trace.split("\n")
    assert len(lines) == 24
    assert lines[-1] == "\t..."


def test_stack_overflow_is_an_error(lua: Lua) -> None:
    outcome, message, _trace = lua.begin("local function f() local x = f() return x end f()")
    assert outcome == Outcome.FAILED
    assert b"stack overflow" in message
    assert lua.eval("out(1)") == ["1"]


async def test_an_error_after_a_suspension(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    outcome, message, trace = await lua.run("ngx.sleep(1)\nlocal x = nil + 1")
    assert outcome == Outcome.FAILED
    assert message == f"{CHUNK}:2: attempt to perform arithmetic on a nil value"
    # LuaJIT has lost the line of the innermost function, which the message names
    assert trace == f"coroutine 0:\n\t{CHUNK}: in main chunk"


# --------------------------------------------------------------------------------- recycled coroutines


def test_coroutines_are_used_again(lua: Lua) -> None:
    code = "out(coroutine.running())"
    assert lua.eval(code) == lua.eval(code)


def test_a_kept_coroutine_of_a_finished_request_is_dead(lua: Lua) -> None:
    lua.begin("package.loaded.kept = coroutine.running()")
    look = "local co = package.loaded.kept out(coroutine.status(co), coroutine.resume(co))"
    # it is the one that this handler runs in, and then the one of a request that waits
    assert lua.eval(look) == ["running", "false", "cannot resume running coroutine"]
    _, first, *_ = lua.begin("pause()")
    assert lua.eval(look) == ["running", "false", "cannot resume running coroutine"]
    assert lua.rt.driver._resume(first) == Outcome.DONE
    # the next handler would run in it, so look from one that is suspended already
    _, second, *_ = lua.begin(f"pause() {look}")
    lua.begin("package.loaded.kept = coroutine.running()")
    assert lua.rt.driver._resume(second) == Outcome.DONE
    assert lua.take() == [["dead", "false", "cannot resume dead coroutine"]]


def test_a_failed_coroutine_is_not_used_again(lua: Lua) -> None:
    lua.begin("package.loaded.kept = coroutine.running() error('x')")
    assert lua.eval(
        "local co = package.loaded.kept out(coroutine.status(co), co == coroutine.running())"
    ) == ["dead", "false"]


def test_a_coroutine_left_by_exit_is_dead(lua: Lua) -> None:
    lua.begin("package.loaded.kept = coroutine.running() ngx.exit(200)")
    assert lua.eval(
        "local co = package.loaded.kept out(coroutine.status(co), coroutine.resume(co))"
    ) == ["dead", "false", "cannot resume dead coroutine"]


async def test_a_dropped_thread_never_runs_on(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(1):
        await lua.run("package.loaded.kept = coroutine.running() ngx.sleep(5) out('ran')")
    assert lua.eval(
        "local co = package.loaded.kept out(coroutine.status(co), coroutine.resume(co))"
    ) == ["dead", "false", "cannot resume dead coroutine"]
    await trio.sleep(10)
    assert lua.take() == []


def test_resuming_an_unknown_thread_does_nothing(lua: Lua) -> None:
    assert lua.rt.driver._resume(12345) == (Outcome.SUSPENDED, 12345, False)
    lua.rt.driver._drop(12345)


# --------------------------------------------------------------------------------------------- globals


async def test_globals_belong_to_the_request(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    id = lua.request()
    assert lua.begin("x = 1 out(x, _G.x, getfenv(1) == _G, rawget(_G, 'x'))", id=id) == 0
    assert lua.begin("out(x) _G.y = 2 out(y)", id=id, phase=Phase.ACCESS) == Outcome.DONE
    assert lua.take() == [["1", "1", "true", "1"], ["1"], ["2"]]
    assert lua.eval("out(x, y, string.len('abc'))") == ["nil", "nil", "3"]


async def test_suspended_requests_do_not_see_each_others_globals(
    lua: Lua, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(lua.run, f"x = '{name}' ngx.sleep(1) out('{name}', x)")
    assert sorted(lua.take()) == [[name, name] for name in "abc"]


def test_globals_of_init_are_everybodys(lua: Lua) -> None:
    lua.init("shared = { n = 0 }")
    lua.init("worker_wide = 5", Phase.INIT_WORKER)
    code = "shared.n = shared.n + 1 out(shared.n, worker_wide)"
    assert lua.eval(code) == ["1", "5"]
    assert lua.eval(code) == ["2", "5"]


@pytest.mark.parametrize(
    "compile",
    [
        'loadstring("y = x return x")',
        "load(function() local s = text text = nil return s end)",
        'load("y = x return x", "=chunk", "t")',
        "loadfile(path)",
        "function() return dofile(path) end",
    ],
)
def test_code_compiled_by_a_handler_shares_its_globals(lua: Lua, compile: str) -> None:
    path = lua.file("code.lua", "y = x return x")
    assert lua.eval(
        f'x = 5 path = "{path}" text = "y = x return x" local f = {compile} out(f(), y)'
    ) == ["5", "5"]
    assert lua.eval("out(x, y)") == ["nil", "nil"]


def test_code_compiled_with_globals_of_its_own(lua: Lua) -> None:
    assert lua.eval('x = 5 out(load("return x", "=c", "t", { x = 6 })())') == ["6"]


def test_errors_of_compiling_at_run_time(lua: Lua) -> None:
    assert lua.eval('out(loadstring("x x", "=c"))') == ["nil", "c:1: '=' expected near 'x'"]
    assert lua.eval('out(load("return 1", "=c", "b"))') == [
        "nil",
        "attempt to load chunk with wrong mode",
    ]
    (ok, err) = lua.eval('out(pcall(dofile, "/nowhere.lua"))')
    assert (ok, err) == ("false", "cannot open /nowhere.lua: No such file or directory")


# -------------------------------------------------------------------------------------- shared globals


def test_shared_globals_and_their_guard(make_lua: MakeLua) -> None:
    lua = make_lua(lua_shared_globals=True)
    lua.init("early = 1")
    lua.rt.vm.export("share_globals")()
    lua.init("later = 2", Phase.INIT_WORKER)
    assert lua.log.lines == []
    code = "\nfoo = (foo or 0) + 1 out(foo, early, later, getfenv(1) == _G)"
    assert lua.eval(code) == ["1", "1", "2", "true"]
    ((level, line),) = lua.log.lines
    assert level == 5
    assert line.decode().startswith(
        "[lua] _G write guard:12: __newindex(): writing a global Lua variable ('foo') which may lead to race "
        "conditions between concurrent requests, so prefer the use of 'local' variables\n"
        f"stack traceback:\n\t{CHUNK}:2: in main chunk, client: 127.0.0.1"
    )
    assert lua.eval(code) == ["2", "1", "2", "true"]
    assert len(lua.log.lines) == 1


def test_the_guard_in_a_filter(make_lua: MakeLua) -> None:
    lua = make_lua(lua_shared_globals=True)
    lua.rt.vm.export("share_globals")()
    assert lua.run_sync("\nfoo = 1", Phase.HEADER_FILTER) is True
    ((_, line),) = lua.log.lines
    assert b"\n\theader_filter_by_lua(nginx.conf:1):2: in main chunk, client" in line


# ------------------------------------------------------------------------------------------ chunks


def file_handler(path: str) -> LuaCode:
    return LuaCode(
        "content_by_lua_file", Source("nginx.conf", 1), path, path=Template(path, (path,))
    )


def test_a_file(lua: Lua) -> None:
    path = lua.file("h.lua", "#!/usr/bin/lua\nrequire('trio_lua.rt').out(1)\nerror('x')")
    outcome, message, trace = lua.begin(file_handler(str(path)), path=str(path))
    assert lua.take() == [["1"]]
    # Lua keeps the end of a long path
    assert outcome == Outcome.FAILED
    assert message.decode().endswith("/h.lua:3: x")
    assert trace.decode().endswith("/h.lua:3: in main chunk")
    path.write_text("error('not read again')")
    lua.begin(file_handler(str(path)), path=str(path))
    assert lua.take() == [["1"]]


def test_bytecode(lua: Lua) -> None:
    (text,) = lua.eval(
        """
        local f = loadstring("x = (x or 0) + 1 require('trio_lua.rt').out(x, ...)", "@b.lua")
        local hex = string.dump(f):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
        out(hex)
        """
    )
    path = lua.file("b.luac", bytes.fromhex(text))
    for _ in range(2):
        assert lua.begin(file_handler(str(path)), path=str(path)) == Outcome.DONE
    assert lua.take() == [["1"], ["1"]]


def test_broken_bytecode_and_text(lua: Lua) -> None:
    path = lua.file("b.luac", b"\x1bLJgarbage")
    outcome, message, missing = lua.begin(file_handler(str(path)), path=str(path))
    assert outcome == Outcome.LOAD_FAILED
    assert message.decode().startswith(f'failed to load external Lua file "{path}": ')
    assert not missing
    path = lua.file("t.lua", "if true then")
    outcome, message, missing = lua.begin(file_handler(str(path)), path=str(path))
    text = message.decode()
    assert text.startswith(f'failed to load external Lua file "{path}": ')
    assert text.endswith("/t.lua:1: 'end' expected near '<eof>'")
    assert not missing


def test_a_missing_file(lua: Lua) -> None:
    path = str(lua.path / "none.lua")
    assert lua.begin(file_handler(path), path=path) == (
        Outcome.LOAD_FAILED,
        f'failed to load external Lua file "{path}": cannot open {path}: No such file or directory'.encode(),
        True,
    )


def test_broken_inline_code(lua: Lua) -> None:
    outcome, message, missing = lua.begin("\nx x")
    assert outcome == Outcome.LOAD_FAILED
    assert message.decode() == f"failed to load inlined Lua code: {CHUNK}:2: '=' expected near 'x'"
    assert not missing
