"""``ngx.sleep`` and ``coroutine.yield``: the operations that only wait."""

from __future__ import annotations

from typing import Any

import trio

from trio_lua.http.uri import parse_unsafe
from trio_lua.lua.ops import OpTable

__all__ = ["install"]


async def _sleep(_owner: Any, seconds: float) -> tuple[()]:
    await trio.sleep(seconds)
    return ()


async def _yield(_owner: Any) -> tuple[()]:
    await trio.lowlevel.checkpoint()
    return ()


def _parse_unsafe_uri(uri: bytes) -> tuple[bytes | None, bytes | None]:
    return parse_unsafe(uri) or (None, None)


def install(table: OpTable) -> None:
    """Add ``rt.ops.sleep``, ``rt.ops.yield`` and ``rt.py.parse_unsafe_uri``."""
    table.op("sleep", _sleep)
    table.op("yield", _yield)
    table.call("parse_unsafe_uri", _parse_unsafe_uri)
