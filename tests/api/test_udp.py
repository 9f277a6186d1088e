"""Datagram sockets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import trio
import trio.testing
from serving import nginx

Serve = Callable[..., Any]


@contextlib.asynccontextmanager
async def answering() -> AsyncIterator[int]:
    """A peer that sends each datagram back, but for b"silence"; its port."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))

        async def serve() -> None:
            while True:
                data, peer = await sock.recvfrom(65536)
                if data != b"silence":
                    await sock.sendto(data, peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield sock.getsockname()[1]
            nursery.cancel_scope.cancel()


async def run(serve: Serve, code: str, settings: str = "") -> tuple[list[str], str]:
    conf = nginx(f"location /t {{ {settings} content_by_lua_block {{ {code} }} }}")
    async with serve(conf) as running:
        client = await running.connect()
        status, _, data = await client.get("/t")
        assert status == 200, running.log.text()
        assert running.worker.runtime.datagrams.open == 0
        return data.decode().splitlines(), running.log.text(4)


async def test_datagrams(serve: Serve) -> None:
    async with answering() as port:
        code = f"""
            local sock = ngx.socket.udp()
            ngx.say(sock:setpeername("127.0.0.1", {port}))
            ngx.say(sock:send({{ "a", {{ 1, "b" }} }}), sock:receive())
            ngx.say(sock:send("hello"), sock:receive(3))
            ngx.say(sock:send(string.rep("x", 9000)), #sock:receive(10000))
            ngx.say(sock:send(""), sock:receive(), ".")
            ngx.say(sock:close())
            ngx.say(sock:close())
            ngx.say(sock:send("x"))
            ngx.say(sock:receive())
        """
        lines, log = await run(serve, code)
    assert lines == [
        "1",
        "1a1b",
        "1hel",
        "18192",
        "1.",
        "1",
        "nilclosed",
        "nilclosed",
        "nilclosed",
    ]
    assert "attempt to send data on a closed socket: u:" in log
    assert "attempt to receive data on a closed socket: u:" in log


async def test_timeouts(serve: Serve, autojump_clock: Any) -> None:
    async with answering() as port:
        code = f"""
            local sock = ngx.socket.udp()
            sock:setpeername("127.0.0.1", {port})
            sock:send("silence")
            ngx.say(sock:receive())
            sock:settimeout(10)
            ngx.say(sock:receive())
            sock:send("x")
            ngx.say(sock:receive())
        """
        lines, log = await run(serve, code, "lua_socket_read_timeout 5s;")
        assert lines == ["niltimeout", "niltimeout", "x"]
        assert log.count("lua udp socket read timed out") == 2


async def test_refused(serve: Serve) -> None:
    async with answering() as port:
        pass
    code = f"""
        local sock = ngx.socket.udp()
        sock:setpeername("127.0.0.1", {port})
        ngx.say(sock:send("x"))
        ngx.say(sock:receive())
    """
    lines, _ = await run(serve, code)
    assert lines == ["1", "nilconnection refused"]


async def test_peers(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(str(path))

        async def answer() -> None:
            data, peer = await sock.recvfrom(100)
            await sock.sendto(data * 2, peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            code = f"""
                local sock = ngx.socket.udp()
                ngx.say(sock:setpeername("unix:{path}"))
                sock:send("ab")
                ngx.say(sock:receive())
                ngx.say(sock:setpeername("unix:/nonexistent/socket"))
                ngx.say(sock:send("x"))
                ngx.say(sock:setpeername("127.0.0.1", 65536))
                ngx.say(sock:setpeername(":", 1))
                ngx.say(sock:bind("x"), sock:bind("127.0.0.1"))
                ngx.say(select(2, pcall(sock.setpeername, sock)))
            """
            lines, _ = await run(serve, code)
    assert lines == [
        "1",
        "abab",
        "nilno such file or directory",
        "nilclosed",
        "nilbad port number: 65536",
        'nilfailed to parse host name ":": invalid port',
        "niltrue",
        "ngx.socket.udp setpeername: expecting 2 or 3 arguments (including the object), but seen 1",
    ]


async def test_a_client_that_leaves(serve: Serve) -> None:
    async with answering() as port:
        code = f"""
            local sock = ngx.socket.udp()
            sock:setpeername("127.0.0.1", {port})
            sock:receive()
        """
        async with serve(nginx(f"location /t {{ content_by_lua_block {{ {code} }} }}")) as running:
            client = await running.connect()
            await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            datagrams = running.worker.runtime.datagrams
            assert datagrams.open == 1
            [conn] = running.worker.connections.values()
            conn.request.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert datagrams.open == 0
