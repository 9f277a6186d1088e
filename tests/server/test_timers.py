"""Timers of a worker: when they run, in what context, and what becomes of them when it stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from serving import MemoryLog, nginx

from trio_lua.server.worker import Worker

Serve = Callable[..., Any]
Clock = trio.testing.MockClock


def content(code: str, http: str = "") -> Any:
    return nginx(f"location / {{ content_by_lua_block {{ {code} }} }}", http)


def notices(log: MemoryLog) -> list[str]:
    """The texts that Lua code has printed, without their places."""
    found = []
    for level, text in log.lines:
        if level == 6 and "[lua] " in text:
            found.append(text.partition(": ")[2].partition(", context")[0].partition(", client")[0])
    return found


async def test_at(serve: Serve, autojump_clock: Clock) -> None:
    code = """
        local function f(premature, a, b) print(premature, " ", a, " ", b, " ", ngx.now() - package.loaded.t) end
        package.loaded.t = ngx.now()
        ngx.say(ngx.timer.at(2, f, "x", nil))
        ngx.say(ngx.timer.at(0, f))
        ngx.say(ngx.timer.pending_count(), ngx.timer.running_count())
        """
    async with serve(content(code)) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"1\n1\n20\n"
        await trio.sleep(5)
        first, second = notices(running.log)
        assert first.startswith("false nil nil 0")
        assert second.startswith("false x nil 2")
        (line,) = [text for _, text in running.log.lines if "false x nil" in text]
        assert ", context: ngx.timer, client: " in line
        assert line.endswith(", server: 127.0.0.1:80")


async def test_timers_fire_in_the_order_of_their_times(serve: Serve, autojump_clock: Clock) -> None:
    code = """
        for i = 1, 5 do
            ngx.timer.at(1, function() print(i) ngx.sleep(1) print(i, " again") end)
        end
        ngx.timer.at(0, function() print("soon") end)
        """
    async with serve(content(code)) as running:
        client = await running.connect()
        await client.get("/")
        await trio.sleep(5)
        assert notices(running.log) == [
            "soon",
            *(str(i) for i in range(1, 6)),
            *(f"{i} again" for i in range(1, 6)),
        ]


async def test_context(serve: Serve, autojump_clock: Clock) -> None:
    code = """
        ngx.ctx.x = 1
        ngx.timer.at(1, function()
            print(ngx.get_phase(), " ", ngx.ctx.x, " ", ngx.req.start_time(), " ", pcall(ngx.say, 1))
            ngx.ctx.x = 2
            print(ngx.ctx.x, " ", ngx.timer.running_count(), " ", ngx.timer.pending_count())
            print(pcall(function() return ngx.var.uri end))
            print(pcall(ngx.req.get_headers))
            ngx.exit(0)
            print("no")
        end)
        """
    async with serve(content(code)) as running:
        client = await running.connect()
        await client.get("/")
        await trio.sleep(5)
        phase, ctx, var, headers = notices(running.log)
        assert phase.startswith("timer nil 0 falseAPI disabled in the context of ngx.timer")
        assert ctx == "2 1 0"
        assert var.startswith("false")
        assert "API disabled in the current context" in var
        assert "API disabled in the current context" in headers


async def test_errors_and_threads(serve: Serve, autojump_clock: Clock) -> None:
    code = """
        ngx.timer.at(0, function() error("at once") end)
        ngx.timer.at(0, function() ngx.sleep(1) error("later") end)
        ngx.timer.at(0, function()
            ngx.thread.spawn(function() ngx.sleep(3) print("child ", ngx.timer.running_count()) end)
            ngx.thread.spawn(function() error("child") end)
        end)
        """
    async with serve(content(code)) as running:
        client = await running.connect()
        await client.get("/")
        await trio.sleep(5)
        assert notices(running.log) == ["child 1"]
        errors = [text for level, text in running.log.lines if level == 4]
        assert len(errors) == 3
        for text, who in zip(errors, ["entry", "user", "entry"], strict=True):
            assert text.startswith(f"lua {who} thread aborted: runtime error: ")
            assert "stack traceback:\ncoroutine 0:\n" in text
            assert "context: ngx.timer" in text
        assert "later" in errors[2]


async def test_every(serve: Serve, autojump_clock: Clock) -> None:
    code = """
        local n = 0
        ngx.say(ngx.timer.every(1, function(premature, name)
            n = n + 1
            print(name, n, " ", premature, " ", ngx.timer.pending_count())
            if n == 2 then error("goes on") end
            ngx.sleep(1.5)
        end, "t"))
        """
    async with serve(content(code)) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"1\n"
        await client.aclose()
        await trio.sleep(3.5)
        assert notices(running.log) == ["t1 false 1", "t2 false 1", "t3 false 1"]
        running.worker.quit()
        await trio.sleep(5)
        assert running.worker.closed
        assert notices(running.log)[3:] == ["t4 true 0"]


async def test_limits(serve: Serve, autojump_clock: Clock) -> None:
    code = """
        local function f(premature, i) print(i) ngx.sleep(1) end
        for i = 1, 4 do ngx.say(ngx.timer.at(1, f, i)) end
        """
    conf = content(code, "lua_max_pending_timers 3; lua_max_running_timers 2;")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"1\n1\n1\nniltoo many pending timers\n"
        await trio.sleep(5)
        assert notices(running.log) == ["1", "2"]
        ((level, text),) = [
            (level, text) for level, text in running.log.lines if "not enough" in text
        ]
        assert level == 2
        assert text == (
            "lua failed to run timer with function defined at =content_by_lua(nginx.conf:2):2: "
            "2 lua_max_running_timers are not enough"
        )


BAD_ARGUMENTS = [
    ("at()", "expecting at least 2 arguments but got 0"),
    ("every(1)", "expecting at least 2 arguments but got 1"),
    ("at('x', f)", "bad argument #1 to 'at' (number expected, got string)"),
    ("at(-1, f)", "bad argument #1 to 'at' (delay cannot be negative)"),
    ("every(0, f)", "delay cannot be zero"),
    ("every(0.0001, f)", "delay cannot be zero"),
    ("at(1, ngx.null)", "bad argument #2 to 'at' (Lua function expected)"),
    ("every(1, string.rep)", "bad argument #2 to 'every' (Lua function expected)"),
]


async def test_bad_arguments(serve: Serve) -> None:
    calls = (
        f"ngx.say(select(2, pcall(function() ngx.timer.{call} end)))" for call, _ in BAD_ARGUMENTS
    )
    code = "local f = function() end " + "\n".join(calls)
    async with serve(content(code)) as running:
        client = await running.connect()
        found = (await client.get("/"))[2].decode().splitlines()
        assert found == [
            f"content_by_lua(nginx.conf:2):{line}: {error}"
            for line, (_, error) in enumerate(BAD_ARGUMENTS, 1)
        ]


async def test_init_worker_and_other_phases(serve: Serve, autojump_clock: Clock) -> None:
    http = """
        init_worker_by_lua_block { ngx.timer.at(0, function() ngx.sleep(1) print("init worker") end) }
        exit_worker_by_lua_block { print(pcall(ngx.timer.at, 0, function() end)) }
        """
    conf = nginx(
        """location / {
            return 200 x;
            header_filter_by_lua_block { ngx.timer.at(2, function() print("filter") end) }
            log_by_lua_block { ngx.timer.at(1, function() print("log") end) }
        }""",
        http,
    )
    async with serve(conf) as running:
        client = await running.connect()
        await client.get("/")
        await trio.sleep(5)
        assert sorted(notices(running.log)) == ["filter", "init worker", "log"]
        running.worker.quit()
        await client.aclose()
        await trio.sleep(1)
        assert notices(running.log)[-1] == "falseAPI disabled in the context of exit_worker_by_lua*"


async def test_quitting_fires_what_waits_and_waits_for_what_runs(
    serve: Serve, autojump_clock: Clock
) -> None:
    code = """
        for i = 1, 3 do
            ngx.timer.at(1000 * i, function(premature)
                print(i, " ", premature, " ", ngx.worker.exiting())
                print(i, " ", ngx.timer.at(1, function() end))
                ngx.timer.at(0, function(premature) ngx.sleep(i) print(i, " at 0 ", premature) end)
            end)
        end
        ngx.say("ok")
        """
    async with serve(content(code)) as running:
        client = await running.connect()
        await client.get("/")
        await client.aclose()
        await trio.sleep(1)
        start = trio.current_time()
        running.worker.quit()
        await trio.sleep(10)
        assert running.worker.closed
        assert trio.current_time() - start == pytest.approx(10)
        expected = [
            line for i in (1, 2, 3) for line in (f"{i} true true", f"{i} nilprocess exiting")
        ]
        assert notices(running.log) == [*expected, *(f"{i} at 0 false" for i in (1, 2, 3))]


async def test_quitting_with_too_many_premature_timers(serve: Serve, autojump_clock: Clock) -> None:
    code = "for i = 1, 10 do ngx.timer.at(1000, function() print(i) ngx.sleep(1) end) end"
    async with serve(content(code, "lua_max_running_timers 2;")) as running:
        client = await running.connect()
        await client.get("/")
        await client.aclose()
        running.worker.quit()
        await trio.sleep(5)
        assert running.worker.closed
        assert notices(running.log) == ["1", "2"]


async def test_cancelling_the_worker(autojump_clock: Clock) -> None:
    http = """
        init_worker_by_lua_block {
            ngx.timer.at(0, function() ngx.sleep(100) print("no") end)
            ngx.timer.at(100, function() print("no") end)
        }
        """
    log = MemoryLog()
    async with trio.open_nursery() as nursery:
        worker = Worker(nginx("", http), error_log=log)
        await nursery.start(worker.run, [])
        await trio.sleep(1)
        assert worker.runtime.timers() == (1, 1)
        nursery.cancel_scope.cancel()
    assert notices(log) == []
    assert "left" not in log.text()
