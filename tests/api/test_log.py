"""``ngx.log``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving import nginx

Serve = Callable[..., Any]


async def test_the_level_is_not_counted_in_a_refusal(serve: Serve) -> None:
    conf = nginx("""
        location / { content_by_lua_block {
            ngx.say(select(2, pcall(ngx.log, ngx.ERR, "a", {})))
            ngx.say(select(2, pcall(print, "a", {})))
        } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        words = b"(expected table to have __tostring metamethod)\n"
        body = (await client.get("/"))[2]
        assert body == b"bad argument #2 to 'log' " + words + b"bad argument #2 to 'print' " + words


async def test_lines_of_exit_worker_have_no_context(serve: Serve) -> None:
    conf = nginx(
        "location / { return 204; }",
        """
        init_worker_by_lua_block { ngx.log(ngx.WARN, "starting") }
        exit_worker_by_lua_block { ngx.log(ngx.WARN, "exiting") }
        """,
    )
    async with serve(conf) as running:
        pass
    records = [text for _, text in running.log.lines]
    assert records == [
        "[lua] init_worker_by_lua(nginx.conf:2):1: starting, context: init_worker_by_lua*",
        "[lua] exit_worker_by_lua(nginx.conf:3):1: exiting",
    ]


async def test_only_the_request_itself_is_being_logged(serve: Any) -> None:
    config = nginx("""
        log_by_lua_block { ngx.log(ngx.WARN, "log of ", ngx.var.uri) }
        location /t { content_by_lua_block { ngx.location.capture("/sub") } }
        location /sub { log_subrequest on; return 200 x; }
    """)
    async with serve(config) as running:
        client = await running.connect()
        await client.get("/t")
        first, second = (text for level, text in running.log.lines if level == 5)
        assert "log of /sub, client: " in first
        assert "log of /t while logging request, client: " in second
