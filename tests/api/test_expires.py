"""``expires``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from serving import nginx

Serve = Callable[..., Any]

MODIFIED = "Thu, 10 May 2012 07:50:48 GMT"


async def ask(serve: Serve, directives: str, path: str = "/") -> dict[str, str]:
    conf = nginx(f"""
        location / {{ {directives} content_by_lua_block {{
            ngx.header.cache_control = {{ "private", "max-age=1" }}
            ngx.header.last_modified = "{MODIFIED}"
            ngx.status = tonumber(ngx.var.arg_status)
            ngx.say(1)
        }} }}
    """)
    async with serve(conf) as running:
        client = await running.connect()
        headers: dict[str, str] = (await client.get(path))[1]
        return headers


def at(headers: dict[str, str], name: str) -> float:
    return parsedate_to_datetime(headers[name]).timestamp()


@pytest.mark.parametrize(
    ("text", "control", "offset"),
    [
        ("1h", "max-age=3600", 3600),
        ("0", "max-age=0", 0),
        ("-1h", "no-cache", -3600),
        ("$arg_e", "max-age=60", 60),
    ],
)
async def test_from_the_request(serve: Serve, text: str, control: str, offset: int) -> None:
    headers = await ask(serve, f"expires {text};", "/?status=200&e=1m")
    assert headers["cache-control"] == control
    assert at(headers, "expires") - at(headers, "date") == offset


@pytest.mark.parametrize(
    ("text", "expires", "control"),
    [
        ("epoch", "Thu, 01 Jan 1970 00:00:01 GMT", "no-cache"),
        ("max", "Thu, 31 Dec 2037 23:55:55 GMT", "max-age=315360000"),
        ("modified +1s", "Thu, 10 May 2012 07:50:49 GMT", "no-cache"),
    ],
)
async def test_fixed_times(serve: Serve, text: str, expires: str, control: str) -> None:
    headers = await ask(serve, f"expires {text};", "/?status=200")
    assert (headers["expires"], headers["cache-control"]) == (expires, control)


@pytest.mark.parametrize(
    ("directives", "path"),
    [
        ("expires off;", "/?status=200"),
        ("expires $arg_e;", "/?status=200&e=off"),
        ("expires $arg_e;", "/?status=200&e=nonsense"),
        ("expires 1h;", "/?status=404"),
    ],
)
async def test_left_alone(serve: Serve, directives: str, path: str) -> None:
    headers = await ask(serve, directives, path)
    assert "expires" not in headers
    assert headers["cache-control"] == "max-age=1"


async def test_time_of_day(serve: Serve) -> None:
    headers = await ask(serve, "expires @15h30m;", "/?status=200")
    when = at(headers, "expires")
    local = datetime.fromtimestamp(when)
    assert (local.hour, local.minute, local.second) == (15, 30, 0)
    assert 0 < when - at(headers, "date") <= 25 * 3600
    assert headers["cache-control"] == f"max-age={int(when - at(headers, 'date'))}"
