"""Cosockets and peers that do not behave: each has its own error, and nothing is left behind."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from serving import nginx, row
from upstream import silent, upstream

from trio_lua.net.errors import SocketError
from trio_lua.net.network import SystemNetwork

Serve = Callable[..., Any]


class Strange(SystemNetwork):
    """Connections to 127.0.0.2 are never made, no name is known, and 127.0.0.3 cannot be reached."""

    def connect(self, address: Any, local: Any) -> tuple[socket.socket, bool]:
        if address[1][0] == "127.0.0.3":
            # the system's own answer to an address of this kind
            address = (address[0], ("255.255.255.255", address[1][1]))
        return super().connect(address, local)

    async def connected(self, sock: socket.socket, address: Any) -> None:
        if address[1][0] == "127.0.0.2":
            await trio.sleep_forever()
        await super().connected(sock, address)


async def ask(serve: Serve, code: str, **options: Any) -> tuple[list[str], str]:
    """The lines that a handler says, and the error log; its sockets are gone afterwards."""
    async with serve(
        nginx(f"location / {{ content_by_lua_block {{ {code} }} }}"), **options
    ) as running:
        client = await running.connect()
        status, _, body = await client.get("/")
        assert status == 200, running.log.text()
        assert running.worker.runtime.sockets.open == 0
        return body.decode().splitlines(), running.log.text(4)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_refused(serve: Serve) -> None:
    port = free_port()
    lines, log = await ask(serve, f'ngx.say(ngx.socket.connect("127.0.0.1", {port}))')
    assert lines == ["nilconnection refused"]
    assert f"connect() to 127.0.0.1:{port} failed (111: Connection refused)" in log or (
        "connect() failed (111: Connection refused)" in log
    )


async def test_unreachable(serve: Serve) -> None:
    code = 'ngx.say(ngx.socket.connect("127.0.0.3", 9))'
    lines, log = await ask(serve, code, network=Strange())
    assert lines == ["nilnetwork is unreachable"]
    assert "(101: Network is unreachable)" in log


async def test_name_not_found(serve: Serve) -> None:
    class Nameless(SystemNetwork):
        def resolver(self, words: Any) -> Any:
            return self

        async def resolve(self, name: str) -> Any:
            raise SocketError(f"{name} could not be resolved (3: Host not found)")

    code = 'ngx.say(ngx.socket.connect("no.such.name", 9))'
    lines, _ = await ask(serve, code, network=Nameless())
    assert lines == ["nilno.such.name could not be resolved (3: Host not found)"]


async def test_timeout_of_connect(serve: Serve, autojump_clock: Any) -> None:
    code = """
        local sock = ngx.socket.tcp()
        sock:settimeouts(3000, 1, 1)
        local start = ngx.now()
        ngx.say(sock:connect("127.0.0.2", 9))
        ngx.update_time()
        ngx.say(math.floor(ngx.now() - start + 0.5))
        ngx.say(sock:send("x"))
    """
    async with upstream(silent) as peer:
        lines, log = await ask(serve, code.replace("9)", f"{peer.port})"), network=Strange())
    assert lines == ["niltimeout", "3", "nilclosed"]
    assert "lua tcp socket connect timed out, when connecting to 127.0.0.2:" in log


async def test_timeouts_of_send_and_receive(serve: Serve, autojump_clock: Any) -> None:
    async def deaf(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    code = """
        local sock = ngx.socket.connect("127.0.0.1", %d)
        sock:settimeouts(1, 2000, 3000)
        ngx.say(sock:receive())
        ngx.say(sock:send(string.rep("x", 64 * 1024 * 1024)))
        ngx.say(sock:send("x"))
    """
    async with upstream(deaf) as peer:
        start = trio.current_time()
        lines, log = await ask(serve, code % peer.port)
        assert trio.current_time() - start == pytest.approx(5, abs=0.5)
    assert lines == ["niltimeout", "niltimeout", "nilclosed"]
    assert "lua tcp socket read timed out" in log
    assert "lua tcp socket write timed out" in log


async def test_reset(serve: Serve) -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await stream.send_all(b"ab")
        await stream.receive_some(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    code = """
        local sock = ngx.socket.connect("127.0.0.1", %d)
        ngx.say(sock:receive(2))
        sock:send("x")
        ngx.say(sock:receive())
        ngx.say(sock:receive())
        ngx.say(sock:setkeepalive())
    """
    async with upstream(reset) as peer:
        lines, log = await ask(serve, code % peer.port)
    assert lines == ["ab", "nilconnection reset by peer", "nilclosed", "nilclosed"]
    assert "recv() failed (104: Connection reset by peer)" in log


async def test_one_byte_a_second(serve: Serve, autojump_clock: Any) -> None:
    async def slow(stream: trio.SocketStream) -> None:
        for byte in b"0123456789\n":
            await trio.sleep(1)
            await stream.send_all(bytes((byte,)))

    code = """
        local sock = ngx.socket.connect("127.0.0.1", %d)
        sock:settimeout(1500)
        ngx.say(sock:receive())
        sock:settimeout(500)
        ngx.say(sock:receive())
    """
    async with upstream(slow) as peer:
        lines, _ = await ask(serve, code % peer.port)
        # each byte in time, so the line comes; nothing more does
        assert lines == ["0123456789", "nilclosed"]
        lines, _ = await ask(serve, (code % peer.port).replace("1500", "900"))
    assert lines[0] == "niltimeout"


async def test_half_closed(serve: Serve) -> None:
    heard = b""

    async def half(stream: trio.SocketStream) -> None:
        nonlocal heard
        await stream.send_all(b"last words")
        await stream.send_eof()
        async for data in stream:
            heard += data

    code = """
        local sock = ngx.socket.connect("127.0.0.1", %d)
        ngx.say(sock:receive())
        ngx.say(sock:send("still here"))
        ngx.say(sock:receive())
        ngx.say(sock:close())
    """
    async with upstream(half) as peer:
        lines, _ = await ask(serve, code % peer.port)
        await trio.testing.wait_all_tasks_blocked()
    assert lines == ["nilclosedlast words", "10", "nilclosed", "1"]
    assert heard == b"still here"


async def test_100_megabytes_without_a_newline(serve: Serve) -> None:
    piece = bytes(1024 * 1024)
    sent = 0

    async def endless(stream: trio.SocketStream) -> None:
        nonlocal sent
        for _ in range(100):
            await stream.send_all(piece)
            sent += len(piece)

    code = """
        local sock = ngx.socket.connect("127.0.0.1", %d)
        local function read()
            local line, err, partial = sock:receive()
            return tostring(line) .. err .. #partial
        end
        ngx.say(read())
        local data, err = sock:receiveany(10)
        ngx.say(#data, err)
        sock:close()
        -- LuaJIT halves its own buffer each time
        for _ = 1, 8 do collectgarbage() end
        ngx.say(collectgarbage("count") < 20000)
    """
    async with upstream(endless) as peer:
        lines, _ = await ask(serve, code % peer.port)
    limit = 64 * 1024 * 1024
    assert lines[0].startswith("nilline too long")
    assert limit < int(lines[0].removeprefix("nilline too long")) < limit + 1024 * 1024
    assert lines[1:] == ["10nil", "true"]
    assert sent < 80 * 1024 * 1024


WRONG_ARGUMENTS = [
    (
        "sock.connect()",
        "ngx.socket connect: expecting 2, 3, or 4 arguments (including the object), but seen 0",
    ),
    ("sock:connect({}, 1)", "bad argument #1 to 'connect' (string expected, got table)"),
    ("sock:connect(nil, 1)", "bad argument #1 to 'connect' (string expected, got nil)"),
    ("sock:connect('a', 1, { pool_size = 0 })", 'bad "pool_size" option value: 0'),
    ("sock:connect('a', 1, { pool = {} })", 'bad "pool" option type: table'),
    ("sock:send()", "expecting 2 arguments (including the object), but got 1"),
    ("sock:send(print)", "string, number, boolean, nil, or array table expected, got function"),
    ("sock:send({ a = 1 })", "non-array table found"),
    ("sock:receive('*x')", "bad pattern argument"),
    ("sock:receive(-1)", "bad pattern argument"),
    ("sock:receiveany(0)", "bad max argument"),
    ("sock:receiveuntil({})", "string expected, got table"),
    ("sock:receiveuntil('x', { inclusive = 1 })", 'bad "inclusive" option value type: number'),
    ("sock:settimeout(-1)", "bad timeout value"),
    ("sock:settimeouts(1)", "expecting 4 arguments (including the object) but seen 2"),
    ("sock:setkeepalive('x')", "number expected, got string"),
    ("sock:setkeepalive(1, -1)", 'bad "pool_size" option value: -1'),
    ("sock:bind({})", "string expected, got table"),
    ("sock:close(1)", "expecting 1 argument (including the object) but seen 2"),
    ("sock.send(1, 'x')", "table expected, got number"),
    ("ngx.socket.tcp(1)", "expecting zero arguments, but got 1"),
]


async def test_wrong_arguments(serve: Serve) -> None:
    async with upstream(silent) as peer:
        start = f'local sock = ngx.socket.connect("127.0.0.1", {peer.port})'
        calls = (
            f"do {start} ngx.say(select(2, pcall(function() {code} end))) end "
            for code, _ in WRONG_ARGUMENTS
        )
        lines, _ = await ask(serve, "".join(calls))
    for line, (code, error) in zip(lines, WRONG_ARGUMENTS, strict=True):
        with row(code):
            assert error in line
