"""Which server answers, and what a connection carries one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from serving import nginx, row

from trio_lua.config.nginx import loads

Serve = Callable[..., Any]


def named(*servers: str) -> Any:
    blocks = "".join(
        f"server {{ {text} location / {{ content_by_lua_block {{ ngx.say('{number} ', ngx.var.server_name) }} }} }}"
        for number, text in enumerate(servers)
    )
    return loads(f"events {{}} http {{ access_log off; {blocks} }}")


NAMES = (
    "listen 1.1.1.1:80; server_name first;",
    "listen 1.1.1.1:80 default_server; server_name fallback;",
    "listen 1.1.1.1:80; server_name exact.test www.exact.test;",
    "listen 1.1.1.1:80; server_name *.test;",
    "listen 1.1.1.1:80; server_name *.deep.test;",
    "listen 1.1.1.1:80; server_name mail.*;",
    r"listen 1.1.1.1:80; server_name ~^(?<n>\d+)\.nowhere$;",
    "listen 1.1.1.1:80; server_name .dot.org;",
    "listen 1.1.1.1:80; server_name exact.test;",
)


HOSTS = [
    ("exact.test", 2),
    ("www.exact.test", 2),
    ("EXACT.Test", 2),
    ("exact.test:8080", 2),
    ("exact.test.", 2),
    ("a.test", 3),
    ("a.b.test", 3),
    ("test", 1),
    ("a.deep.test", 4),
    ("deep.test", 3),
    ("mail.anything", 5),
    ("mail.test", 3),
    ("42.nowhere", 6),
    ("x.nowhere", 1),
    ("dot.org", 7),
    ("a.dot.org", 7),
    ("unknown", 1),
    ("127.0.0.1", 1),
]


@pytest.mark.parametrize("recognise", [True, False], ids=["recogniser", "h11"])
async def test_by_name(serve: Serve, recognise: bool) -> None:
    async with serve(named(*NAMES), recognise=recognise) as running:
        for host, number in HOSTS:
            with row(host):
                client = await running.connect()
                answer = await client.get("/", host=host)
                assert answer[2].startswith(b"%d " % number)


async def test_without_a_name_the_default_server_answers(serve: Serve) -> None:
    async with serve(named(*NAMES)) as running:
        client = await running.connect()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.response())[2] == b"1 fallback\n"


async def test_each_request_of_a_connection_has_its_own_server(serve: Serve) -> None:
    async with serve(named(*NAMES)) as running:
        client = await running.connect()
        for host, number in (("exact.test", 2), ("a.test", 3), ("unknown", 1), ("exact.test", 2)):
            await client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await client.response())[2].startswith(b"%d " % number)


async def test_slow_handlers_keep_the_order_of_a_pipeline(
    serve: Serve, autojump_clock: Any
) -> None:
    conf = nginx(
        "location / { content_by_lua_block { ngx.sleep(tonumber(ngx.var.arg_t)) ngx.say(ngx.var.arg_t) } }"
    )
    async with serve(conf) as running:
        client = await running.connect()
        times = [3, 0, 2, 0, 1]
        await client.send(
            b"".join(b"GET /?t=%d HTTP/1.1\r\nHost: a\r\n\r\n" % time for time in times)
        )
        assert [int((await client.response())[2]) for _ in times] == times


async def test_what_follows_the_last_request_is_not_served(
    serve: Serve, autojump_clock: Any
) -> None:
    conf = nginx(
        "keepalive_requests 2; location / { content_by_lua_block { ngx.say(ngx.var.connection_requests) } }"
    )
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        assert (await client.response())[1]["connection"] == "keep-alive"
        assert (await client.response())[1]["connection"] == "close"
        start = trio.current_time()
        assert await client.rest() == b""
        # the end shows at once, however long the connection lingers
        assert trio.current_time() == start


LARGE_HEADS = [
    (b"GET /" + b"a" * 8180 + b" HTTP/1.1\r\nHost: a\r\n", 414),
    (b"GET /?" + b"a" * 8000 + b" HTTP/1.1\r\nHost: a\r\n", 200),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 8190 + b"\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 8000 + b"\r\n", 200),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 4000 + b"\r\n", 200),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"a" * 4000 + b"\r\n") * 12, 400),
]


@pytest.mark.parametrize("recognise", [True, False], ids=["recogniser", "h11"])
async def test_large_heads(serve: Serve, recognise: bool) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.say('fits') } }")
    async with serve(conf, recognise=recognise) as running:
        for number, (head, status) in enumerate(LARGE_HEADS):
            with row(number):
                client = await running.connect()
                await client.send(head + b"\r\n")
                found, headers, _ = await client.response()
                assert found == status
                if status != 200:
                    assert headers["connection"] == "close"
                    assert await client.rest() == b""


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (b"Content-Length: 6", b"123456"),
        (b"Content-Length: 6\r\nExpect: 100-continue", b""),
        (b"Transfer-Encoding: chunked", b"6\r\n123456\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"3\r\n123\r\n3\r\n456\r\n0\r\n\r\n"),
    ],
)
async def test_bodies_above_the_limit(serve: Serve, framing: bytes, sent: bytes) -> None:
    conf = nginx(
        "client_max_body_size 5; location / { content_by_lua_block { ngx.req.read_body() ngx.say('read') } }"
    )
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n" + sent)
        status, headers, _ = await client.response()
        assert (status, headers["connection"]) == (413, "close")
        assert "client intended to send too large" in running.log.text(4)


async def test_continue_only_when_the_body_is_wanted(serve: Serve) -> None:
    conf = nginx("""
        location /read { content_by_lua_block { ngx.req.read_body() ngx.say(ngx.req.get_body_data()) } }
        location /refuse { return 403; }
    """)
    head = "POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with serve(conf) as running:
        client = await running.connect()
        await client.send((head % "/read").encode())
        assert (await client.response())[0] == 100
        await client.send(b"ok")
        assert (await client.response())[2] == b"ok\n"
        await client.send((head % "/refuse").encode())
        assert (await client.response())[0] == 403
