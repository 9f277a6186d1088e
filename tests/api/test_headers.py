"""``ngx.header``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serving import nginx

Serve = Callable[..., Any]


@pytest.mark.parametrize("value", ["text/plain", "-1", "1.5", "0x10"])
async def test_a_length_that_is_no_number(serve: Serve, value: str) -> None:
    conf = nginx(f"""
        location / {{ content_by_lua_block {{
            local ok, err = pcall(function() ngx.header.content_length = "{value}" end)
            ngx.say(ok, " ", err)
        }} }}
    """)
    async with serve(conf) as running:
        client = await running.connect()
        _, _, body = await client.get("/")
        assert body == b"false content_by_lua(nginx.conf:3):2: failed to set header\n"
