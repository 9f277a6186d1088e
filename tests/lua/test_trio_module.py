"""The module trio: what Trio's documentation promises, in Lua."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_lua.lua.driver import Outcome

if TYPE_CHECKING:
    from conftest import Lua

Clock = trio.testing.MockClock
CHUNK = "content_by_lua(nginx.conf:1)"


async def lines(lua: Lua, code: str, result: Any = None) -> list[str]:
    """What a handler passes to ``out``, joined; nothing may be left of it."""
    got = await lua.run("local trio = require 'trio'; " + code)
    assert got == result, got
    assert lua.rt.vm.export("live")()[1] == 0
    assert not lua.rt.driver._runs
    return [" ".join(texts) for texts in lua.take()]


# ------------------------------------------------------------------------------------------ scopes


async def test_move_on_after(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local scope, a = trio.move_on_after(1, function() ngx.sleep(5) out("no") return 1 end)
        out(scope.cancelled_caught, scope.cancel_called, a)
        scope, a = trio.move_on_after(5, function(scope, x) ngx.sleep(1) return x end, "x")
        out(scope.cancelled_caught, scope.cancel_called, a)
        local t = trio.current_time()
        scope = trio.move_on_at(t + 3, trio.sleep_forever)
        out(scope.cancelled_caught, trio.current_time() - t)
        """,
    ) == ["true true nil", "false false x", "true 3"]
    assert trio.current_time() == 5


async def test_threads_that_wait_at_an_end_that_is_closed(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local send, receive = trio.open_memory_channel(0)
        local function wait(name, channel, method)
            local ok, err = pcall(channel[method], channel, name)
            out(name, ok, err == trio.ClosedResourceError, err == trio.BrokenResourceError)
        end
        local one, two = receive:clone(), receive:clone()
        trio.open_nursery(function(nursery)
            nursery:start_soon(wait, "one", one, "receive")
            nursery:start_soon(wait, "two", two, "receive")
            trio.sleep(1)
            one:close()
            send:send("x")
        end)
        local three, four = send:clone(), send:clone()
        trio.open_nursery(function(nursery)
            nursery:start_soon(wait, "three", three, "send")
            nursery:start_soon(wait, "four", four, "send")
            trio.sleep(1)
            three:close()
            out("got", receive:receive())
        end)
        """,
    ) == [
        "one false true false",
        "two true false false",
        "got four",
        "three false true false",
        "four true false false",
    ]


async def test_scopes_in_each_other_without_end(lua: Lua, autojump_clock: Clock) -> None:
    """They would use up the C stack, which ends the process."""
    assert await lines(
        lua,
        """
        local n = 0
        local function f()
            n = n + 1
            trio.move_on_after(1, f)
        end
        local ok, err = pcall(f)
        out(n, ok, err)
        """,
    ) == ["5001 false content_by_lua(nginx.conf:1):5: too many cancel scopes in each other"]


async def test_pcall_does_not_swallow_it(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local n = 0
        local scope = trio.move_on_after(2.5, function()
            while true do pcall(function() n = n + 1 ngx.sleep(1) end) end
        end)
        out(n, scope.cancelled_caught)
        """,
    ) == ["3 true"]


async def test_cancelling_below_coroutines(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local co = coroutine.create(function()
            local scope = trio.move_on_after(1, function()
                local inner = coroutine.wrap(function() coroutine.yield(1) ngx.sleep(9) end)
                out(inner())
                inner()
                out("no")
            end)
            out("in", scope.cancelled_caught)
            coroutine.yield("yielded")
            return "returned"
        end)
        out(coroutine.resume(co))
        out(coroutine.resume(co))
        out(coroutine.status(co))
        """,
    ) == ["1", "in true", "true yielded", "true returned", "dead"]


async def test_nested_scopes(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local inner
        local outer = trio.move_on_after(1, function()
            inner = trio.move_on_after(2, ngx.sleep, 9)
            out("no")
        end)
        out(outer.cancelled_caught)
        outer = trio.move_on_after(2, function()
            inner = trio.move_on_after(1, function() ngx.sleep(9) end)
            out("inner", inner.cancelled_caught)
        end)
        out(outer.cancelled_caught)
        """.replace(
            "trio.move_on_after(2, ngx.sleep, 9)",
            "trio.move_on_after(2, function() ngx.sleep(9) end)",
        ),
    ) == ["true", "inner true", "false"]
    assert trio.current_time() == 2


async def test_fail_after(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local ok, err = pcall(trio.fail_after, 1, function() ngx.sleep(2) end)
        out(ok, err == trio.TooSlowError, err)
        out(trio.fail_after(2, function() ngx.sleep(1) return 1, nil, 3 end))
        """,
    ) == ["false true trio.TooSlowError: the time is over", "1 nil 3"]


async def test_cancel_and_deadlines(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local scope = trio.CancelScope()
        scope:cancel()
        out(scope:run(function() out("runs up to its first wait") ngx.sleep(1) out("no") end))
        out(scope.cancelled_caught, pcall(scope.run, scope, print))
        scope = trio.CancelScope { deadline = trio.current_time() + 9 }
        scope:run(function()
            scope.deadline = trio.current_time() + 1
            ngx.sleep(5)
            out("no")
        end)
        scope = trio.CancelScope { deadline = trio.current_time() + 1 }
        out(scope:run(function() scope.deadline = math.huge ngx.sleep(5) return scope.deadline end))
        scope = trio.CancelScope()
        out(scope:run(function() scope:cancel() return "no wait" end), scope.cancelled_caught)
        """,
    ) == [
        "runs up to its first wait",
        "",
        "true false a cancel scope can be entered only once",
        "inf",
        "no wait false",
    ]
    assert trio.current_time() == 6


async def test_errors_leave_scopes(lua: Lua, autojump_clock: Clock) -> None:
    code = """
        out(pcall(trio.move_on_after, 5, function() ngx.sleep(1) error("x", 0) end))
        out(pcall(trio.move_on_after, 5, function() coroutine.wrap(function() error("w", 0) end)() end))
        local co = coroutine.create(function() trio.CancelScope():run(coroutine.yield) end)
        out(coroutine.resume(co))
        trio.CancelScope():run(function()
            error("uncaught")
        end)
        """
    outcome, message, trace = await lua.run("local trio = require 'trio'; " + code)
    assert lua.take() == [
        ["false", "x"],
        ["false", "w"],
        ["false", "attempt to yield out of a cancel scope"],
    ]
    assert (outcome, message) == (Outcome.FAILED, f"{CHUNK}:7: uncaught")
    assert f"{CHUNK}:7: in function" in trace


async def test_shields(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        trio.move_on_after(1, function()
            trio.CancelScope { shield = true }:run(function() ngx.sleep(3) out("shielded") end)
            out("behind")
            ngx.sleep(0)
            out("no")
        end)
        local shield = trio.CancelScope { shield = true }
        trio.move_on_after(1, function()
            shield:run(function() ngx.thread.spawn(function() ngx.sleep(2) shield.shield = false end) ngx.sleep(9) end)
            out("no")
        end)
        out(trio.current_time())
        """,
    ) == ["shielded", "behind", "5"]


async def test_defer(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local function tidy(name) out("tidy", name) end
        trio.move_on_after(1, function()
            trio.defer(tidy, "a")
            trio.defer(function() out("waits") ngx.sleep(1) out("no") end)
            trio.defer(function()
                trio.CancelScope { shield = true }:run(function() ngx.sleep(1) out("with a shield") end)
            end)
            trio.CancelScope():run(function() trio.defer(tidy, "inner") ngx.sleep(9) end)
        end)
        out(pcall(trio.move_on_after, 1, function() trio.defer(tidy, "b") error("x", 0) end))
        trio.move_on_after(9, function()
            trio.defer(function() ngx.sleep(1) out("uncancelled, it may wait") end)
            trio.defer(function() error("y", 0) end)
        end)
        out(pcall(trio.defer, tidy))
        """,
    ) == [
        "tidy inner",
        "with a shield",
        "waits",
        "tidy a",
        "tidy b",
        "false x",
        "uncancelled, it may wait",
        "false trio.defer outside of any scope",
    ]
    ((_, text),) = lua.log.lines
    assert text.startswith(b"error in a deferred function: y\nstack traceback:")


@pytest.mark.parametrize("how", ["exit", "kill", "cancel"])
async def test_defer_of_a_thread_that_is_gone(lua: Lua, autojump_clock: Clock, how: str) -> None:
    code = """
        local trio = require "trio"
        local t = ngx.thread.spawn(function()
            trio.CancelScope():run(function()
                trio.defer(function() out("tidy") ngx.sleep(1) out("no") end)
                trio.open_nursery(function(nursery)
                    nursery:start_soon(function() trio.defer(out, "child") ngx.sleep(50) end)
                end)
            end)
        end)
        ngx.sleep(1)
        """
    end = {"exit": "ngx.exit(200)", "kill": "ngx.thread.kill(t)", "cancel": "ngx.sleep(50)"}
    with trio.move_on_after(2):
        await lua.run(code + end[how])
    assert sorted(lua.take()) == [["child"], ["tidy"]]
    assert lua.rt.vm.export("live")()[1] == 0
    await trio.sleep(100)
    assert lua.take() == []


async def test_operations_in_scopes(lua: Lua, autojump_clock: Clock) -> None:
    cancelled = []

    async def op(_owner: object, seconds: float) -> tuple[float]:
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            cancelled.append(seconds)
            raise
        return (seconds,)

    lua.rt.driver._ops[0] = op
    assert await lines(
        lua,
        """
        local scope, n = trio.move_on_after(2, function() return rt.suspend(0, 1) end)
        out(scope.cancelled_caught, n)
        scope, n = trio.move_on_after(2, function() return rt.suspend(0, 3) end)
        out(scope.cancelled_caught, n)
        out(rt.suspend(0, 4))
        """,
    ) == ["false 1", "true nil", "4"]
    assert cancelled == [3]
    assert trio.current_time() == 7


async def test_user_threads_and_scopes(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local t = ngx.thread.spawn(function() ngx.sleep(5) return "t" end)
        local scope = trio.move_on_after(1, function() ngx.thread.wait(t) out("no") end)
        out(scope.cancelled_caught, coroutine.status(t))
        out(ngx.thread.wait(t))
        local sem = require("ngx.semaphore").new()
        scope = trio.move_on_after(1, function() sem:wait(5) out("no") end)
        out(scope.cancelled_caught, sem:count())
        """,
    ) == ["true running", "true t", "true 0"]


# --------------------------------------------------------------------------------------- nurseries


async def test_nursery(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local function child(name, seconds) out(name, "starts") ngx.sleep(seconds) out(name, "ends") end
        out(trio.open_nursery(function(nursery)
            nursery:start_soon(child, "a", 2)
            nursery:start_soon(child, "b", 1)
            out("body")
            return 1, nil, 3
        end))
        """,
    ) == ["body", "a starts", "b starts", "b ends", "a ends", "1 nil 3"]


async def test_an_error_cancels_the_siblings(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        out(pcall(trio.open_nursery, function(nursery)
            nursery:start_soon(function() trio.defer(out, "tidy a") ngx.sleep(9) out("no") end)
            nursery:start_soon(function() ngx.sleep(1) error("first", 0) end)
            nursery:start_soon(function() trio.defer(error, "in cleanup") ngx.sleep(9) end)
            ngx.sleep(9)
            out("no")
        end))
        out(trio.current_time())
        out(pcall(trio.open_nursery, function(nursery)
            nursery:start_soon(function() ngx.sleep(9) out("no") end)
            ngx.sleep(1)
            error("of the body", 0)
        end))
        """,
    ) == ["tidy a", "false first", "1", "false of the body"]
    assert trio.current_time() == 2


async def test_cancelling_a_nursery(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local nursery
        trio.open_nursery(function(n)
            nursery = n
            n:start_soon(function() ngx.sleep(9) out("no") end)
            n:start_soon(function() ngx.sleep(1) n.cancel_scope:cancel() ngx.sleep(0) out("no") end)
        end)
        out(nursery.cancel_scope.cancelled_caught, pcall(nursery.start_soon, nursery, print))
        local scope = trio.move_on_after(1, function()
            trio.open_nursery(function(n)
                n:start_soon(function() ngx.sleep(9) out("no") end)
                n:start_soon(function()
                    trio.CancelScope { shield = true }:run(function() ngx.sleep(3) out("shielded") end)
                end)
                ngx.sleep(9)
            end)
            out("no")
        end)
        out(scope.cancelled_caught, trio.current_time())
        """,
    ) == ["true false the nursery is closed", "shielded", "true 4"]


async def test_nested_nurseries(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local function tree(nursery, depth, name)
            ngx.sleep(1)
            out(name)
            if depth > 0 then
                trio.open_nursery(function(inner)
                    inner:start_soon(tree, depth - 1, name .. "l")
                end)
            end
        end
        local function grow(depth, name)
            if depth == 3 then return ngx.sleep(50) end
            trio.open_nursery(function(n)
                for i = 1, 2 do n:start_soon(grow, depth + 1, name .. i) end
            end)
        end
        local scope = trio.move_on_after(2, function() grow(0, "") end)
        out(scope.cancelled_caught, trio.current_time())
        """,
    ) == ["true 2"]


# ------------------------------------------------------------------------------ between threads


async def test_event(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local event = trio.Event()
        trio.open_nursery(function(nursery)
            for i = 1, 3 do nursery:start_soon(function() event:wait() out(i) end) end
            nursery:start_soon(function() trio.move_on_after(1, function() event:wait() out("no") end) end)
            ngx.sleep(2)
            event:set()
            out(event:is_set())
            event:wait()
        end)
        """,
    ) == ["true", "1", "2", "3"]


async def test_events_between_requests(lua: Lua, autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lua.run,
            "package.loaded.event = require('trio').Event() package.loaded.event:wait() out('set')",
        )
        await trio.sleep(1)
        nursery.start_soon(lua.run, "package.loaded.event:set() out('sets') ngx.sleep(1) out('on')")
    assert lua.take() == [["sets"], ["set"], ["on"]]


async def test_lock_and_condition(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local lock, condition = trio.Lock(), trio.Condition()
        trio.open_nursery(function(nursery)
            for i = 1, 3 do
                nursery:start_soon(function() lock:with(function() out(i, lock:locked()) ngx.sleep(1) end) end)
            end
            nursery:start_soon(function()
                trio.move_on_after(1.5, function() lock:acquire() out("no") end)
            end)
        end)
        out(lock:locked(), pcall(lock.release, lock))
        trio.move_on_after(1, lock.with and function() lock:with(ngx.sleep, 5) end)
        out(lock:locked())
        lock:acquire()
        out(pcall(lock.acquire, lock))
        out(pcall(trio.open_nursery, function(n) n:start_soon(function() lock:acquire_nowait() end) end))
        trio.open_nursery(function(nursery)
            for i = 1, 3 do
                nursery:start_soon(function() condition:with(function() condition:wait() out("woken", i) end) end)
            end
            nursery:start_soon(function()
                trio.move_on_after(1, function() condition:with(condition.wait, condition) end)
                out("left")
            end)
            ngx.sleep(2)
            condition:with(condition.notify, condition)
            ngx.sleep(1)
            out("all")
            condition:with(function() condition:notify_all() end)
        end)
        out(pcall(condition.notify, condition))
        """,
    ) == [
        "1 true",
        "2 true",
        "3 true",
        "false false can't release a Lock you don't own",
        "false",
        "false attempt to re-acquire an already held Lock",
        "false trio.WouldBlock: this would have to wait",
        "left",
        "woken 1",
        "all",
        "woken 2",
        "woken 3",
        "false must hold the lock",
    ]


async def test_semaphore_and_limiter(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local semaphore, limiter = trio.Semaphore(2, { max_value = 2 }), trio.CapacityLimiter(2)
        local start = trio.current_time()
        for _, guard in ipairs { semaphore, limiter } do
            trio.open_nursery(function(nursery)
                for i = 1, 5 do nursery:start_soon(guard.with, guard, ngx.sleep, 1) end
            end)
            out(trio.current_time() - start)
        end
        out(semaphore.value, limiter.borrowed_tokens, limiter:available_tokens())
        out(pcall(semaphore.release, semaphore))
        limiter:acquire()
        out(pcall(limiter.acquire, limiter))
        limiter:release()
        out(pcall(limiter.release, limiter))
        """,
    ) == [
        "3",
        "6",
        "2 0 2",
        "false semaphore released too many times",
        "false this borrower is already holding one of this CapacityLimiter's tokens",
        "false this borrower isn't holding any of this CapacityLimiter's tokens",
    ]


async def test_memory_channels(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local send, receive = trio.open_memory_channel(2)
        trio.open_nursery(function(nursery)
            local copy = send:clone()
            nursery:start_soon(function() for i = 1, 4 do send:send(i) end out("sent") send:close() end)
            nursery:start_soon(function() ngx.sleep(1) copy:send("copy") copy:close() end)
            ngx.sleep(2)
            for value in receive:values() do out(value) end
        end)
        out(pcall(receive.receive, receive))
        out(pcall(send.send, send, 1))
        local s, r = trio.open_memory_channel(0)
        out(pcall(s.send_nowait, s, 1))
        out(pcall(r.receive_nowait, r))
        trio.open_nursery(function(nursery)
            nursery:start_soon(function() out("got", r:receive()) r:close() end)
            nursery:start_soon(function() ngx.sleep(1) s:send("x") out(pcall(s.send, s, 1)) end)
        end)
        local s, r = trio.open_memory_channel(0)
        local scope = trio.move_on_after(1, function() s:send("never") end)
        out(scope.cancelled_caught, pcall(r.receive_nowait, r))
        """,
    ) == [
        "1",
        "2",
        "3",
        "copy",
        "sent",
        "4",
        "false trio.EndOfChannel: nothing more will come",
        "false trio.ClosedResourceError: this end has been closed",
        "false trio.WouldBlock: this would have to wait",
        "false trio.WouldBlock: this would have to wait",
        "got x",
        "false trio.BrokenResourceError: the other end has been closed",
        "true false trio.WouldBlock: this would have to wait",
    ]


async def test_checkpoint_and_sleep(lua: Lua, autojump_clock: Clock) -> None:
    assert await lines(
        lua,
        """
        local n = 0
        local scope = trio.CancelScope()
        trio.open_nursery(function(nursery)
            nursery:start_soon(function()
                scope:run(function() while true do n = n + 1 trio.checkpoint() end end)
            end)
            for i = 1, 10 do trio.checkpoint() end
            scope:cancel()
        end)
        out(n > 5, scope.cancelled_caught)
        trio.sleep(1)
        trio.sleep_until(trio.current_time() + 1)
        out(trio.current_time(), pcall(trio.sleep, -1))
        """,
    ) == ["true true", "2 false bad argument #1 to 'sleep' (non-negative number expected)"]
