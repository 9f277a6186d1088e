"""The order of the phases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
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


async def test_limit_except(serve: Serve, tmp_path: Any) -> None:
    (tmp_path / "read").write_text("file")
    server = f"""
        root {tmp_path};
        location / {{
            limit_except GET {{ deny all; }}
            content_by_lua_block {{ ngx.print("any") }}
        }}
        location /read {{
            limit_except POST {{ allow all; }}
            rewrite_by_lua_block {{ ngx.header.x_seen = "1" }}
            content_by_lua_block {{ ngx.print("post") }}
        }}
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        for method, path, status, body in (
            ("GET", "/", 200, b"any"),
            ("HEAD", "/", 200, b""),
            ("PUT", "/", 403, None),
            ("POST", "/read", 200, b"post"),
            ("GET", "/read", 200, b"file"),
        ):
            await client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            found, headers, data = await client.response(method)
            assert (found, data) == (status, data if body is None else body)
            if path == "/read":
                assert headers["x-seen"] == "1"


async def test_auth_delay(serve: Serve, autojump_clock: Any) -> None:
    server = """
        auth_delay 2s;
        location / { access_by_lua_block { if ngx.var.arg_no then ngx.exit(401) end }
            content_by_lua_block { ngx.print("in") } }
        location /file { access_by_lua_block { ngx.exit(403) } }
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        for path, status, delay in (("/", 200, 0), ("/?no=1", 401, 2), ("/file", 403, 0)):
            start = trio.current_time()
            assert (await client.get(path))[0] == status
            assert trio.current_time() - start == delay
        assert "delaying unauthorized request" in running.log.text()
