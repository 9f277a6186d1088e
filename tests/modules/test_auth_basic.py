"""``auth_basic``."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Open = Callable[..., Any]


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text("# people\nann:{PLAIN}secret\nbob:$apr1$ab$LtXIzukLdalw5rZA4ue6/1\nbad:?\n")
    return path


async def test_passwords(site: Open, users: Path) -> None:
    async with site(f"""
        auth_basic "the $arg_r site";
        auth_basic_user_file {users};
        location / {{ content_by_lua_block {{ ngx.print(ngx.var.remote_user) }} }}
        location /off {{ auth_basic off; return 200 open; }}
        location /file {{ auth_basic x; auth_basic_user_file {users}.none;
            content_by_lua_block {{ ngx.print("no") }} }}
    """) as server:
        status, headers, _ = await server.get("/?r=best")
        assert (status, headers["www-authenticate"]) == (401, 'Basic realm="the best site"')
        assert await server.text("/", basic("ann", "secret")) == "ann"
        long = "a longer password, with more than sixteen bytes"
        assert await server.text("/", basic("bob", long)) == "bob"
        for user, password in (("ann", "Secret"), ("ann", ""), ("eve", "secret"), ("# people", "")):
            assert (await server.get("/", basic(user, password)))[0] == 401
        log = server.log.text(4)
        assert 'user "ann": password mismatch' in log
        assert f'user "eve" was not found in "{users}"' in log
        assert (await server.get("/file", basic("ann", "secret")))[0] == 403
        assert (await server.get("/", basic("bad", "x")))[0] == 500
        assert 'none" failed (2: No such file or directory)' in server.log.text(4)


async def test_satisfy(site: Open, users: Path) -> None:
    async with site(f"""
        auth_basic_user_file {users};
        location /any {{ satisfy any; deny all; auth_basic x; content_by_lua_block {{ ngx.print("in") }} }}
        location /lua {{ satisfy any; auth_basic x; access_by_lua_block {{ ngx.exit(403) }}
            content_by_lua_block {{ ngx.print("in") }} }}
        location /all {{ auth_basic x; access_by_lua_block {{ if ngx.var.arg_x then ngx.exit(403) end }}
            content_by_lua_block {{ ngx.print("in") }} }}
    """) as server:
        for path in ("/any", "/lua", "/all"):
            assert await server.text(path, basic("ann", "secret")) == "in"
            assert (await server.get(path))[0] == 401
        assert (await server.get("/all?x=1", basic("ann", "secret")))[0] == 403
