"""``ngx.say``, ``ngx.print`` and ``ngx.flush``: the way from Lua's output to the connection."""

from __future__ import annotations

from collections.abc import Mapping

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
    """Add ``rt.py.send``, ``rt.py.abort`` and the operations ``drain`` and ``flush``."""

    def send(connection: int, data: bytes) -> int:
        return connections[connection].write(data)

    def abort(connection: int) -> None:
        connections[connection].abort()

    table.call("send", send)
    table.call("abort", abort)
    table.op("drain", _drain)
    table.op("flush", _flush)
