"""Deadlines of requests: the Python half of ``deadline.lua``."""

from __future__ import annotations

from typing import Any

from trio_lua.lua.ops import OpTable

__all__ = ["install"]


def install(table: OpTable) -> None:
    """Add the operation of ``deadline.lua``."""

    async def mark(request: Any) -> tuple[()]:
        """From now on the engine asks Lua about the deadline of each handler that waits."""
        request.bounded = True
        return ()

    table.op("mark_bounded", mark, inline=True)
