"""``ngx.location.capture`` and its kin: the operations that run subrequests.

Lua makes the request tables; the engine (a layer above) runs them and is handed in as a function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from trio_lua.lua.ops import OpTable
from trio_lua.request.state import Request

__all__ = ["CaptureAll", "install"]

#: Runs captured subrequests of a request, given by Lua's numbers, to their ends; their bodies.
CaptureAll = Callable[[Request, tuple[int, ...]], Awaitable[tuple[bytes, ...]]]


def install(table: OpTable, capture_all: CaptureAll) -> None:
    """Add the operation ``capture``."""

    async def capture(parent: Request, *ids: int) -> tuple[bytes, ...]:
        return await capture_all(parent, ids)

    table.op("capture", capture)
