"""Which servers a connection is for, and how the short way learns it."""

from __future__ import annotations

import socket
from typing import Any

import trio
from serving import Client, MemoryLog

from trio_lua.config.nginx import loads
from trio_lua.server.worker import Worker

CONF = """
events {}
http {
    access_log off; keepalive_requests 5000;
    server { listen 8000; location / { content_by_lua_block { ngx.print("any") } } }
    server { listen 127.0.0.1:8000; location / { content_by_lua_block { ngx.print("own") } } }
    server { listen 8001; server_name a; location / { content_by_lua_block { ngx.print("a") } } }
    server { listen 8001; server_name b; location / { content_by_lua_block { ngx.print("b") } } }
    server {
        listen 8001; server_name ~^(\\w)\\d$;
        location / { content_by_lua_block { ngx.print("regex ", ngx.var[1] or "none") } }
    }
}
"""


async def ask(client: Client, host: str) -> bytes:
    await client.send(f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return (await client.response())[2]


async def test_a_wildcard_socket_serves_the_addresses_of_its_port() -> None:
    config = loads(CONF)
    wildcard = config.http.servers[0].listens[0]
    with socket.create_server(("0.0.0.0", 0)) as listening:
        port = listening.getsockname()[1]
        async with trio.open_nursery() as nursery:
            worker = Worker(config, error_log=MemoryLog())
            await nursery.start(worker.run, [(wildcard, listening.dup())])
            for address, answer in (("127.0.0.1", b"own"), ("127.0.0.2", b"any")):
                client = Client(await trio.open_tcp_stream(address, port))
                assert await ask(client, "x") == answer
                await client.aclose()
            nursery.cancel_scope.cancel()


async def test_servers_by_name_stay_apart(serve: Any) -> None:
    config = loads(CONF)
    listen = config.http.servers[2].listens[0]
    async with serve(config) as running:
        client = await running.connect(listen)
        # each name twice and more: the second answer comes by what was learned from the first
        for _ in range(3):
            assert [await ask(client, host) for host in ("a", "b", "A", "nobody")] == [
                b"a",
                b"b",
                b"a",
                b"a",
            ]
            assert [await ask(client, host) for host in ("x1", "y2")] == [b"regex x", b"regex y"]


async def test_many_names_do_not_fill_the_memory(serve: Any) -> None:
    config = loads(CONF)
    listen = config.http.servers[2].listens[0]
    async with serve(config) as running:
        client = await running.connect(listen)
        for number in range(1100):
            assert await ask(client, f"host-{number}") == b"a"
        assert await ask(client, "b") == b"b"


async def test_heads_above_the_buffers_are_measured(serve: Any) -> None:
    config = loads(
        "events {} http { access_log off; server { client_header_buffer_size 512;"
        "large_client_header_buffers 2 1k; location / { return 200 ok; } } }"
    )
    async with serve(config) as running:
        client = await running.connect()
        assert (await client.get("/", "X: " + "a" * 900))[0] == 200
        assert (await client.get("/", "X: " + "a" * 1100))[0] == 400
