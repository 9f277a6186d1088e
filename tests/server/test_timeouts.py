"""Clients that are too slow, on virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import trio
from serving import nginx

Serve = Callable[..., Any]

SITE = """
    client_header_timeout 7s; client_body_timeout 5s; keepalive_timeout 9s; send_timeout 3s;
    lingering_time 12s; lingering_timeout 4s;
    location /hello { content_by_lua_block { ngx.say("hello") } }
    location /read { content_by_lua_block { ngx.req.read_body() ngx.say("read") } }
    location /much { content_by_lua_block {
        local ok, err
        for _ = 1, 1000 do
            ok, err = ngx.print(("x"):rep(65536))
            if ok then ok, err = ngx.flush(true) end
            if not ok then break end
        end
        ngx.log(ngx.WARN, "stopped: ", err)
    } }
    location /refused { client_max_body_size 1; content_by_lua_block { } }
"""


def near(seconds: float) -> Any:
    # the sweeper of idle connections looks every half second
    return pytest.approx(seconds, abs=1.1)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.1)


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET /hello HTTP/1.1\r\nHost: a\r\n"])
async def test_head(serve: Serve, autojump_clock: Any, sent: bytes) -> None:
    async with serve(nginx(SITE)) as running:
        client = await running.connect()
        if sent:
            await client.send(sent)
        start = trio.current_time()
        assert await client.rest() == b""
        assert trio.current_time() - start == near(7)
        assert "client timed out" in running.log.text(7)


async def test_head_in_drops_does_not_gain_time(serve: Serve, autojump_clock: Any) -> None:
    async with serve(nginx(SITE)) as running:
        client = await running.connect()
        start = trio.current_time()
        with contextlib.suppress(trio.BrokenResourceError):
            for byte in b"GET /hello HTTP/1.1\r\nHost: " + b"a" * 100:
                await client.send(bytes([byte]))
                await trio.sleep(0.5)
        assert trio.current_time() - start == near(7)


async def test_keep_alive(serve: Serve, autojump_clock: Any) -> None:
    async with serve(nginx(SITE)) as running:
        client = await running.connect()
        assert (await client.get("/hello"))[0] == 200
        await trio.sleep(6)
        assert (await client.get("/hello"))[0] == 200
        start = trio.current_time()
        assert await client.rest() == b""
        assert trio.current_time() - start == near(9)


async def test_body(serve: Serve, autojump_clock: Any) -> None:
    async with serve(nginx(SITE)) as running:
        client = await running.connect()
        await client.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1")
        # each piece has the time of its own
        for _ in range(3):
            await trio.sleep(4)
            await client.send(b"2")
        start = trio.current_time()
        assert await client.rest() == b""
        assert trio.current_time() - start == near(5)
        # of this nginx writes no line
        assert "timed out" not in running.log.text(7)


async def test_reader_that_does_not_read(serve: Serve, autojump_clock: Any) -> None:
    async with serve(nginx(SITE)) as running:
        client = await running.connect(slow=True)
        start = trio.current_time()
        await client.send(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: "stopped" in running.log.text())
        assert trio.current_time() - start == near(3)


async def test_lingering_ends_with_a_silent_client(serve: Serve, autojump_clock: Any) -> None:
    async with serve(nginx(SITE)) as running:
        client = await running.connect()
        await client.send(b"POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n123")
        assert (await client.response())[0] == 413
        start = trio.current_time()
        await until(lambda: not running.worker.connections)
        assert trio.current_time() - start == near(4)


async def test_lingering_ends_with_a_client_that_does_not_end(
    serve: Serve, autojump_clock: Any
) -> None:
    async with serve(nginx(SITE)) as running:
        client = await running.connect()
        await client.send(b"POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n123")
        assert (await client.response())[0] == 413
        start = trio.current_time()
        while running.worker.connections:
            await trio.sleep(1)
            try:
                await client.send(b"4")
            except trio.BrokenResourceError:
                break
        assert trio.current_time() - start == near(12)
