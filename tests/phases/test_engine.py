"""The order of the phases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serving import nginx, serve

__all__ = ["serve"]

Serve = Callable[..., Any]


async def test_server_rewrite_by_lua_comes_before_the_rewrite_module(serve: Serve) -> None:
    conf = nginx("""
        server_rewrite_by_lua_block { ngx.ctx.seen = ngx.var.uri }
        rewrite ^ /re;
        location /re { content_by_lua_block { ngx.say(ngx.ctx.seen, " ", ngx.var.uri) } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/lua"))[2] == b"/lua /re\n"


@pytest.mark.parametrize(
    "jump",
    [
        "rewrite_by_lua_block { ngx.exec('/ok') }",
        "error_page 404 = /ok; return 404;",
        "try_files /nothing /ok;",
    ],
)
async def test_the_servers_steps_run_again_after_an_internal_redirect(
    serve: Serve, jump: str
) -> None:
    conf = nginx(f"""
        set $seen '';
        server_rewrite_by_lua_block {{ ngx.ctx.path = ngx.var.uri }}
        location / {{ {jump} }}
        location /ok {{ content_by_lua_block {{ ngx.say(ngx.ctx.path) }} }}
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/lua"))[2] == b"/ok\n"


@pytest.mark.parametrize(
    "jump", ["rewrite ^ /ok last;", "rewrite_by_lua_block { ngx.exec('@ok') }"]
)
async def test_but_not_after_a_rewrite_or_for_a_name(serve: Serve, jump: str) -> None:
    conf = nginx(f"""
        server_rewrite_by_lua_block {{ ngx.log(ngx.NOTICE, "server steps") }}
        location / {{ {jump} }}
        location /ok {{ content_by_lua_block {{ ngx.say("ok") }} }}
        location @ok {{ content_by_lua_block {{ ngx.say("ok") }} }}
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/lua"))[2] == b"ok\n"
        assert running.log.text(6).count("server steps") == 1


@pytest.mark.parametrize(("code", "status"), [("ngx.DECLINED", 403), ("ngx.OK", 200)])
async def test_a_handler_that_declines_has_no_opinion(serve: Serve, code: str, status: int) -> None:
    conf = nginx(f"""
        location / {{
            satisfy any;
            deny all;
            access_by_lua_block {{ ngx.exit({code}) }}
            content_by_lua_block {{ ngx.say("in") }}
        }}
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[0] == status


async def test_handlers_that_are_not_postponed(serve: Serve) -> None:
    server = """
        location /rewrite {
            set $x 1;
            rewrite_by_lua_block { ngx.ctx.x = ngx.var.x .. "|" }
            content_by_lua_block { ngx.print(ngx.ctx.x, ngx.var.x) }
        }
        location /access {
            deny all;
            access_by_lua_block { ngx.print("early") }
            content_by_lua_block { ngx.print("content") }
        }
        location /any {
            satisfy any; deny all;
            access_by_lua_block { }
            content_by_lua_block { ngx.print("content") }
        }
    """
    switches = "rewrite_by_lua_no_postpone on; access_by_lua_no_postpone on;"
    async with serve(nginx(server, switches)) as running:
        client = await running.connect()
        assert (await client.get("/rewrite"))[2] == b"|1"
        assert 'using uninitialized "x" variable' in running.log.text(5)
        assert (await client.get("/access"))[2] == b"early"
        assert (await client.get("/any"))[2] == b"content"
