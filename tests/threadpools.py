"""Fixtures for tests of thread pools: one driver of connections is enough for them."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import serve_parked as serve

from trio_lua.config.nginx import loads

__all__ = ["conf", "fifo", "said", "serve"]

MODULE = """
local function err(value) error(value) end
return {
    hello = function(...) return "hello", ... end,
    count = function(...) return select("#", ...) end,
    fail = err,
    unsendable = function() return { print } end,
    global = function() seen = (seen or 0) + 1 return seen end,
    log = function() ngx.log(ngx.ERR, "from a thread") end,
    sleep = function() ngx.sleep(1) end,
    hold = function(path) io.open(path, "rb"):read() return "released" end,
}
"""


@pytest.fixture
def conf(tmp_path: Path) -> Callable[..., Any]:
    """A configuration with one handler at /, a pool ``p`` of two threads, and modules beside it."""

    def make(
        code: str, *, pools: str = "thread_pool p threads=2 max_queue=4;", http: str = ""
    ) -> Any:
        for name, text in {"m": MODULE, "no_table": "return 1"}.items():
            (tmp_path / f"{name}.lua").write_text(text)
        code = (
            'local tp = require "resty.threadpool" local run = ngx.run_worker_thread\n'
            + textwrap.dedent(code)
        )
        return loads(
            f"{pools} events {{}} http {{ access_log off; {http} lua_package_path '{tmp_path}/?.lua;;';"
            f"server {{ listen 127.0.0.1:80; location / {{ content_by_lua_block {{ {code} }} }} }} }}"
        )

    return make


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[str]:
    """A pipe: who reads from it waits for somebody to write a line."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    keeper = os.open(path, os.O_RDWR)
    yield str(path)
    os.close(keeper)


async def said(serve: Callable[..., Any], config: Any) -> list[str]:
    async with serve(config) as running:
        client = await running.connect()
        status, _, body = await client.get("/")
        assert status == 200, running.log.text()
        return body.decode().splitlines()
