"""Peers for the sockets of Lua code: what a test wants to be connected to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import trio
import trio.testing

Handler = Callable[[trio.SocketStream], Awaitable[None]]


class Upstream:
    """A listening peer.

    Attributes:
        port: Where it listens on 127.0.0.1.
        accepted: How many connections it has had.
        open: How many of them it has not closed.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.port = 0
        self.accepted = 0
        self.open = 0

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.accepted += 1
        self.open += 1
        try:
            async with stream:
                with contextlib.suppress(trio.BrokenResourceError):
                    await self._handler(stream)
        finally:
            self.open -= 1


@contextlib.asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[Upstream]:
    """A peer that runs ``handler(stream)`` for each connection."""
    peer = Upstream(handler)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peer.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, peer._serve, listeners)
        yield peer
        nursery.cancel_scope.cancel()


async def echo(stream: trio.SocketStream) -> None:
    """Sends back what it receives."""
    async for data in stream:
        await stream.send_all(data)


async def silent(stream: trio.SocketStream) -> None:
    """Receives, and says nothing."""
    async for _ in stream:
        pass


def say(*pieces: bytes) -> Handler:
    """Sends the pieces, one at a time, and closes."""

    async def handler(stream: trio.SocketStream) -> None:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()

    return handler
