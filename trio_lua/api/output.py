"""``ngx.say``, ``ngx.print`` and ``ngx.flush``: the way from Lua's output to the connection."""

from __future__ import annotations

from collections.abc import Mapping

from trio_lua.http.mime import lookup
from trio_lua.lua.ops import OpTable
from trio_lua.request.context import ClientConnection
from trio_lua.request.state import Request

__all__ = ["install"]

#: ``ngx.say`` waits above Lua's high-water mark until this little is unsent.
_LOW_WATER = 65536


async def _drain(request: Request, _connection: int) -> tuple[()]:
    await request.connection.drain(_LOW_WATER)
    return ()


async def _flush(request: Request, _connection: int) -> tuple[object, ...]:
    if await request.connection.drain():
        return (1,)
    return (None, b"nginx output filter error")


def install(table: OpTable, connections: Mapping[int, ClientConnection]) -> None:
    """Add the calls ``send``, ``abort`` and ``content_type``, the operations ``drain`` and ``flush``."""

    def send(connection: int, data: bytes) -> int:
        return connections[connection].write(data)

    def abort(connection: int) -> None:
        connections[connection].abort()

    table.call("send", send)

    def content_type(connection: int) -> bytes:
        request = connections[connection].request
        settings = request.plan.settings
        return lookup(request.uri, settings.types, settings.default_type).encode()

    table.call("abort", abort)
    table.call("content_type", content_type)
    table.op("drain", _drain)
    table.op("flush", _flush)
