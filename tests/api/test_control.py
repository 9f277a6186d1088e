"""``ngx.exit``: what becomes of the response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serving import nginx, row, serve

__all__ = ["serve"]

Serve = Callable[..., Any]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_exit_with_the_status_that_was_sent(serve: Serve, version: str) -> None:
    phases = ("rewrite", "access", "content")
    locations = (
        f"""location /{phase} {{ {phase}_by_lua_block {{
            ngx.status = 403
            ngx.say("Hello")
            ngx.exit(403)
        }} }}"""
        for phase in phases
    )
    async with serve(nginx("".join(locations))) as running:
        for phase in phases:
            with row(phase):
                client = await running.connect()
                await client.send(f"GET /{phase} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
                status, _, body = await client.response()
                assert (status, body) == (403, b"Hello\n")
                assert running.log.text(4) == ""


async def test_another_status_after_output_is_logged(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.say(1) ngx.exit(500) } }")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[::2] == (200, b"1\n")
        assert (
            "attempt to set status 500 via ngx.exit after sending out the response status 200"
            in (running.log.text(4))
        )


async def test_exit_keeps_a_status_that_was_set(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.status = 410 ngx.exit(200) } }")
    async with serve(conf) as running:
        client = await running.connect()
        status, _, body = await client.get("/")
        assert (status, body) == (410, b"")


async def test_declined_content_sends_nothing(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.exit(ngx.DECLINED) } }")
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await client.rest() == b""


async def test_status_of_exit_goes_with_a_bare_error_page(serve: Serve) -> None:
    conf = nginx("""
        error_page 404 = /error;
        location = /lua { content_by_lua_block { ngx.exit(404) } }
        location = /nginx { return 404; }
        location = /error { content_by_lua_block { ngx.say("error") } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/lua"))[::2] == (404, b"error\n")
        assert (await client.get("/nginx"))[::2] == (200, b"error\n")


async def test_an_unsafe_byte_in_a_redirect_is_shown(serve: Serve) -> None:
    conf = nginx(r"""location / { content_by_lua_block { ngx.redirect("\ra\\\"\195") } }""")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[0] == 500
        line = r'unsafe byte "0x0d" in redirect uri "\x0Da\x5C\x22\xC3"'
        assert line in running.log.text(4)
