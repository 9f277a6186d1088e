"""ASGI applications, one for asyncio's servers and one for Trio's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from benchmarks.servers.application import Application

__all__ = ["asyncio_app", "trio_app"]

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _Asgi:
    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._application = Application(sleep)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return

        async def read_body() -> bytes:
            message = await receive()
            body: bytes = message.get("body", b"")
            while message.get("more_body"):
                message = await receive()
                body += message.get("body", b"")
            return body

        status, body = await self._application.respond(scope["path"], scope["headers"], read_body)
        headers = [
            (b"content-type", b"text/plain"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{kind}.complete"})
        if kind == "shutdown":
            return


asyncio_app = _Asgi(asyncio.sleep)
trio_app = _Asgi(trio.sleep)
