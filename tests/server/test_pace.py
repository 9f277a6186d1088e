"""``limit_rate``: how fast responses go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from serving import nginx

Serve = Callable[..., Any]

_PAGES = """
    location / { limit_rate 1000; limit_rate_after 500; content_by_lua_block { ngx.print(("x"):rep(4000)) } }
    location /fast { content_by_lua_block { ngx.print(("x"):rep(4000)) } }
    location /text { limit_rate $arg_rate; return 200 "limited"; }
    location /set { set $limit_rate 1k; content_by_lua_block { ngx.print(("x"):rep(4000)) } }
    location /lua {
        limit_rate 1;
        content_by_lua_block {
            ngx.var.limit_rate = "2k"
            local rate = ngx.var.limit_rate
            ngx.var.limit_rate = "fast"
            ngx.print(rate, ("x"):rep(8000))
        }
    }
    location /flush { limit_rate 100; content_by_lua_block {
        for _ = 1, 4 do ngx.print(("x"):rep(100)) ngx.flush(true) end
    } }
    location /main { content_by_lua_block { ngx.print(#ngx.location.capture("/").body) } }
"""


async def _seconds(client: Any, path: str) -> tuple[float, bytes]:
    start = trio.current_time()
    status, _headers, body = await client.get(path)
    assert status == 200
    return trio.current_time() - start, body


async def test_rates(serve: Serve, autojump_clock: Any) -> None:
    async with serve(nginx(_PAGES)) as running:
        client = await running.connect()
        # what a second gives and limit_rate_after go at once
        seconds, body = await _seconds(client, "/")
        assert 2.5 < seconds < 3.5
        assert len(body) == 4000
        # the next response of the connection is as fast as it can be
        assert (await _seconds(client, "/fast"))[0] == 0
        assert 2.5 < (await _seconds(client, "/set"))[0] < 3.5
        seconds, body = await _seconds(client, "/lua")
        assert 2.5 < seconds < 4
        assert body.startswith(b"2048x")
        assert 'invalid $limit_rate "fast"' in running.log.text(4)
        assert 3 < (await _seconds(client, "/flush"))[0] < 6


async def test_values_of_each_request(serve: Serve, autojump_clock: Any) -> None:
    async with serve(nginx(_PAGES)) as running:
        client = await running.connect()
        assert (await _seconds(client, "/text?rate=20"))[0] > 5
        assert (await _seconds(client, "/text?rate=0"))[0] == 0
        assert (await _seconds(client, "/text?rate=x"))[0] == 0
        assert 'invalid size "x"' in running.log.text(4)


async def test_subrequests_have_no_pace(serve: Serve, autojump_clock: Any) -> None:
    async with serve(nginx(_PAGES)) as running:
        client = await running.connect()
        assert await _seconds(client, "/main") == (0, b"4000")


async def test_client_that_leaves(serve: Serve, autojump_clock: Any) -> None:
    async with serve(nginx(_PAGES)) as running:
        client = await running.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(1)
        await client.aclose()
        await trio.sleep(10)
        running.assert_nothing_left()
