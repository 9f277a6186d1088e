"""``memc_pass`` against a memcached of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from upstream import upstream

Open = Callable[..., Any]


class Memcached:
    """Knows as much of the protocol as the tests need."""

    def __init__(self) -> None:
        self.values: dict[bytes, tuple[bytes, bytes]] = {}
        self.lines: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n" not in received:
            data = await stream.receive_some()
            if not data:
                return
            received += data
        line, _, rest = received.partition(b"\r\n")
        self.lines.append(line)
        command, *words = line.split()
        if command in (b"set", b"add"):
            while len(rest) < int(words[3]) + 2:
                rest += await stream.receive_some()
            if command == b"add" and words[0] in self.values:
                await stream.send_all(b"NOT_STORED\r\n")
            else:
                self.values[words[0]] = words[1], rest[:-2]
                await stream.send_all(b"STORED\r\n")
        elif command == b"get" and words[0] in self.values:
            flags, value = self.values[words[0]]
            head = b"VALUE %b %b %d\r\n" % (words[0], flags, len(value))
            await stream.send_all(head + value + b"\r\nEND\r\n")
        elif command == b"get":
            await stream.send_all(b"END\r\n")
        elif command == b"delete":
            known = self.values.pop(words[0], None)
            await stream.send_all(b"DELETED\r\n" if known else b"NOT_FOUND\r\n")
        elif command == b"incr":
            await stream.send_all(b"42\r\n")
        elif command == b"stats":
            await stream.send_all(b"STAT a 1\r\nSTAT b 2\r\nEND\r\n")
        elif command == b"version":
            await stream.send_all(b"VERSION 1.6\r\n")
        elif command == b"flush_all":
            self.values.clear()
            await stream.send_all(b"OK\r\n")
        else:
            await stream.send_all(b"ERROR\r\n")


SITE = """
    location /m { set $memc_cmd $arg_cmd; set $memc_key $arg_key; set $memc_value $arg_value; set $memc_flags $arg_flags;
        memc_pass 127.0.0.1:PORT; header_filter_by_lua_block { ngx.header.Flags = ngx.var.memc_flags } }
    location /some { set $memc_cmd $arg_cmd; memc_cmds_allowed get set; memc_pass 127.0.0.1:PORT; }
    location /lua { content_by_lua_block {
        local res = ngx.location.capture("/m?key=x", { method = ngx.HTTP_PUT, body = "from Lua" })
        ngx.print(res.status, " ", res.body)
        ngx.print(ngx.location.capture("/m?key=x").body)
    } }
"""


async def test_commands(site: Open) -> None:
    memcached = Memcached()
    async with (
        upstream(memcached.serve) as peer,
        site(SITE.replace("PORT", str(peer.port))) as server,
    ):

        async def ask(path: str, method: str = "GET", body: str = "") -> tuple[int, str]:
            client = await server.connect()
            head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
            await client.send((head + body).encode())
            status, headers, text = await client.response(method)
            return status, text.decode() + headers.get("flags", "")

        assert (await ask("/m?key=a"))[0] == 404
        assert await ask("/m?key=a&cmd=set&value=one&flags=7") == (201, "STORED\r\n7")
        assert await ask("/m?key=a") == (200, "one7")
        assert memcached.lines[-2:] == [b"set a 7 0 3", b"get a"]
        assert await ask("/m?key=b", "PUT", "body") == (201, "STORED\r\n")
        assert await ask("/m?key=b") == (200, "body0")
        assert await ask("/m?key=b", "POST", "other") == (200, "NOT_STORED\r\n")
        assert await ask("/m?key=b", "DELETE") == (200, "DELETED\r\n")
        assert (await ask("/m?key=b", "DELETE"))[0] == 404
        assert await ask("/m?key=n&cmd=incr&value=2") == (200, "42\r\n")
        assert await ask("/m?cmd=stats") == (200, "STAT a 1\r\nSTAT b 2\r\nEND\r\n")
        assert await ask("/m?cmd=version") == (200, "VERSION 1.6\r\n")
        assert await ask("/m?cmd=flush_all") == (200, "OK\r\n")
        assert (await ask("/m?key=big", "PUT", "x" * 300000))[0] == 201
        assert await ask("/m?key=big") == (200, "x" * 300000 + "0")
        assert await ask("/m?key=empty", "PUT") == (201, "STORED\r\n")
        assert await ask("/m?key=empty") == (200, "0")
        assert await server.text("/lua") == "201 STORED\r\nfrom Lua"

        assert (await ask("/m?cmd=dance"))[0] == 400
        assert (await ask("/m?cmd=get"))[0] == 400
        assert (await ask("/m?key=a&cmd=set&flags=x"))[0] == 400
        assert (await ask("/m?key=a", "PATCH"))[0] == 400
        assert (await ask("/m?cmd=verbosity&value=1"))[0] == 502
        assert (await ask("/some?cmd=stats"))[0] == 403
        server.log.records.clear()


@pytest.mark.parametrize(
    ("pieces", "status", "message"),
    [
        ((b"nonsense\r\n",), 502, 'unexpected answer "nonsense"'),
        ((b"VALUE k 0 100\r\n", b"too short"), 200, "upstream prematurely closed connection"),
        ((), 502, "upstream prematurely closed connection"),
    ],
)
async def test_answers_that_are_wrong(
    site: Open, pieces: tuple[bytes, ...], status: int, message: str
) -> None:
    async def wrong(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        for piece in pieces:
            await stream.send_all(piece)

    async with upstream(wrong) as peer:
        text = f"location /m {{ set $memc_key k; memc_pass 127.0.0.1:{peer.port}; }}"
        async with site(text) as server:
            client = await server.connect()
            await client.send(b"GET /m HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            response = await client.rest()
            assert response.startswith(b"HTTP/1.1 %d " % status)
            if status == 200:
                # chunked, and without its end
                assert response.endswith(b"\r\n\r\n9\r\ntoo short\r\n")
            assert message in server.log.text(4)
            server.log.records.clear()


async def test_keys_are_escaped(site: Open) -> None:
    memcached = Memcached()
    async with upstream(memcached.serve) as peer:
        text = f"location /m {{ set $memc_key 'a b%'; memc_pass 127.0.0.1:{peer.port}; }}"
        async with site(text) as server:
            client = await server.connect()
            assert (await client.get("/m"))[0] == 404
            assert memcached.lines == [b"get a%20b%25"]


async def test_what_log_lines_say_is_done(site: Open) -> None:
    """It is said until the next request begins, as nginx does it."""
    text = """
        location /m { set $memc_key k; memc_pass 127.0.0.1:PORT; }
        location /plain { return 200 plain; }
        location /t { content_by_lua_block {
            ngx.location.capture("/m")
            ngx.log(ngx.ERR, "after memcached")
            ngx.location.capture("/plain")
            ngx.log(ngx.ERR, "after another")
        } }
    """
    async with (
        upstream(Memcached().serve) as peer,
        site(text.replace("PORT", str(peer.port))) as server,
    ):
        await server.text("/t")
        lines = [line.partition(", client")[0] for line in server.log.text().splitlines()]
        server.log.records.clear()
    assert [line[line.index("after") :] for line in lines if "after" in line] == [
        "after memcached while sending to client",
        "after another",
    ]
