"""Bounds on the time and the memory that Lua code uses without waiting."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio.testing
from serving import config, location, nginx

from trio_lua.api import guard
from trio_lua.config.model import Settings

Serve = Callable[..., Any]


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loop goes on until there were two samples."""
    monkeypatch.setattr(guard, "INTERVAL", 4)


SHAPES = {
    "while": "while true do end",
    "repeat": "local i = 0 repeat i = i + 1 until i < 0",
    "for": "for i = 1, 1e15 do end",
    "goto": "::a:: goto a",
    "iterator": "for _ in function() return 1 end do end",
    "recursion": "local function f(n) return n == 0 and 0 or 1 + f(n - 1) end while true do f(100) end",
    "tail-calls": "local function f() return f() end f()",
    "strings": "local s = '' while true do s = s .. 'x' if #s > 1000 then s = '' end end",
    "tables": "local t = {} while true do t[#t + 1] = 1 if #t > 1000 then t = {} end end",
    "metatable": """
        local t, x = setmetatable({}, { __index = function(_, k) return k end }), 0
        while true do x = x + t[1] end""",
    "ffi": "local a = require('ffi').new('int[9]') for i = 0, 1e15 do a[i % 9] = i end",
    "pcall": "while true do pcall(function() while true do end end) end",
    "pcall-of-error": "while true do pcall(error) end",
    "xpcall": "while true do xpcall(function() while true do end end, debug.traceback) end",
    "coroutines": """
        local function f() while true do end end
        while true do
            coroutine.resume(coroutine.create(function() coroutine.wrap(f)() end))
        end""",
    "yields": """
        local f = coroutine.wrap(function() while true do coroutine.yield() end end)
        while true do f() end""",
    "gsub": "while true do (('x'):rep(10)):gsub('x', function() return 'y' end) end",
    "sort": """
        while true do
            local t = {}
            for i = 1, 100 do t[i] = i end
            table.sort(t, function(a, b) return a > b end)
        end""",
    "regex": "while true do ngx.re.gsub('abc', 'b', function() return 'x' end) end",
    "time": "while true do ngx.update_time() ngx.now() end",
    "api": "while true do ngx.ctx.x = ngx.var.uri end",
    "user-threads": """
        while true do ngx.thread.wait(ngx.thread.spawn(function() while true do end end)) end""",
    # compiled, f is nothing that a hook could see
    "user-threads-of-user-threads": "local function f() ngx.thread.spawn(f) end f()",
    "nursery": """
        local trio = require "trio"
        trio.open_nursery(function(nursery)
            nursery:start_soon(function() while true do pcall(function() while true do end end) end end)
        end)""",
}


def locations(shapes: dict[str, str]) -> str:
    return "".join(
        f"location = /{name} {{ content_by_lua_block {{ {code} }} }}\n"
        for name, code in shapes.items()
    )


async def get(running: Any, path: str) -> tuple[int, bytes]:
    """The answer to a request on a new connection."""
    client = await running.connect()
    status, _, body = await client.get(path)
    await client.aclose()
    return status, body


async def test_endless_loops(serve: Serve) -> None:
    conf = nginx(f"""
        lua_cpu_budget 1ms;
        location = /ok {{ content_by_lua_block {{ ngx.say("ok") }} }}
        location = /waits {{ content_by_lua_block {{ ngx.sleep(0.001) ngx.say("ok") }} }}
        {locations(SHAPES)}""")
    async with serve(conf, guarded=True) as running:
        for name in SHAPES:
            waiting = await running.connect()
            await waiting.send(b"GET /waits HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await get(running, f"/{name}"))[0] == 500, name
            assert (await get(running, "/ok")) == (200, b"ok\n")
            assert (await waiting.response())[0] == 200
            await waiting.aclose()
            [(_, line)] = [record for record in running.log.lines if f"GET /{name} " in record[1]]
            found = re.match(
                r"lua entry thread aborted: runtime error: content_by_lua\(nginx.conf:\d+\):\d+: "
                r"interrupted: it has computed for (\S+) s without waiting \(lua_cpu_budget\)\n"
                r"stack traceback:\ncoroutine 0:\n\tcontent_by_lua\(nginx.conf:\d+\):\d+: in ",
                line,
            )
            assert found, line
            assert float(found[1]) >= 0.001
            running.log.clear()


async def test_it_can_be_repeated(serve: Serve) -> None:
    conf = nginx(f"lua_cpu_budget 1ms; {locations(SHAPES)}")
    async with serve(conf, guarded=True) as running:
        for _ in range(10):
            assert (await get(running, "/while"))[0] == 500
        assert running.worker.runtime.vm.export("live")() == (0, 0)


async def test_deferred_functions_run(serve: Serve) -> None:
    conf = nginx("""
        lua_cpu_budget 5ms;
        location / { content_by_lua_block {
            local trio = require "trio"
            trio.open_nursery(function()
                trio.defer(function() ngx.log(ngx.WARN, "cleaned up") end)
                while true do end
            end)
        } }""")
    async with serve(conf, guarded=True) as running:
        assert (await get(running, "/"))[0] == 500
        assert "cleaned up" in running.log.text(5)


async def test_phases_that_do_not_wait(serve: Serve) -> None:
    conf = nginx("""
        lua_cpu_budget 5ms;
        location /set { set_by_lua_block $x { while true do end } content_by_lua_block { ngx.say(1) } }
        location /filter { header_filter_by_lua_block { while true do end } content_by_lua_block { ngx.say(1) } }
        location /log { log_by_lua_block { while true do end } content_by_lua_block { ngx.say(1) } }
        location /timer { content_by_lua_block {
            ngx.timer.at(0, function() while true do end end)
            ngx.say(1)
        } }
        location /ok { content_by_lua_block { ngx.say("ok") } }""")
    async with serve(conf, guarded=True) as running:
        for name in ("set", "filter", "log", "timer"):
            client = await running.connect()
            await client.send(f"GET /{name} HTTP/1.0\r\n\r\n".encode())
            await client.rest()
            assert (await get(running, "/ok")) == (200, b"ok\n")
            if name == "timer":
                while "interrupted" not in running.log.text(4):
                    await trio.testing.wait_all_tasks_blocked()
            assert "interrupted: it has computed for" in running.log.text(4), name
            running.log.clear()


async def test_waiting_is_free(serve: Serve) -> None:
    """A handler may compute for as long as it likes, if it waits now and then."""
    conf = nginx("""
        lua_cpu_budget 40ms;
        location / { content_by_lua_block {
            for i = 1, 6 do
                local from = os.clock()
                while os.clock() - from < 0.01 do end
                ngx.sleep(0)
            end
            ngx.say("done")
        } }""")
    async with serve(conf, guarded=True) as running:
        assert (await get(running, "/")) == (200, b"done\n")
        assert running.log.text(4) == ""


async def test_a_line_for_what_is_slow(serve: Serve) -> None:
    conf = nginx("""
        lua_cpu_budget 0;
        lua_cpu_warning 10ms;
        location / { content_by_lua_block {
            local from = os.clock()
            while os.clock() - from < 0.05 do end
            ngx.say("done")
        } }""")
    async with serve(conf, guarded=True) as running:
        assert (await get(running, "/")) == (200, b"done\n")
        [line] = [line for level, line in running.log.lines if level == 5]
        assert re.match(
            r"Lua code of content_by_lua\* has computed for 0\.\d+ s without waiting, "
            r"it is at content_by_lua\(nginx.conf:5\):3, client: .*request: \"GET / ",
            line,
        ), line


async def test_memory(serve: Serve) -> None:
    conf = nginx(
        """
        location = /ok { content_by_lua_block { ngx.say("ok") } }
        location = /garbage { content_by_lua_block {
            collectgarbage("stop")
            for i = 1, 100000 do local s = "garbage that nobody needs " .. i end
            collectgarbage("restart")
            ngx.say("ok")
        } }
        location = /big { content_by_lua_block {
            local t = {}
            while true do t[#t + 1] = "what has to be kept " .. #t end
        } }""",
        http="lua_memory_limit 8m;",
    )
    async with serve(conf, guarded=True) as running:
        assert (await get(running, "/garbage")) == (200, b"ok\n")
        for _ in range(3):
            assert (await get(running, "/big"))[0] == 500
            assert (await get(running, "/ok")) == (200, b"ok\n")
        assert len(re.findall(r"interrupted: the VM has \d+ KB", running.log.text(4))) == 3


async def test_variables_of_what_was_interrupted_are_free(serve: Serve) -> None:
    """Whoever still refers to the coroutine."""
    conf = nginx("""
        lua_cpu_budget 1ms;
        location /kept { content_by_lua_block {
            package.loaded.seen = setmetatable({}, { __mode = "k" })
            package.loaded.kept = coroutine.running()
            local t = {}
            package.loaded.seen[t] = true
            while true do end
        } }
        location /seen { content_by_lua_block {
            collectgarbage()
            ngx.say(coroutine.status(package.loaded.kept), " ", next(package.loaded.seen))
        } }""")
    async with serve(conf, guarded=True) as running:
        assert (await get(running, "/kept"))[0] == 500
        assert await get(running, "/seen") == (200, b"dead nil\n")


async def test_without_bounds_nothing_is_watched(serve: Serve) -> None:
    settings = Settings(lua_cpu_budget=0, lua_cpu_warning=0)
    conf = config([location("/", "ngx.say(1)", settings)], settings=settings)
    before = signal.getitimer(signal.ITIMER_PROF)
    async with serve(conf, guarded=True) as running:
        assert (await get(running, "/"))[0] == 200
        assert signal.getitimer(signal.ITIMER_PROF) == before == (0.0, 0.0)


async def test_one_vm_of_a_process(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.say(1) } }")
    async with serve(conf, guarded=True), serve(conf, guarded=True) as second:
        text = "lua_cpu_budget has no effect: another VM of the process is watched"
        assert text in second.log.text()
    async with serve(conf, guarded=True) as third:
        assert "lua_cpu_budget" not in third.log.text()


async def test_a_program_that_uses_the_signal_itself(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.say(1) } }")
    before = signal.signal(signal.SIGPROF, lambda *_: None)
    try:
        async with serve(conf, guarded=True) as running:
            assert "the signal PROF is in use" in running.log.text()
    finally:
        signal.signal(signal.SIGPROF, before)
