"""``charset``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serving import nginx

Serve = Callable[..., Any]


@pytest.mark.parametrize(
    ("directives", "content_type"),
    [
        ("charset utf-8;", "text/plain; charset=utf-8"),
        ("charset off;", "text/plain"),
        ("charset $arg_c;", "text/plain; charset=koi8-r"),
        ("charset $arg_none;", "text/plain"),
        ("charset utf-8; default_type image/png;", "image/png"),
        ("charset utf-8; default_type TEXT/HTML;", "TEXT/HTML; charset=utf-8"),
        ("charset utf-8; charset_types text/css;", "text/plain"),
        ("charset utf-8; charset_types *; default_type a/b;", "a/b; charset=utf-8"),
        ("charset utf-8; default_type 'text/plain; charset=x';", "text/plain; charset=x"),
    ],
)
async def test_content_type(serve: Serve, directives: str, content_type: str) -> None:
    conf = nginx(f"location / {{ {directives} content_by_lua_block {{ ngx.say(1) }} }}")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/?c=koi8-r"))[1]["content-type"] == content_type


async def test_pages_have_it_but_not_redirects(serve: Serve) -> None:
    conf = nginx("charset utf-8; location /r { return 302 /x; } location / { return 404; }")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[1]["content-type"] == "text/html; charset=utf-8"
        assert (await client.get("/r"))[1]["content-type"] == "text/html"
