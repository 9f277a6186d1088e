"""Everything that has to do with time follows the run's clock, and a run goes the same way every time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trio_lua.testing import (
    Client,
    LogRecords,
    Lua,
    LuaClock,
    LuaNetwork,
    LuaServer,
    configuration,
    open_server,
    run,
)
from trio_lua.testing.server import open_worker

HOUR = 3600


async def elapsed(lua: Lua, code: str) -> tuple[Any, float]:
    """What code returns, and how much virtual time it takes."""
    before = trio.current_time()
    return await lua.run(code), trio.current_time() - before


async def test_clocks(lua: Lua, lua_clock: LuaClock) -> None:
    code = """
    ngx.sleep(0.5)
    ngx.update_time()
    return ngx.now(), ngx.time(), ngx.today(), ngx.utctime(), ngx.http_time(ngx.time()), os.time(), os.date("!%H:%M:%S")
    """
    now, time, *texts = await lua.run(code)
    assert (now, time) == (lua_clock.epoch + 0.5, lua_clock.epoch)
    assert texts == [
        *("2023-11-14", "2023-11-14 22:13:20", "Tue, 14 Nov 2023 22:13:20 GMT"),
        *(lua_clock.epoch, "22:13:20"),
    ]
    lua_clock.jump(HOUR)
    assert await lua.run("ngx.update_time() return ngx.time()") == lua_clock.epoch + HOUR


@pytest.mark.lua(http_config="lua_shared_dict d 1m;")
async def test_keys_expire(lua: Lua) -> None:
    code = """
    local d = ngx.shared.d
    d:set("k", 1, 3600)
    ngx.sleep(3599)
    local before, left = d:get("k"), d:ttl("k")
    ngx.sleep(1.001)
    return before, left, d:get("k") == nil
    """
    assert await elapsed(lua, code) == ((1, 1, True), pytest.approx(3600.001))


async def test_semaphores_threads_and_deadlines(lua: Lua) -> None:
    code = """
    local sem = require("ngx.semaphore").new()
    local ok, err = sem:wait(HOUR)
    local th = ngx.thread.spawn(function() ngx.sleep(HOUR) return "slept" end)
    local _, result = ngx.thread.wait(th)
    local trio = require "trio"
    local scope = trio.move_on_after(HOUR, function() ngx.sleep(1e9) end)
    return err, result
    """.replace("HOUR", str(HOUR))
    assert await elapsed(lua, code) == (("timeout", "slept"), 3 * HOUR)


async def test_sockets_and_pools(lua: Lua, lua_network: LuaNetwork, lua_log: Any) -> None:
    lua_log.allow("timed out")
    peer = lua_network.silent("peer", 1)
    lua_network.timeout("nowhere", 1)
    code = """
    local sock = ngx.socket.tcp()
    sock:settimeouts(60000, 60000, 60000)
    local _, first = sock:connect("nowhere", 1)
    sock:connect("peer", 1)
    local _, second = sock:receive()
    sock:close()
    sock:connect("peer", 1)
    sock:setkeepalive(1000)
    ngx.sleep(0.9)
    sock:connect("peer", 1)
    local reused = sock:getreusedtimes()
    sock:setkeepalive(1000)
    ngx.sleep(1.1)
    sock:connect("peer", 1)
    local fresh = sock:getreusedtimes()
    sock:close()
    return first, second, reused, fresh
    """
    assert await elapsed(lua, code) == (("timeout", "timeout", 1, 0), pytest.approx(122))
    await trio.testing.wait_all_tasks_blocked()
    assert peer.accepted == 3


@pytest.mark.lua(
    config="""
    location / { content_by_lua_block {
        ngx.timer.at(3600, function() ngx.log(ngx.WARN, "fired at ", ngx.now()) end)
        ngx.sleep(7200)
        ngx.say(ngx.now() - ngx.req.start_time(), " ", ngx.var.request_time)
    } }
    location /body { client_body_timeout 60s; content_by_lua_block { ngx.req.read_body() } }
    """
)
async def test_servers(lua_server: LuaServer, lua_log: Any, lua_clock: LuaClock) -> None:
    assert (await lua_server.get("/")).text == "7200 7200.000\n"
    assert f"fired at {lua_clock.epoch + HOUR:.0f}" in lua_log
    # timeouts of the server itself
    before = trio.current_time()
    async with lua_server.client.stream() as stream:
        await stream.send_all(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        assert b" 408 " in bytes(await stream.receive_some()) or trio.current_time() - before == 60
    assert trio.current_time() - before == 60


async def test_times_in_logs(make_lua_server: Any, lua_log: Any, lua_clock: LuaClock) -> None:
    server = await make_lua_server(
        config="""
        access_log access.log;
        location / { content_by_lua_block { ngx.sleep(3600) ngx.log(ngx.WARN, "late") } }
        """
    )
    await server.get("/")
    [record] = lua_log.matching("late")
    assert record.time == lua_clock.epoch + 3600
    # whatever the time zone
    assert re.search(r"1[45]/Nov/2023:\d\d:13:20 ", server.access_logs["access.log"][0])


async def test_times_in_files(tmp_path: Path, lua_clock: LuaClock) -> None:
    conf = configuration(
        config=f"""
        error_log {tmp_path}/error.log info;
        location / {{ content_by_lua_block {{ ngx.sleep(3600) ngx.log(ngx.WARN, "late") }} }}
        """
    )
    async with open_worker(conf, log=LogRecords(), epoch=lua_clock.epoch) as worker:
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(b"GET / HTTP/1.0\r\n\r\n")
        await worker.serve_stream(theirs)
    assert re.search(r":13:20 \[warn\] .* late", (tmp_path / "error.log").read_text())


def test_twice_is_the_same() -> None:
    """A cache that expires after an hour, under many requests at the same time."""

    async def main(clock: LuaClock) -> str:
        code = """
        lua_shared_dict cache 1m;
        """
        config = """
        location / { content_by_lua_block {
            local cache = ngx.shared.cache
            local page = cache:get(ngx.var.arg_n)
            if not page then
                ngx.thread.wait(ngx.thread.spawn(function() ngx.sleep(0.1) end))
                cache:set(ngx.var.arg_n, "page", 3600)
                ngx.log(ngx.WARN, "made ", ngx.var.arg_n, " at ", ngx.now())
            end
            ngx.say(page)
        } }
        """
        async with open_server(clock=clock, http_config=code, config=config) as server:

            async def get(client: Client, n: int) -> None:
                await client.get(f"/?n={n}")

            for _ in range(2):
                async with trio.open_nursery() as nursery:
                    for number in range(10):
                        nursery.start_soon(get, server.client, number % 7)
                await trio.sleep(HOUR + 1)
            return str(server.log)

    logs = []
    for _ in range(2):
        clock = LuaClock()
        logs.append(run(main, clock, clock=clock))
    assert logs[0] == logs[1]
    assert logs[0].count("made 3 at") == 2
