"""Deadlines of requests: lua_request_timeout and ngx.req.set_deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from serving import nginx, row, serve

__all__ = ["serve"]

Serve = Callable[..., Any]
Clock = trio.testing.MockClock

LINE = "the request has not ended by its deadline, "


async def ask(serve: Serve, conf: Any, path: str = "/") -> tuple[int, bytes, str]:
    """Status and body of the answer, and the error log."""
    async with serve(conf) as running:
        client = await running.connect()
        status, _, body = await client.get(path)
        return status, body, running.log.text(4)


WAITS = {
    "sleep": "ngx.sleep(100)",
    "endless": "while true do ngx.sleep(0.3) end",
    "swallowing": "while true do pcall(function() ngx.sleep(0.3) end) end",
    "coroutine": "coroutine.wrap(function() while true do ngx.sleep(0.3) end end)()",
    "thread": "ngx.thread.spawn(function() ngx.sleep(100) end)",
    "threads": "local f = function() ngx.sleep(100) end ngx.thread.wait(ngx.thread.spawn(f)) f()",
    "semaphore": "require('ngx.semaphore').new():wait(100)",
    "body": "ngx.req.read_body()",
    "subrequest": "ngx.location.capture('/sleep100')",
    "shielded": "local s = require('trio').CancelScope() s.shield = true s:run(function() ngx.sleep(100) end)",
    "python": "require('python.m').wait()",
}
SUB = "location /sleep100 { content_by_lua_block { ngx.sleep(100) } }"


async def test_what_waits_is_cancelled(serve: Serve, autojump_clock: Clock) -> None:
    ended: list[float] = []

    async def wait() -> None:
        try:
            await trio.sleep(100)
        finally:
            ended.append(trio.current_time())

    locations = "".join(
        f"""
        location /{name}/timeout {{ lua_request_timeout 1s; content_by_lua_block {{ {code} }} }}
        location /{name}/call {{ content_by_lua_block {{ ngx.req.set_deadline(1) {code} }} }}
        """
        for name, code in WAITS.items()
    )
    async with serve(nginx(locations + SUB).expose("m.wait", wait)) as running:
        for path in (f"/{name}/{way}" for name in WAITS for way in ("timeout", "call")):
            with row(path):
                running.log.clear()
                client = await running.connect()
                begin = trio.current_time()
                status, _, body = await client.get(
                    path, "Content-Length: 5" if "body" in path else "X: y"
                )
                assert status == 504
                assert b"504 Gateway Time-out" in body
                assert trio.current_time() - begin == pytest.approx(1, abs=0.1)
                assert running.log.text(4).count(LINE) == 1
    assert len(ended) == 2


async def test_a_begun_response_is_cut_off(serve: Serve, autojump_clock: Clock) -> None:
    conf = nginx("""location / {
        lua_request_timeout 5s;
        content_by_lua_block { ngx.say("begun") ngx.flush(true) ngx.sleep(100) ngx.say("never") }
    }""")
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = await client.rest()
        assert data.endswith(b"6\r\nbegun\n\r\n")
        assert trio.current_time() == pytest.approx(5, abs=0.1)
        assert LINE in running.log.text(4)


async def test_what_is_in_time_is_not_touched(serve: Serve, autojump_clock: Clock) -> None:
    conf = nginx("""
        lua_request_timeout 5s;
        location / { content_by_lua_block {
            ngx.sleep(2)
            ngx.thread.wait(ngx.thread.spawn(function() ngx.sleep(1) end))
            ngx.say(#ngx.req.get_headers()["Host"])
        } }
        location /at_once { content_by_lua_block { ngx.say(1) } }""")
    async with serve(conf) as running:
        client = await running.connect()
        for path in ("/", "/at_once", "/"):
            assert (await client.get(path))[0] == 200
        await trio.sleep(10)
        assert LINE not in running.log.text()
        assert running.worker.runtime.vm.export("next_turn")() is None


async def test_it_holds_for_all_handlers_together(serve: Serve, autojump_clock: Clock) -> None:
    conf = nginx("""location / {
        lua_request_timeout 5s;
        rewrite_by_lua_block { ngx.sleep(2) }
        access_by_lua_block { ngx.sleep(2) }
        content_by_lua_block { ngx.sleep(2) ngx.say(1) }
    }""")
    status, _, log = await ask(serve, conf)
    assert status == 504
    assert "5.000 s after its beginning" in log
    conf = nginx("""location / {
        rewrite_by_lua_block { ngx.req.set_deadline(5) ngx.sleep(4) }
        content_by_lua_block { ngx.sleep(2) ngx.say(1) }
    }""")
    assert (await ask(serve, conf))[0] == 504


async def test_the_deadline_can_be_moved(serve: Serve, autojump_clock: Clock) -> None:
    conf = nginx("""location / {
        lua_request_timeout 5s;
        content_by_lua_block {
            ngx.sleep(3)
            ngx.req.set_deadline(10)
            ngx.sleep(8)
            ngx.req.set_deadline(nil)
            ngx.sleep(12)
            ngx.say(1)
        }
    }""")
    assert (await ask(serve, conf))[0] == 200
    conf = nginx(
        "location / { content_by_lua_block { ngx.sleep(1) ngx.req.set_deadline(0) ngx.sleep(1) } }"
    )
    assert (await ask(serve, conf))[0] == 504


async def test_error_page(serve: Serve, autojump_clock: Clock) -> None:
    conf = nginx("""
        error_page 504 = /late;
        location / { lua_request_timeout 5s; content_by_lua_block { ngx.sleep(100) } }
        location /late { content_by_lua_block { ngx.sleep(1) ngx.say("later") } }""")
    assert (await ask(serve, conf))[:2] == (200, b"later\n")


async def test_client_abort_and_deadline(serve: Serve, autojump_clock: Clock) -> None:
    conf = nginx("""
        lua_check_client_abort on;
        location / { lua_request_timeout 5s; content_by_lua_block { ngx.sleep(100) } }""")
    assert (await ask(serve, conf))[0] == 504


async def test_deferred_functions_run(serve: Serve, autojump_clock: Clock) -> None:
    conf = nginx("""location / { lua_request_timeout 5s; content_by_lua_block {
        local trio = require "trio"
        trio.open_nursery(function(nursery)
            trio.defer(ngx.log, ngx.ERR, "cleaned up")
            nursery:start_soon(ngx.sleep, 100)
        end)
    } }""")
    status, _, log = await ask(serve, conf)
    assert status == 504
    assert "cleaned up" in log


async def test_mistakes(serve: Serve) -> None:
    conf = nginx("""location / { content_by_lua_block {
        ngx.say(select(2, pcall(ngx.req.set_deadline, "x")))
        ngx.say(select(2, pcall(ngx.req.set_deadline, -1)))
        ngx.say(select(2, pcall(ngx.req.set_deadline, 0/0)))
    } header_filter_by_lua_block {
        ngx.header.x = select(2, pcall(ngx.req.set_deadline, 1))
    } }""")
    async with serve(conf) as running:
        client = await running.connect()
        _, headers, body = await client.get("/")
        first, second, third = body.decode().splitlines()
        assert first == "bad argument #1 to 'set_deadline' (number expected, got string)"
        assert second == third == "the deadline must not be negative"
        assert headers["x"] == "API disabled in the context of header_filter_by_lua*"
