"""``ngx.req``: the request line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving import nginx

Serve = Callable[..., Any]


async def test_set_uri_takes_a_tab_but_no_other_control_byte(serve: Serve) -> None:
    conf = nginx(r"""
        location / { content_by_lua_block {
            ngx.req.set_uri("/a\tb")
            ngx.say(ngx.var.uri)
            ngx.say(select(2, pcall(ngx.req.set_uri, "/a\nb")))
        } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        body = (await client.get("/"))[2]
        assert body.startswith(b'/a\tb\nunsafe byte "0x0a" in uri "/a\\x0Ab" (maybe')


async def test_header_names_may_be_numbers(serve: Any) -> None:
    config = nginx("""location / { content_by_lua_block {
        ngx.req.set_header(123, 456)
        ngx.print(ngx.req.get_headers()[123], " ", tostring(ngx.req.get_headers()[true]))
    } }""")
    async with serve(config) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"456 nil"


async def test_arguments_of_another_type_are_refused(serve: Any) -> None:
    config = nginx("""location / { content_by_lua_block {
        ngx.print(select(2, pcall(ngx.req.set_uri_args, true)))
    } }""")
    async with serve(config) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == (
            b"bad argument #1 to 'set_uri_args' (string, number, or table expected, but got boolean)"
        )
