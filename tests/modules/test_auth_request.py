"""``auth_request`` and ``auth_request_set``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]

SITE = """
    location /t { auth_request /auth?s=$arg_s; auth_request_set $who $sent_http_x_user;
        content_by_lua_block { ngx.print("in ", ngx.var.who) } }
    location /off { auth_request off; content_by_lua_block { ngx.print("in") } }
    location = /auth { internal; content_by_lua_block {
        ngx.header["X-User"] = "ann"
        ngx.header["WWW-Authenticate"] = "Basic"
        ngx.exit(tonumber(ngx.req.get_uri_args().s or ngx.var.http_x_status))
    } }
    auth_request /auth;
    location /inherits { content_by_lua_block { ngx.print("in") } }
    location /any { satisfy any; deny all; content_by_lua_block { ngx.print("in") } }
"""


@pytest.mark.parametrize(
    ("given", "status"), [(200, 200), (204, 200), (401, 401), (403, 403), (404, 500), (302, 500)]
)
async def test_statuses(site: Open, given: int, status: int) -> None:
    site_text = SITE.replace("?s=$arg_s", "")
    async with site(site_text) as server:
        for path in ("/t", "/inherits", "/any"):
            client = await server.connect()
            seen, headers, body = await client.get(path, f"X-Status: {given}")
            assert seen == status
            assert ("www-authenticate" in headers) == (status == 401)
            if status == 200:
                assert body == (b"in ann" if path == "/t" else b"in")
        assert await server.text("/off") == "in"
        if status == 500:
            assert f"auth request unexpected status: {given}" in server.log.text(4)


async def test_access_runs_once(site: Open) -> None:
    """The subrequest itself has no access phase, so it does not ask for itself."""
    async with site("""
        auth_request /auth;
        location /auth { return 200; }
        location /t { content_by_lua_block { ngx.print("in") } }
    """) as server:
        assert await server.text("/t") == "in"
