"""Heads and bodies as clients get them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import nginx, serve

from trio_lua.server.connection import Connection

__all__ = ["serve"]

Serve = Callable[..., Any]


async def test_head_in_http_1_0_has_no_length(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.say('hello') } }")
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"HEAD / HTTP/1.0\r\n\r\n")
        status, headers, _ = await client.response("HEAD")
        assert status == 200
        assert "content-length" not in headers


async def test_exit_in_a_header_filter_brings_the_page_of_its_status(serve: Serve) -> None:
    conf = nginx("""
        location / {
            content_by_lua_block {
                local ok, err = ngx.say('hi')
                ngx.log(ngx.WARN, "say: ", err, " flush: ", select(2, ngx.flush(true)),
                    " eof: ", select(2, ngx.eof()))
            }
            header_filter_by_lua_block { return ngx.exit(403) }
        }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        status, _, body = await client.get("/")
        assert status == 403
        assert b"<title>403 Forbidden</title>" in body
        error = "nginx output filter error"
        assert f"say: {error} flush: {error} eof: {error}" in running.log.text(5)
        # the connection is still good
        assert (await client.get("/"))[0] == 403


async def test_exit_in_a_header_filter_of_files_and_texts(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 200_000)
    conf = nginx(f"""
        root {tmp_path};
        header_filter_by_lua_block {{ return ngx.exit(403) }}
        location /text {{ return 200 text; }}
    """)
    async with serve(conf) as running:
        client = await running.connect()
        for path in ("/large", "/text", "/missing"):
            status, _, body = await client.get(path)
            assert status == 403, path
            assert b"<title>403 Forbidden</title>" in body


async def test_a_failed_precondition_replaces_the_response(serve: Serve) -> None:
    conf = nginx("""
        location / {
            rewrite_by_lua_block {
                ngx.header.last_modified = "Thu, 10 May 2012 07:50:48 GMT"
                local ok, err = ngx.say("hello")
                ngx.log(ngx.WARN, "say failed: ", err)
            }
        }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        status, _, body = await client.get(
            "/", "If-Unmodified-Since: Thu, 10 May 2012 07:50:47 GMT"
        )
        assert status == 412
        assert b"412 Precondition Failed" in body
        assert "say failed: nginx output filter error" in running.log.text(5)


async def test_status_in_http_0_9(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.print(ngx.status) } }")
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"GET /\r\n")
        assert await client.rest() == b"9"


@pytest.mark.parametrize(("postpone", "writes"), [(1, 3), (1460, 1)])
async def test_a_long_head_does_not_wait_for_the_body(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, postpone: int, writes: int
) -> None:
    conf = nginx(
        f"location / {{ postpone_output {postpone}; content_by_lua_block {{ ngx.say(1) }} }}"
    )
    sent: list[bytes] = []
    write = Connection.write

    def recorded(self: Connection, data: bytes) -> int:
        if data:
            sent.append(data)
        return write(self, data)

    monkeypatch.setattr(Connection, "write", recorded)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"1\n"
    assert len(sent) == writes
    assert sent[0].endswith(b"\r\n\r\n")
