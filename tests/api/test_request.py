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
