"""Handlers of alerts (``ngx.ipc``): like timers, they have no client and are owned by the worker.

Lua starts a handler when its alert comes; what it leaves waiting becomes a task of the worker's nursery.
"""

from __future__ import annotations

from typing import Any

import trio

from trio_lua.api.runtime import Runtime
from trio_lua.ipc.endpoint import Endpoint
from trio_lua.server.clientless import serve_without_client

__all__ = ["AlertHandlers"]

#: Seconds that the alerts of a worker that quits may wait for their receivers.
_LINGER = 5


class AlertHandlers:
    """The handlers that run.

    Args:
        runtime: The VM.
        nursery: Where they run; they end with it at the latest.
        endpoint: The worker's side of the messages, which is closed at the end; by default the worker is alone.
    """

    def __init__(
        self, runtime: Runtime, nursery: trio.Nursery, endpoint: Endpoint | None = None
    ) -> None:
        self._lua = runtime
        self._nursery = nursery
        self._endpoint = Endpoint.alone() if endpoint is None else endpoint
        runtime.alerts.attach(self._endpoint)

    async def run(self) -> None:
        """Send alerts, and receive those of others, until cancelled."""
        await self._lua.alerts.serve(self._start)

    async def drained(self) -> None:
        """Wait until no handler runs, and what was sent is on its way."""
        await self._lua.alerts.finish(_LINGER)

    def close(self) -> None:
        """Send what was collected last, as far as it is taken at once, and close the endpoint."""
        self._lua.alerts.flush()
        self._endpoint.close()

    def _start(self, id: int, result: Any) -> None:
        serve_without_client(self._lua, self._nursery, id, result, self._ended)

    def _ended(self, id: int) -> None:
        self._lua.release(id)
        self._lua.alerts.ended()
