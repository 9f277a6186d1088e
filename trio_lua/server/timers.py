"""Timers: handlers without a client, owned by the worker.

Lua keeps the timers that wait and starts the function of one that fires, in the turn of the clock; what it leaves
waiting becomes a task of the worker's nursery.
"""

from __future__ import annotations

from typing import Any

import trio

from trio_lua.api.runtime import Runtime
from trio_lua.server.clientless import serve_without_client

__all__ = ["Timers"]


class Timers:
    """The clock of a VM, and the timers that have fired.

    Args:
        runtime: The VM.
        nursery: Where timers run; they end with it at the latest.
    """

    def __init__(self, runtime: Runtime, nursery: trio.Nursery) -> None:
        self._lua = runtime
        self._nursery = nursery
        self._changed: trio.Event | None = None

    async def run(self) -> None:
        """Wake threads and fire timers, as long as the VM is used."""
        await self._lua.driver.serve(self._fired)

    def expire(self) -> None:
        """Fire now, as premature, what waits for its time."""
        self._lua.expire_timers()

    def drop(self) -> None:
        """Forget what waits for its time."""
        self._lua.drop_timers()

    async def drained(self) -> None:
        """Wait until no timer runs and none waits."""
        while any(self._lua.timers()):
            self._changed = trio.Event()
            await self._changed.wait()

    def _fired(self, id: int, result: Any) -> None:
        if id:
            serve_without_client(self._lua, self._nursery, id, result, self._ended)
        self._notice()

    def _ended(self, id: int) -> None:
        self._lua.end_timer(id)
        self._notice()

    def _notice(self) -> None:
        if self._changed is not None:
            self._changed.set()
