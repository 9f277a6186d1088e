"""ngx.thread and ngx.semaphore: who runs when, and who may do what, as Lua code sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_lua.lua.driver import Outcome
from trio_lua.request.phase import Phase

if TYPE_CHECKING:
    from conftest import Lua

Clock = trio.testing.MockClock
CHUNK = "content_by_lua(nginx.conf:1)"


async def lines(lua: Lua, code: str, result: Any = None) -> list[str]:
    """What a handler passes to ``out``, joined; nothing may be left of it."""
    assert await lua.run(code) == result
    assert lua.rt.vm.export("live")()[1] == 0
    return [" ".join(texts) for texts in lua.take()]


# ------------------------------------------------------------------------------------------- order


async def test_a_child_runs_at_once_up_to_its_first_suspension(
    lua: Lua, autojump_clock: Clock
) -> None:
    assert await lines(
        lua,
        """
        local function f(a, b) out("f", a, b) ngx.sleep(1) out("f again") end
        local co = ngx.thread.spawn(f, 1, nil)
        out("entry", coroutine.status(co), type(co))
        """,
    ) == ["f 1 nil", "entry running thread", "f again"]
    assert trio.current_time() == 1


async def test_yielding_threads_take_turns(lua: Lua) -> None:
    assert await lines(
        lua,
        """
        local function f(name)
            for i = 1, 3 do out(name .. i) coroutine.yield() end
        end
        ngx.thread.spawn(f, "A")
        out("main")
        ngx.thread.spawn(f, "B")
        out("end")
        """,
    ) == ["A1", "main", "B1", "A2", "end", "B2", "A3", "B3"]


async def test_a_run_without_waiting_needs_no_task(lua: Lua) -> None:
    result = lua.begin(
        """
        local t = ngx.thread.spawn(function() coroutine.yield() return "x" end)
        out(ngx.thread.wait(t))
        """
    )
    assert result == Outcome.DONE
    assert lua.take() == [["true", "x"]]


async def test_sleepers_wake_in_the_order_of_their_times(lua: Lua, autojump_clock: Clock) -> None:
    code = """
        local function f(name, ...)
            for _, seconds in ipairs { ... } do ngx.sleep(seconds) out(name, ngx.thread and seconds) end
        end
        ngx.thread.spawn(f, "a", 0.2, 0.1)
        ngx.thread.spawn(f, "b", 0.1, 0.1, 0.1)
        ngx.thread.spawn(f, "c", 0.3)
        """
    expected = ["b 0.1", "a 0.2", "b 0.1", "c 0.3", "a 0.1", "b 0.1"]
    for _ in range(5):
        assert await lines(lua, code) == expected


async def test_requests_wake_in_the_order_of_their_times(lua: Lua, autojump_clock: Clock) -> None:
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            for i in range(6):
                result = lua.begin(f"ngx.sleep(1) out({i})")
                lua.start_clock()
                nursery.start_soon(lua.finish, result)
        assert [text for (text,) in lua.take()] == [str(i) for i in range(6)]


async def test_a_thread_that_spins_lets_others_run(lua: Lua) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lua.run, "while not package.loaded.stop do coroutine.yield() end out('stopped')"
        )
        nursery.start_soon(lua.run, "package.loaded.stop = true")
    assert lua.take() == [["stopped"]]


async def test_operations_of_several_threads(lua: Lua, autojump_clock: Clock) -> None:
    """Operations that are awaited in Python: each in a task, its results for its thread."""

    async def op(_owner: object, seconds: float, value: bytes) -> tuple[bytes, float]:
        await trio.sleep(seconds)
        return value, seconds

    lua.rt.driver._ops.append(op)
    number = len(lua.rt.driver._ops) - 1
    code = f"""
        local function f(...) out(rt.suspend({number}, ...)) out(rt.suspend({number}, ...)) end
        local a, b = ngx.thread.spawn(f, 1, "a"), ngx.thread.spawn(f, 2, "b")
        out(rt.suspend({number}, 1.5, "entry"))
        ngx.thread.wait(a)
        out(ngx.thread.kill(b))
        out(rt.suspend({number}, 1, "alone"))
        """
    assert await lines(lua, code) == ["a 1", "entry 1.5", "b 2", "a 1", "1", "alone 1"]
    assert not lua.rt.driver._runs


async def test_an_operation_that_raises(lua: Lua) -> None:
    async def op(_owner: object) -> tuple[()]:
        await trio.lowlevel.checkpoint()
        raise ValueError("a defect")

    lua.rt.driver._ops.append(op)
    number = len(lua.rt.driver._ops) - 1
    with pytest.raises(ValueError, match="a defect"):
        await lua.run(f"ngx.thread.spawn(function() rt.suspend({number}) end) ngx.sleep(5)")
    assert lua.rt.vm.export("live")()[1] == 0


# ------------------------------------------------------------------------------------------- wait


async def test_wait_returns_what_the_thread_returns(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local wait, spawn = ngx.thread.wait, ngx.thread.spawn
        local function f(...) ngx.sleep(1) return ... end
        out(select("#", wait(spawn(f))))
        out(wait(spawn(f, nil, 2, nil)))
        out(wait(spawn(function(...) return ... end, 3, nil)))
        """,
    ) == ["1", "true nil 2 nil", "true 3 nil"]


async def test_wait_any(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local function f(n) ngx.sleep(n) return n end
        local a, b = ngx.thread.spawn(f, 2), ngx.thread.spawn(f, 1)
        out(ngx.thread.wait(a, b))
        out(coroutine.status(a), coroutine.status(b))
        ngx.sleep(5)
        out(coroutine.status(a))
        out(ngx.thread.wait(b, a))
        out(ngx.thread.wait(b, a))
        """,
    ) == ["true 1", "running dead", "zombie", "true 2", "nil already waited or killed"]
    assert trio.current_time() == 6


async def test_the_parent_goes_on_at_once_when_its_child_ends(lua: Lua) -> None:
    assert await lines(
        lua,
        """
        local function f() coroutine.yield() out("f ends") end
        local function g() for i = 1, 3 do coroutine.yield() out("g") end end
        local t = ngx.thread.spawn(f)
        ngx.thread.spawn(g)
        ngx.thread.wait(t)
        out("waited")
        """,
    ) == ["f ends", "waited", "g", "g", "g"]


async def test_errors_of_a_child(lua: Lua, autojump_clock: Clock) -> None:
    got = await lines(
        lua,
        """
        local function f(how, what) if how then ngx.sleep(1) end error(what) end
        for _, how in ipairs { false, true } do
            local t = ngx.thread.spawn(f, how, "bad")
            out(coroutine.status(t), ngx.thread.wait(t))
        end
        out(ngx.thread.wait(ngx.thread.spawn(function() local x = nil + 1 end)))
        local ok, err = ngx.thread.wait(ngx.thread.spawn(f, false, {}))
        out(ok, type(err))
        ngx.thread.spawn(f, false, "nobody waits")
        out("goes on")
        """,
    )
    assert got == [
        f"zombie false bad {CHUNK}:2: bad",
        f"running false bad {CHUNK}:2: bad",
        f"false {CHUNK}:7: attempt to perform arithmetic on a nil value",
        "false table",
        "goes on",
    ]
    errors = [text.decode() for level, text in lua.log.lines if level == 4]
    assert len(errors) == 5
    assert errors[0].startswith(
        f"lua user thread aborted: runtime error: {CHUNK}:2: bad\nstack traceback:\n"
        f"coroutine 0:\n\t[C]: in function 'error'\n\t{CHUNK}:2: in function <{CHUNK}:2>\n"
        f"coroutine 1:\n\t[C]: in function 'spawn'\n\t{CHUNK}:4: in main chunk, client: "
    )
    assert "unknown reason" in errors[3]


async def test_an_error_of_the_entry_thread_ends_all(lua: Lua, autojump_clock: Clock) -> None:
    code = "ngx.thread.spawn(function() ngx.sleep(1) out('no') end) error('x')"
    result = await lua.run(code)
    assert result[:2] == (Outcome.FAILED, f"{CHUNK}:1: x")
    await trio.sleep(10)
    assert lua.take() == []


async def test_the_error_of_a_wrapped_coroutine_ends_its_user_thread(lua: Lua) -> None:
    got = await lines(
        lua,
        """
        local t = ngx.thread.spawn(function() pcall(coroutine.wrap(function() error("in wrap") end)) end)
        local ok, err = ngx.thread.wait(t)
        out(ok, err)
        """,
    )
    assert got == [f"false {CHUNK}:2: in wrap"]


async def test_only_the_parent_may_wait_and_kill(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local function sleeper() ngx.sleep(1) end
        local t = ngx.thread.spawn(sleeper)
        ngx.thread.spawn(function()
            out(pcall(ngx.thread.wait, t))
            out(ngx.thread.kill(t))
        end)
        local co = coroutine.create(function() local ok = ngx.thread.wait(t) return ok end)
        out(coroutine.resume(co))
        co = coroutine.create(function() return ngx.thread.wait(ngx.thread.spawn(sleeper)) end)
        out(coroutine.resume(co))
        out(pcall(ngx.thread.wait, co))
        out(ngx.thread.kill(co))
        out(pcall(ngx.thread.wait, coroutine.running()))
        """,
    ) == [
        "false only the parent coroutine can wait on the thread",
        "nil killer not parent",
        f"false {CHUNK}:8: only the parent coroutine can wait on the thread",
        "true true",
        "false attempt to wait on a coroutine that is not a user thread",
        "nil not user thread",
        "false attempt to wait on a coroutine that is not a user thread",
    ]


async def test_threads_of_other_requests(lua: Lua, autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lua.run, "package.loaded.t = ngx.thread.spawn(function() ngx.sleep(2) end)"
        )
        await trio.sleep(1)
        code = "out(pcall(ngx.thread.wait, package.loaded.t)) out(pcall(ngx.thread.kill, package.loaded.t))"
        await lua.run(code)
        await trio.sleep(2)
        await lua.run(code)
    assert lua.take() == [["false", "no co ctx found"]] * 4


def test_bad_arguments(lua: Lua) -> None:
    assert lua.begin(
        """
        for _, call in ipairs {
            "spawn(print)", "spawn(ngx.null)", "spawn(string.rep)", "wait()", "wait(1)", "kill()", "kill(5)",
        } do
            local _, err = pcall(loadstring("ngx.thread." .. call, "=c"))
            out(err)
        end
        """
    ) in (0, Outcome.DONE)
    assert [text for (text,) in lua.take()] == [
        "nil",
        "c:1: bad argument #1 to 'spawn' (Lua function expected)",
        "c:1: bad argument #1 to 'spawn' (Lua function expected)",
        "c:1: at least one coroutine should be specified",
        "c:1: bad argument #1 to 'wait' (lua thread expected)",
        "c:1: bad argument #1 to 'kill' (lua thread expected)",
        "c:1: bad argument #1 to 'kill' (lua thread expected)",
    ]


def test_phases(lua: Lua) -> None:
    code = "out(pcall(ngx.thread.spawn, function() end)) out(pcall(ngx.thread.wait)) out(pcall(ngx.sleep, 1))"
    lua.run_sync(code, Phase.LOG)
    assert lua.take() == [["false", "API disabled in the context of log_by_lua*"]] * 3
    lua.init("out = require('trio_lua.rt').out out(pcall(ngx.thread.spawn, function() end))")
    assert lua.take() == [["false", "no request found"]]


# ------------------------------------------------------------------------------------------- kill


async def test_kill(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local kill, spawn, status = ngx.thread.kill, ngx.thread.spawn, coroutine.status
        local function f() ngx.sleep(3600) out("no") end
        local t = spawn(f)
        out(kill(t))
        out(status(t), kill(t))
        out(ngx.thread.wait(t))
        t = spawn(function() end)
        out(status(t), kill(t))
        out(status(t), kill(t))
        t = spawn(function() coroutine.yield() out("no") end)
        out(kill(t))
        t = spawn(function() ngx.thread.wait(spawn(function() ngx.sleep(1) out("orphan") end)) out("no") end)
        out(kill(t))
        """,
    ) == [
        "1",
        "dead nil already waited or killed",
        "nil already waited or killed",
        "zombie nil already terminated",
        "dead nil already waited or killed",
        "1",
        "1",
        "orphan",
    ]
    assert trio.current_time() == 1


async def test_killing_an_operation_cancels_it(lua: Lua, autojump_clock: Clock) -> None:
    cancelled = []

    async def op(_owner: object, name: bytes) -> tuple[()]:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(name)
            raise
        return ()

    lua.rt.driver._ops.append(op)
    number = len(lua.rt.driver._ops) - 1
    await lines(
        lua,
        f"""
        local t = ngx.thread.spawn(function() rt.suspend({number}, "a") end)
        ngx.sleep(1)
        ngx.thread.kill(t)
        ngx.sleep(1)
        """,
    )
    assert cancelled == [b"a"]
    assert trio.current_time() == 2
    # before it has begun there is nothing to cancel
    await lines(lua, f"ngx.thread.kill(ngx.thread.spawn(function() rt.suspend({number}, 'b') end))")
    assert cancelled == [b"a"]


# -------------------------------------------------------------------------------------------- end


@pytest.mark.parametrize("who", ["entry", "child"])
async def test_exit_ends_all_threads(lua: Lua, autojump_clock: Clock, who: str) -> None:
    leave = "ngx.sleep(1) ngx.exit(403)"
    other = "ngx.sleep(5) out('no')"
    entry, child = (leave, other) if who == "entry" else (other, leave)
    code = f"""
        ngx.thread.spawn(function() ngx.thread.spawn(function() ngx.sleep(7) out("no") end) {child} end)
        {entry}
        """
    assert await lines(lua, code, (Outcome.EXIT, 403, None)) == []
    assert trio.current_time() == 1
    await trio.sleep(10)
    assert lua.take() == []


async def test_the_handler_ends_with_its_last_thread(lua: Lua, autojump_clock: Clock) -> None:
    code = """
        ngx.thread.spawn(function()
            ngx.thread.spawn(function() ngx.sleep(3) out("grandchild") end)
            ngx.sleep(1)
            out("child")
        end)
        out("entry")
        """
    assert await lines(lua, code) == ["entry", "child", "grandchild"]
    assert trio.current_time() == 3


async def test_cancelling_ends_all_threads(lua: Lua, autojump_clock: Clock) -> None:
    code = """
        local sem = require("ngx.semaphore").new()
        package.loaded.sem = sem
        ngx.thread.spawn(function() ngx.sleep(5) out("no") end)
        ngx.thread.spawn(function() sem:wait(50) out("no") end)
        ngx.thread.wait(ngx.thread.spawn(function() pause() end))
        """

    async def forever(_owner: object) -> tuple[()]:
        await trio.sleep_forever()
        return ()

    lua.rt.driver._ops[0] = forever
    with trio.move_on_after(1) as scope:
        await lua.run(code)
    assert scope.cancelled_caught
    assert lua.rt.vm.export("live")()[1] == 0
    assert not lua.rt.driver._runs
    await lua.run("out(package.loaded.sem:count()) package.loaded.sem:post()")
    await trio.sleep(100)
    assert lua.take() == [["0"]]


async def test_threads_are_collected(lua: Lua) -> None:
    """A thread that is over, was killed or is a zombie of a request that is over keeps nothing alive."""
    await lua.run(
        """
        local weak = setmetatable({}, { __mode = "k" })
        package.loaded.weak = weak
        local function f(how)
            local mine = {}
            weak[mine] = true
            if how then coroutine.yield() end
            return coroutine.running(), mine
        end
        local a, b, c = ngx.thread.spawn(f), ngx.thread.spawn(f, true), ngx.thread.spawn(f, true)
        ngx.thread.kill(c)
        ngx.thread.wait(b)
        weak[a], weak[b], weak[c] = true, true, true
        """
    )
    await lua.run(
        "collectgarbage() collectgarbage() local n = 0 for _ in pairs(package.loaded.weak) do n = n + 1 end out(n)"
    )
    assert lua.take() == [["0"]]


# -------------------------------------------------------------------------------------- semaphores


async def test_post_wakes_nobody_before_it_returns(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local sem = require("ngx.semaphore").new()
        for i = 1, 3 do
            ngx.thread.spawn(function() out(i, sem:wait(10)) end)
        end
        out(sem:count(), sem:post(2), sem:count(), sem:wait(0))
        ngx.sleep(1)
        out(sem:count(), sem:post(), sem:count())
        """,
    ) == [
        "-3 true -1 nil timeout",
        "1 true nil",
        "2 true nil",
        "-1 true 0",
        "3 true nil",
    ]
    assert trio.current_time() == 1


async def test_semaphore_timeouts(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local sem = require("ngx.semaphore").new(1)
        out(sem:wait(0), sem:wait(0))
        local t = ngx.thread.spawn(function() out("never", sem:wait(9)) end)
        ngx.thread.spawn(function() out("first", sem:wait(1)) end)
        ngx.thread.spawn(function() out("second", sem:wait(3)) end)
        ngx.sleep(2)
        out(sem:count())
        ngx.thread.kill(t)
        out(sem:count())
        sem:post(2)
        ngx.sleep(0)
        out(sem:count())
        """,
    ) == ["true nil timeout", "first false timeout", "-2", "-1", "1", "second true nil"]
    assert trio.current_time() == 2


async def test_semaphores_of_all_requests(lua: Lua, autojump_clock: Clock) -> None:
    for _ in range(5):
        lua.init("package.loaded.sem = require('ngx.semaphore').new()")
        async with trio.open_nursery() as nursery:
            for i in range(4):
                result = lua.begin(f"out({i}, package.loaded.sem:wait(10))")
                lua.start_clock()
                nursery.start_soon(lua.finish, result)
            await trio.sleep(1)
            # a phase that cannot wait can post
            lua.run_sync("package.loaded.sem:post(3)", Phase.LOG)
            await trio.sleep(1)
            lua.run_sync("package.loaded.sem:post()", Phase.HEADER_FILTER)
        assert lua.take() == [[str(i), "true", "nil"] for i in range(4)]


async def test_a_semaphore_passed_to_and_fro(lua: Lua) -> None:
    got = await lines(
        lua,
        """
        local new = require("ngx.semaphore").new
        local ping, pong = new(), new()
        local t = ngx.thread.spawn(function() for i = 1, 3000 do ping:wait(9) pong:post() end end)
        for i = 1, 3000 do ping:post() assert(pong:wait(9)) end
        out(ping:count(), pong:count(), ngx.thread.wait(t))
        """,
    )
    assert got == ["0 0 true"]


def test_semaphore_errors(lua: Lua) -> None:
    lua.begin(
        """
        local semaphore = require "ngx.semaphore"
        local sem = semaphore.new()
        local function try(f, ...) local _, err = pcall(f, ...) out(err) end
        try(function() semaphore.new(-1) end)
        try(function() sem:wait(-1) end)
        try(function() sem:post(0) end)
        try(function() semaphore.wait({}, 1) end)
        try(function() semaphore.post(5) end)
        try(function() semaphore.count() end)
        """
    )
    assert [text for (text,) in lua.take()] == [
        f"{CHUNK}:5: no negative number",
        f"{CHUNK}:6: no negative number",
        f"{CHUNK}:7: positive number required",
        *(f"{CHUNK}:{line}: not a semaphore instance" for line in (8, 9, 10)),
    ]
    lua.run_sync("out(require('ngx.semaphore').new(1):wait(1))", Phase.LOG)
    assert lua.take() == [["nil", "API disabled in the context of log_by_lua*"]]
