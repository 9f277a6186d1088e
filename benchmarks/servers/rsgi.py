"""An RSGI application, granian's own interface."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.servers.application import Application

__all__ = ["app"]

_application = Application(asyncio.sleep)
_HEADERS = [("content-type", "text/plain")]


async def app(scope: Any, protocol: Any) -> None:
    headers = scope.headers.items() if scope.path == "/phases" else ()
    status, body = await _application.respond(scope.path, headers, protocol)
    protocol.response_bytes(status, _HEADERS, body)
