"""``ngx.location.capture`` and its kin: the calls and operations that run subrequests.

Lua makes the request tables; the engine (a layer above) runs them and is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from trio_lua.lua.ops import OpTable
from trio_lua.request.state import Request

__all__ = ["Runner", "install"]


class Runner(Protocol):
    """Runs subrequests that Lua has made, by their numbers."""

    async def capture_all(self, parent: Request, ids: tuple[int, ...]) -> tuple[bytes, ...]:
        """Run them to their ends; the bodies of their responses."""

    def place(self, parent: Request, id: int) -> None:
        """Give the response of one a place in the parent's, behind what has been written."""

    async def run_placed(self, ids: tuple[int, ...]) -> None:
        """Run those that have a place to their ends."""

    def start_placed(self, parent: Request, ids: tuple[int, ...]) -> None:
        """Start those that have a place, in their order; what waits goes on in the parent's nursery."""

    async def wait_placed(self, ids: tuple[int, ...]) -> None:
        """Wait for the ends of those that were started."""

    async def stream_open(self, parent: Request, id: int) -> None:
        """Start one in the parent's nursery; returns when its head is known."""

    async def stream_read(self, id: int) -> bytes:
        """What it has written since the last call; b"" at its end."""

    def stream_close(self, id: int) -> None:
        """End it."""


def install(table: OpTable, runner: Callable[[], Runner]) -> None:
    """Add the calls and operations of ``subrequest.lua``.

    Args:
        table: Where to add them.
        runner: Gives what runs subrequests.
    """

    async def capture(parent: Request, *ids: int) -> tuple[bytes, ...]:
        return await runner().capture_all(parent, ids)

    async def place(parent: Request, id: int) -> tuple[()]:
        runner().place(parent, id)
        return ()

    async def run_placed(_parent: Request, *ids: int) -> tuple[()]:
        await runner().run_placed(ids)
        return ()

    async def start_placed(parent: Request, *ids: int) -> tuple[()]:
        runner().start_placed(parent, ids)
        return ()

    async def wait_placed(_parent: Request, *ids: int) -> tuple[()]:
        await runner().wait_placed(ids)
        return ()

    async def stream_open(parent: Request, id: int) -> tuple[()]:
        await runner().stream_open(parent, id)
        return ()

    async def stream_read(_parent: Request, id: int) -> tuple[bytes]:
        return (await runner().stream_read(id),)

    def stream_close(id: int) -> None:
        runner().stream_close(id)

    table.op("capture", capture, inline=True)
    table.op("place_subrequest", place, inline=True)
    table.op("run_subrequests", run_placed, inline=True)
    table.op("start_subrequests", start_placed, spawns=True)
    table.op("wait_subrequests", wait_placed)
    table.op("stream_open", stream_open, spawns=True)
    table.op("stream_read", stream_read)
    table.call("stream_close", stream_close)
