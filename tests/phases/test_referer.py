"""``valid_referers``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving import nginx_rows, row
from serving import serve_task as serve

__all__ = ["serve"]

Serve = Callable[..., Any]


REFERERS = [
    ("www.foo.com", "http://www.foo.com/", True),
    ("www.foo.com", "https://WWW.foo.com:8080/x", True),
    ("www.foo.com", "http://www.bar.com", False),
    ("www.foo.com", "ftp://www.foo.com/", False),
    ("www.foo.com", "www.foo.com", False),
    ("www.foo.com", None, False),
    ("none www.foo.com", None, True),
    ("none www.foo.com", "", False),
    ("blocked www.foo.com", "hidden", True),
    ("blocked www.foo.com", "http://other.com/", False),
    ("none", "http://other.com/", True),
    ("*.foo.com", "http://a.b.foo.com/", True),
    ("*.foo.com", "http://foo.com/", False),
    (".foo.com", "http://foo.com/", True),
    (".foo.com", "http://a.foo.com/", True),
    ("www.foo.*", "http://www.foo.org/", True),
    ("www.foo.*", "http://www.fool.org/", False),
    ("foo.com/a/", "http://foo.com/a/b", True),
    ("foo.com/a/", "http://foo.com/b", False),
    ("foo.com/a/", "http://foo.com", False),
    (r"~\.google\.", "http://www.Google.com/search", True),
    (r"~\.google\.", "http://www.gaggle.com/", False),
    ("server_names", "http://one.example.com/", True),
    ("server_names", "http://two7.example.com/", True),
    ("server_names", "http://two.example.com/", False),
]


async def test_referers(serve: Serve) -> None:
    servers = (
        rf"""
        server_name one.example.com ~^two\d\.example;
        location / {{
            valid_referers {words};
            if ($invalid_referer) {{ return 403; }}
            content_by_lua_block {{ ngx.print("[", ngx.var.invalid_referer, "]") }}
        }}
        location /free {{ content_by_lua_block {{ ngx.print("[", ngx.var.invalid_referer, "]") }} }}
        """
        for words, _, _ in REFERERS
    )
    async with serve(nginx_rows(servers)) as running:
        client = await running.connect()
        for number, (words, referer, valid) in enumerate(REFERERS):
            with row((words, referer)):
                host = f"row{number}"
                lines = [] if referer is None else [f"Referer: {referer}"]
                status, _, body = await client.get("/", *lines, host=host)
                assert (status == 200) is valid
                if valid:
                    assert body == b"[]"
                assert (await client.get("/free", *lines, host=host))[2] == b"[]"
