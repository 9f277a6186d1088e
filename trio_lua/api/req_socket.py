"""``ngx.req.socket``: the client's connection as a socket of Lua code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from trio_lua.api.socket import Failure, failure
from trio_lua.errors import ProtocolError, TrioLuaError
from trio_lua.lua.ops import OpTable
from trio_lua.net.errors import SocketError
from trio_lua.request.context import ClientConnection

__all__ = ["install"]

_LEFT = SocketError("client aborted")
_BROKEN = SocketError("closed")


def install(table: OpTable, connections: Mapping[int, ClientConnection]) -> None:
    """Add the calls and operations of ``req_socket.lua``."""

    def take_raw(number: int) -> bool:
        return connections[number].take_raw()

    def continue_body(number: int) -> None:
        connections[number].continue_body()

    def body_receive(number: int, _size: int) -> bytes | Failure | None:
        try:
            return connections[number].body_nowait()
        except ProtocolError as error:
            return failure(SocketError("error", str(error)))

    async def body_receive_op(
        _owner: Any, number: int, size: int, seconds: float
    ) -> tuple[bytes] | Failure:
        connection = connections[number]
        with trio.move_on_after(seconds):
            while await connection.receive_more():
                data = body_receive(number, size)
                if isinstance(data, tuple):
                    return data
                if data is not None:
                    return (data,)
            return failure(_LEFT)
        return failure(SocketError("timeout", "lua tcp socket read timed out"))

    def raw_receive(number: int, _size: int) -> bytes | Failure | None:
        try:
            return connections[number].raw_nowait()
        except TrioLuaError:
            return failure(_BROKEN)

    async def raw_receive_op(
        _owner: Any, number: int, size: int, seconds: float
    ) -> tuple[bytes] | Failure:
        connection = connections[number]
        with trio.move_on_after(seconds):
            while await connection.receive_more():
                data = raw_receive(number, size)
                if isinstance(data, tuple):
                    return data
                if data:
                    return (data,)
            return (b"",)
        return failure(SocketError("timeout", "lua tcp socket read timed out"))

    def raw_send(number: int, data: bytes) -> bool | Failure | None:
        waiting = connections[number].write(data)
        if waiting < 0:
            return failure(_BROKEN)
        return None if waiting else True

    async def raw_send_op(_owner: Any, number: int, seconds: float) -> tuple[bool] | Failure:
        connection = connections[number]
        with trio.move_on_after(seconds):
            if await connection.drain():
                return (True,)
            return failure(_BROKEN)
        connection.drop_output()
        return failure(SocketError("timeout", "lua tcp socket write timed out"))

    table.call("take_raw", take_raw)
    table.call("continue_body", continue_body)
    table.call("body_receive", body_receive)
    table.op("body_receive", body_receive_op)
    table.call("raw_receive", raw_receive)
    table.op("raw_receive", raw_receive_op)
    table.call("raw_send", raw_send)
    table.op("raw_send", raw_send_op)
