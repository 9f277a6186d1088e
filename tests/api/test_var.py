"""``ngx.var``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving import nginx

from trio_lua.about import CONFIGURE

Serve = Callable[..., Any]


async def test_captures_by_number(serve: Serve) -> None:
    conf = nginx("""
        location ~ ^/([a-z]+)/([a-z]+) { content_by_lua_block {
            local v = ngx.var
            ngx.say(v[-1], " ", v[0], " ", v[1], " ", v[2], " ", v[3])
        } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/one/two"))[2] == b"nil nil one two nil\n"


async def test_repeated_response_headers(serve: Serve) -> None:
    conf = nginx("""
        location / { content_by_lua_block {
            ngx.header.link = { "</a>", "</b>" }
            ngx.header.cache_control = { "private", "max-age=1" }
            ngx.header.x_other = { "1", "2" }
            local v = ngx.var
            ngx.say(v.sent_http_link, " ", v.sent_http_cache_control, " ", v.sent_http_x_other)
        } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"</a>, </b> private, max-age=1 1\n"


async def test_args_are_assigned_to_by_set_and_by_lua(serve: Serve) -> None:
    conf = nginx("""
        location /b { set $args a; content_by_lua_block {
            ngx.say(ngx.var.args) ngx.var.args = "b" ngx.say(ngx.var.query_string) } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/b?c"))[2] == b"a\nb\n"


async def test_what_cannot_be_assigned_to(serve: Serve) -> None:
    conf = nginx("""
        location / { content_by_lua_block {
            for _, name in ipairs { "query_string", "http_host", "arg_x", "http_x", "x" } do
                local ok, err = pcall(function() ngx.var[name] = "y" end)
                ngx.say(err:match("(not %w+)"))
            end
        } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"not changeable\n" * 2 + b"not found\n" * 3


async def test_what_was_never_set(serve: Serve) -> None:
    conf = nginx("""
        location /set { set $mine 1; rewrite ^/(?<part>x) /; }
        location / { content_by_lua_block {
            ngx.print(ngx.var.mine, "|", ngx.var.mine, "|", tostring(ngx.var.part))
            ngx.var.part = "given"
            ngx.print("|", ngx.var.part)
        } }
        location /quiet { uninitialized_variable_warn off; return 200 "<$mine$part>"; }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"||nil|given"
        assert running.log.text(5).count('using uninitialized "mine" variable') == 1
        assert (await client.get("/quiet"))[2] == b"<>"
        assert running.log.text(5).count("using uninitialized") == 1


async def test_configure_arguments_are_those_of_the_command(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.print(ngx.config.nginx_configure()) } }")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2].decode() == CONFIGURE


async def test_the_protocol(serve: Serve) -> None:
    conf = nginx("location / { return 200 '$server_protocol $scheme [$https] [$http2]'; }")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"HTTP/1.1 http [] []"
