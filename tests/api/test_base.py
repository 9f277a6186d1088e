"""The phase, as Lua sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving import nginx

Serve = Callable[..., Any]


async def test_phase(serve: Serve) -> None:
    conf = nginx("""
        location / {
            access_by_lua_block { access = { ngx.get_phase(), ngx._phase_ctx() } }
            content_by_lua_block {
                ngx.say(table.concat(access, " "), " ", ngx.get_phase(), " ", ngx._phase_ctx())
            }
        }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"access 4 content 8\n"
