"""The module ngx.errlog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serving import nginx
from serving import serve_parked as serve

from trio_lua.errors import ConfigError

__all__ = ["serve"]

Serve = Callable[..., Any]


async def test_captured_lines(serve: Serve) -> None:
    config = nginx(
        """
        location / { content_by_lua_block {
            local errlog = require "ngx.errlog"
            ngx.log(ngx.ERR, "one")
            ngx.log(ngx.INFO, "two")
            assert(errlog.set_filter_level(ngx.WARN))
            ngx.log(ngx.INFO, "three")
            ngx.log(ngx.WARN, "four")
            local logs = assert(errlog.get_logs(2))
            ngx.say(#logs, " ", logs[1], " ", type(logs[2]), " ", logs[3]:match("%[.*%] .-, "))
            logs = assert(errlog.get_logs(10, logs))
            ngx.say(#logs, " ", logs[1], " ", logs[3]:match("%[lua%] .-, "))
            ngx.say(#errlog.get_logs())
            ngx.say(errlog.set_filter_level())
            ngx.say(errlog.set_filter_level(9))
        } }
        location /missing { log_by_lua_block { package.loaded.seen = #require("ngx.errlog").get_logs() } }
        location /seen { content_by_lua_block { ngx.print(package.loaded.seen) } }
        """,
        "lua_capture_error_log 32k;",
    )
    async with serve(config) as running:
        client = await running.connect()
        text = (await client.get("/"))[2].decode()
        lines = text.splitlines()
        assert lines[0].startswith("6 4 number [error] ")
        assert lines[1] == "3 5 [lua] content_by_lua(nginx.conf:3):7: four, "
        assert lines[2:] == ["0", 'nilmissing "level" argument', "nilbad log level: 9"]
        # lines of the engine are captured, too
        assert (await client.get("/missing"))[0] == 404
        assert (await client.get("/seen"))[2] == b"3"


async def test_without_the_directive(serve: Serve) -> None:
    config = nginx("""location / { content_by_lua_block {
        local errlog = require "ngx.errlog"
        ngx.say(errlog.get_logs())
        ngx.say(errlog.set_filter_level(ngx.ERR))
    } }""")
    async with serve(config) as running:
        client = await running.connect()
        line = b'nildirective "lua_capture_error_log" is not set\n'
        assert (await client.get("/"))[2] == line + line


@pytest.mark.parametrize("size", ["3k", "x"])
def test_too_small(size: str) -> None:
    with pytest.raises(ConfigError, match="minimum size is 4096"):
        nginx("", f"lua_capture_error_log {size};")
