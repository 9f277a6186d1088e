"""The list of Lua threads, and the names of those that a stop has cancelled."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from serving import MemoryLog, nginx, serve

from trio_lua.debug import Thread, dump_threads, threads

__all__ = ["serve"]

Serve = Callable[..., Any]
Clock = trio.testing.MockClock

CODE = """
    local sem = require("ngx.semaphore").new()
    ngx.thread.spawn(function()
        sem:wait(20)
    end)
    ngx.thread.spawn(function()
        local co = coroutine.create(function()
            coroutine.resume(coroutine.create(function()
                ngx.sleep(20)
            end))
        end)
        ngx.sleep(1)
        coroutine.resume(co)
    end)
    ngx.thread.wait(ngx.thread.spawn(function()
        ngx.location.capture("/sub")
    end))
"""

CONF = nginx(f"""
    location / {{ content_by_lua_block {{ {CODE} }} }}
    location /sub {{ content_by_lua_block {{ ngx.sleep(10) }} }}
    location /timer {{ content_by_lua_block {{ ngx.timer.at(0, function() ngx.sleep(10) end) }} }}
""")


def mine(found: list[Thread]) -> dict[str, Thread]:
    return {thread.place.rpartition(":")[2] + " " + thread.owner: thread for thread in found}


async def test_threads(serve: Serve, autojump_clock: Clock) -> None:
    async with serve(CONF) as running:
        client, other = await running.connect(), await running.connect()
        await other.get("/timer")
        await client.send(b"GET /?x HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.sleep(2)
        found = threads(running.worker.runtime)
        assert set(found) <= set(threads())
        assert [(t.kind, t.owner, t.state) for t in found] == [
            ("entry", "ngx.timer", "sleeping"),
            ("entry", "GET /?x", "waiting for threads"),
            ("user", "GET /?x", "waiting for a semaphore"),
            ("user", "GET /?x", "sleeping"),
            ("user", "GET /?x", "waiting for an operation"),
            ("entry", "subrequest /sub", "sleeping"),
        ]
        by_line = mine(found)
        nested = by_line["9 GET /?x"]
        assert nested.age == pytest.approx(2, abs=0.1)
        assert nested.traceback.count("coroutine") >= 3
        assert "coroutine 0:\n\t[C]: in function 'sleep'\n\t" in nested.traceback
        assert nested.place.startswith("content_by_lua(nginx.conf:")
        assert by_line["4 GET /?x"].state == "waiting for a semaphore"
        assert str(nested).startswith(f"user thread {nested.number} of GET /?x at content_by_lua(")

        log = MemoryLog()
        dump_threads(log)
        assert "6 Lua threads" in log.text() or len(threads()) > 6
        assert str(nested) in log.text()
        await trio.sleep(20)
        assert threads(running.worker.runtime) == []


async def test_a_stop_that_takes_too_long(serve: Serve, autojump_clock: Clock) -> None:
    async with serve(dataclasses.replace(CONF, worker_shutdown_timeout=5.0)) as running:
        client, other = await running.connect(), await running.connect()
        await other.get("/timer")
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.sleep(2)
        started = trio.current_time()
        running.worker.quit()
        assert await client.rest() == b""
        await trio.lowlevel.checkpoint()
        assert trio.current_time() - started == pytest.approx(5, abs=0.1)
        lines = [text for level, text in running.log.lines if level == 4]
        assert len(lines) == 6
        assert all(text.startswith("cancelled ") for text in lines)
        assert "entry thread" in lines[0]
        assert "context: ngx.timer" in lines[0]
        assert 'request: "GET / HTTP/1.1"' in lines[1]
        await trio.sleep(1)
        assert running.worker.closed


@pytest.mark.parametrize("serve", ["task"], indirect=True)  # sockets would need 2,000 descriptors
async def test_a_stop_under_load(serve: Serve, autojump_clock: Clock) -> None:
    """1,000 requests and 1,000 timers that sleep; each is named when the time is over."""
    conf = nginx(
        """
        location / { content_by_lua_block {
            ngx.timer.at(0, function()
                ngx.sleep(1000)
            end)
            ngx.sleep(1000)
        } }""",
        http="lua_max_running_timers 1000; lua_max_pending_timers 1000;",
    )
    conf = dataclasses.replace(conf, worker_shutdown_timeout=5.0, worker_connections=2000)
    async with serve(conf) as running:
        for number in range(1000):
            client = await running.connect()
            await client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        await trio.sleep(2)
        started = trio.current_time()
        running.worker.quit()
        await client.rest()
        assert trio.current_time() - started == pytest.approx(5, abs=0.1)
        lines = [text for level, text in running.log.lines if level == 4]
        pattern = re.compile(
            r"cancelled entry thread \d+ of (GET /\d+|ngx.timer) at content_by_lua\(nginx.conf:3\):(\d), "
            r"sleeping, age \d\.\d+ s: the time to shut down is over"
        )
        named = [match.groups() for text in lines if (match := pattern.match(text))]
        assert named.count(("ngx.timer", "3")) == 1000
        assert {owner for owner, line in named if line == "5"} == {f"GET /{i}" for i in range(1000)}
        assert len(lines) == 2000


async def test_a_stop_in_time(serve: Serve, autojump_clock: Clock) -> None:
    async with serve(dataclasses.replace(CONF, worker_shutdown_timeout=500.0)) as running:
        client = await running.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.sleep(2)
        running.worker.quit()
        assert b"200 OK" in await client.rest()
        assert trio.current_time() < 200
        assert running.log.text(4) == ""
