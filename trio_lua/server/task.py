"""A task for each connection: the driver for streams.

TLS, memory streams in tests and streams that an embedding program hands over cannot be parked, so each has a task
that receives, serves and waits. The answers are the same as those of :mod:`trio_lua.server.parked`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_lua.errors import ProtocolError
from trio_lua.server.connection import Connection, Served
from trio_lua.server.listener import Endpoint
from trio_lua.server.tls import shake_hands
from trio_lua.server.transport import Broken, StreamTransport

if TYPE_CHECKING:
    from trio_lua.server.worker import Worker

__all__ = ["serve_stream"]

#: Seconds for the last words of TLS.
_FAREWELL = 5


async def serve_stream(worker: Worker, stream: trio.abc.Stream, endpoint: Endpoint) -> None:
    """Serve a connection until it ends; the stream is closed then."""
    with trio.CancelScope() as scope:
        conn = worker.connect(endpoint, StreamTransport(stream, scope))
        worker.streams[conn] = scope
        try:
            if endpoint.tls is None or conn.tls or await shake_hands(worker, conn):
                await _serve(worker, conn)
                if conn.tls:
                    with trio.move_on_after(_FAREWELL):
                        await conn.transport.send_eof()
        finally:
            del worker.streams[conn]
            worker.disconnect(conn)
            conn.close()
            with trio.CancelScope(shield=True) as closing:
                closing.cancel()
                await trio.aclose_forcefully(stream)


async def _serve(worker: Worker, conn: Connection) -> None:
    timeout = conn.endpoint.default.server.client_header_timeout
    deadline = trio.current_time() + timeout
    while True:
        worker.tick()
        try:
            found = conn.next_request(worker.now)
        except ProtocolError as error:
            await worker.refuse(conn, error, inline=False)
            await conn.drain()
            return
        if found is None:
            fresh = conn.idle
            with trio.CancelScope(deadline=deadline) as waiting:
                try:
                    data = await conn.transport.receive()
                except Broken:
                    return
            if waiting.cancelled_caught:
                worker.expired(conn)
                return
            if not data:
                worker.left(conn)
                return
            if fresh:
                deadline = trio.current_time() + timeout
            conn.receive(data)
            continue
        if not isinstance(found, Served):
            found.inline = False
            with trio.CancelScope() as found.cancel_scope:
                await worker.serve_request(conn, found)
        if conn.closed:
            return
        worker.rest(conn)
        deadline = conn.deadline
        if worker.quitting and conn.idle:
            return
