"""``lua_need_request_body``, and bodies made by Lua."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import nginx, serve

__all__ = ["serve"]

Serve = Callable[..., Any]

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"


@pytest.mark.parametrize("phase", ["rewrite", "access", "content"])
async def test_needed_body_is_there_in_every_phase(serve: Serve, phase: str) -> None:
    conf = nginx(f"""
        lua_need_request_body on;
        location / {{
            {phase}_by_lua_block {{ ngx.print(ngx.var.request_body or "nil") }}
        }}
    """)
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(POST % (8, b"abc\0\r\n\xff!"))
        assert (await client.response())[2] == b"abc\0\r\n\xff!"


async def test_needed_body_that_is_empty(serve: Serve) -> None:
    conf = nginx("""
        lua_need_request_body on;
        location / { content_by_lua_block { ngx.say(next(ngx.req.get_post_args())) } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(POST % (0, b""))
        assert (await client.response())[::2] == (200, b"nil\n")


@pytest.mark.parametrize("size", [0, 4])
async def test_body_larger_than_its_buffer(serve: Serve, tmp_path: Path, size: int) -> None:
    conf = nginx(
        f"""
        location / {{ content_by_lua_block {{
            ngx.req.read_body()
            ngx.req.init_body({size})
            ngx.req.append_body("he")
            ngx.req.append_body("llo")
            ngx.req.finish_body()
            local file = io.open(ngx.req.get_body_file())
            ngx.say(ngx.req.get_body_data(), " ", file:read("*a"), " ",
                ngx.var.http_content_length)
            file:close()
        }} }}
        """,
        prefix=f"{tmp_path}/",
    )
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"nil hello 5\n"
        message = "a client request body is buffered to a temporary file"
        assert running.log.text(5).count(message) == 1


async def test_negative_size(serve: Serve) -> None:
    conf = nginx("""
        location / { content_by_lua_block {
            ngx.req.read_body()
            ngx.say(select(2, pcall(ngx.req.init_body, -1)))
        } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2].endswith(b"bad size argument: -1\n")


@pytest.mark.parametrize("in_file", ["off", "clean"])
async def test_a_shorter_content_length_cuts_the_body(
    serve: Serve, tmp_path: Path, in_file: str
) -> None:
    conf = nginx(
        f"""
        client_body_in_file_only {in_file};
        location / {{ content_by_lua_block {{
            ngx.req.set_header("Content-Length", 3)
            ngx.req.read_body()
            local path = ngx.req.get_body_file()
            ngx.say(ngx.req.get_body_data() or io.open(path):read("*a"))
        }} }}
        """,
        prefix=f"{tmp_path}/",
    )
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(POST % (10, b"abcGET /x "))
        assert (await client.response())[2] == b"abc\n"
        # what was cut off is not taken for a request
        await client.send(POST % (2, b"yz"))
        assert (await client.response())[2] == b"yz\n"
