"""``gzip`` and ``gunzip``."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from serving import nginx, nginx_rows, row

from trio_lua.api.gzip import Inflater

Serve = Callable[..., Any]

TEXT = "hello, world " * 20
SAY = f"content_by_lua_block {{ ngx.print('{TEXT}') }}"


def compressed(headers: dict[str, str]) -> bool:
    return headers.get("content-encoding") == "gzip"


async def test_a_response_is_compressed(serve: Serve) -> None:
    conf = nginx(f"""
        gzip on; gzip_types text/plain; gzip_vary on;
        location / {{
            etag off;
            header_filter_by_lua_block {{
                ngx.header.etag = '"x"'
                ngx.header.accept_ranges = "bytes"
                ngx.header.content_length = {len(TEXT)}
            }}
            log_by_lua_block {{ ngx.log(ngx.NOTICE, "ratio ", ngx.var.gzip_ratio) }}
            {SAY}
        }}
    """)
    async with serve(conf) as running:
        client = await running.connect()
        _, headers, body = await client.get("/", "Accept-Encoding: gzip, br")
        assert compressed(headers)
        assert gzip.decompress(body).decode() == TEXT
        assert headers["vary"] == "Accept-Encoding"
        assert headers["etag"] == 'W/"x"'
        assert headers["transfer-encoding"] == "chunked"
        assert not {"content-length", "accept-ranges"} & set(headers)
        ratio = f"ratio {len(TEXT) / len(body):.2f}"
        assert ratio in running.log.text(6)
        _, headers, body = await client.get("/")
        assert body.decode() == TEXT
        assert headers["vary"] == "Accept-Encoding"
        assert headers["etag"] == '"x"'
        assert "ratio nil" in running.log.text(6)


ACCEPTED = [
    ("gzip", True),
    ("GZIP", True),
    ("deflate, gzip", True),
    ("deflate,gzip ;q=0.5", True),
    ("gzip;q=1.000", True),
    ("gzip;q=0", False),
    ("gzip; q=0.000", False),
    ("gzip;q=1.1", False),
    ("gzip;q=0.5x", False),
    ("gzip;x=1", False),
    ("gzipped", False),
    ("x-gzip", False),
    ("x-gzip, gzip", True),
    ("*", False),
]


async def test_accept_encoding(serve: Serve) -> None:
    conf = nginx(f"gzip on; gzip_types *; location / {{ {SAY} }}")
    async with serve(conf) as running:
        client = await running.connect()
        for accept, wanted in ACCEPTED:
            with row(accept):
                _, headers, _ = await client.get("/", f"Accept-Encoding: {accept}")
                assert compressed(headers) is wanted


COMPRESSED = [
    ("gzip_types text/css;", "", False),
    ("gzip_types text/plain;", "", True),
    ("gzip_types TEXT/PLAIN;", "", True),
    (
        "gzip_min_length 1k; content_by_lua_block { ngx.header.content_length = 3 "
        "ngx.print('abc') }",
        "",
        False,
    ),
    ("gzip_disable hello;", "User-Agent: x Hello", False),
    ("gzip_disable hello;", "User-Agent: x", True),
    ("gzip_disable msie6;", "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0; Windows)", False),
    ("gzip_disable msie6;", "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0; SV1)", True),
    ("gzip_disable msie6;", "User-Agent: Mozilla/4.0 (compatible; MSIE 7.0)", True),
    ("", "Via: 1.1 p", False),
    ("gzip_proxied any;", "Via: 1.1 p", True),
    ("gzip_proxied auth;", "Via: 1.1 p\r\nAuthorization: Basic eA==", True),
    ("gzip_proxied auth expired;", "Via: 1.1 p", True),
    ("gzip_proxied expired; expires 1h;", "Via: 1.1 p", False),
    ("gzip_proxied expired; expires -1h;", "Via: 1.1 p", True),
    ("gzip_proxied no_etag; add_header ETag x;", "Via: 1.1 p", False),
    ("gzip_proxied private; add_header Cache-Control 'a=1, Private';", "Via: 1.1 p", True),
    ("gzip_proxied private; add_header Cache-Control no-store;", "Via: 1.1 p", False),
    ("add_header Content-Encoding br;", "", False),
]


async def test_what_is_compressed(serve: Serve) -> None:
    def server(directives: str) -> str:
        types = "" if "gzip_types" in directives else "gzip_types *;"
        content = "" if "content_by" in directives else SAY
        return f"gzip on; location / {{ {types} {directives} {content} }}"

    async with serve(nginx_rows(server(directives) for directives, _, _ in COMPRESSED)) as running:
        client = await running.connect()
        for number, (directives, request_headers, wanted) in enumerate(COMPRESSED):
            with row((directives, request_headers)):
                lines = request_headers.split("\r\n") if request_headers else []
                _, headers, _ = await client.get(
                    "/", "Accept-Encoding: gzip", *lines, host=f"row{number}"
                )
                assert compressed(headers) is wanted


@pytest.mark.parametrize(("minor", "wanted"), [(0, True), (1, False)])
async def test_http_1_0(serve: Serve, minor: int, wanted: bool) -> None:
    conf = nginx(f"gzip on; gzip_http_version 1.{minor}; gzip_types *; location / {{ {SAY} }}")
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
        _, headers, body = await client.response()
        assert compressed(headers) is wanted
        assert (gzip.decompress(body) if wanted else body).decode() == TEXT
        assert headers["connection"] == "close"


async def test_statuses_and_pages(serve: Serve) -> None:
    conf = nginx("""
        gzip on; gzip_types *;
        location = /404 { return 404; }
        location = /500 { return 500; }
        location = /204 { return 204; }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        _, _, body = await client.get("/404", "Accept-Encoding: gzip")
        assert b"404 Not Found" in gzip.decompress(body)
        assert not compressed((await client.get("/204", "Accept-Encoding: gzip"))[1])
        assert not compressed((await client.get("/500", "Accept-Encoding: gzip"))[1])


async def test_flush_brings_what_was_said(serve: Serve) -> None:
    conf = nginx("""
        gzip on; gzip_types *;
        location / { content_by_lua_block {
            ngx.say("first")
            ngx.flush(true)
            ngx.req.read_body()
            ngx.say("second")
        } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nContent-Length: 1\r\n\r\n"
        )
        stream = zlib.decompressobj(31)
        while b"\r\n\r\n" not in client._buffer:
            assert await client._more()
        _, _, client._buffer = client._buffer.partition(b"\r\n\r\n")
        text = b""
        while text != b"first\n":
            text += stream.decompress(await chunk(client))
        await client.send(b"x")
        while piece := await chunk(client):
            text += stream.decompress(piece)
        assert text == b"first\nsecond\n"
        assert stream.eof


async def chunk(client: Any) -> bytes:
    while b"\r\n" not in client._buffer:
        assert await client._more()
    size, _, client._buffer = client._buffer.partition(b"\r\n")
    length = int(size, 16)
    while len(client._buffer) < length + 2:
        assert await client._more()
    data: bytes = client._buffer[:length]
    client._buffer = client._buffer[length + 2 :]
    return data


async def test_behind_body_filter_by_lua(serve: Serve) -> None:
    conf = nginx(f"""
        gzip on; gzip_types *;
        location / {{
            {SAY}
            body_filter_by_lua_block {{ ngx.arg[1] = ngx.arg[1]:upper() }}
        }}
    """)
    async with serve(conf) as running:
        client = await running.connect()
        _, _, body = await client.get("/", "Accept-Encoding: gzip")
        assert gzip.decompress(body).decode() == TEXT.upper()


PACKED = """
    location / { gunzip on; content_by_lua_block {
        ngx.header.content_encoding = "gzip"
        ngx.req.read_body()
        local body = ngx.req.get_body_data()
        ngx.print(body:sub(1, 15)) ngx.flush(true) ngx.print(body:sub(16))
    } }
"""


async def unpack(client: Any, data: bytes, *lines: str) -> None:
    head = "".join(f"{line}\r\n" for line in lines)
    await client.send(
        f"POST / HTTP/1.1\r\nHost: a\r\n{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
    )


async def test_gunzip_for_those_that_cannot(serve: Serve) -> None:
    data = gzip.compress(b"one ", mtime=0) + gzip.compress(b"two")
    async with serve(nginx(PACKED)) as running:
        client = await running.connect()
        await unpack(client, data)
        _, headers, body = await client.response()
        assert (compressed(headers), body) == (False, b"one two")
        await unpack(client, data, "Accept-Encoding: gzip")
        _, headers, body = await client.response()
        assert (compressed(headers), body) == (True, data)


async def test_vary_is_said_once(serve: Serve) -> None:
    async with serve(nginx("gzip on; gzip_types *; gzip_vary on;" + PACKED)) as running:
        client = await running.connect()
        await unpack(client, gzip.compress(b"text", mtime=0))
        while b"\r\n\r\n" not in client._buffer:
            assert await client._more()
        assert client._buffer.count(b"Vary:") == 1
        assert (await client.response())[2] == b"text"


@pytest.mark.parametrize("data", [b"this is not a gzip file", gzip.compress(b"cut", mtime=0)[:-3]])
async def test_gunzip_of_nonsense_ends_the_connection(serve: Serve, data: bytes) -> None:
    async with serve(nginx(PACKED)) as running:
        client = await running.connect()
        await unpack(client, data)
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        assert "inflate() failed" in running.log.text(4)


def test_inflater_takes_any_pieces() -> None:
    data = gzip.compress(b"a" * 100, mtime=0) + gzip.compress(b"b")
    inflater = Inflater()
    out = b"".join(inflater.feed(data[i : i + 1], False) for i in range(len(data)))
    assert out + inflater.feed(b"", True) == b"a" * 100 + b"b"
    assert Inflater().feed(b"", True) == b""
