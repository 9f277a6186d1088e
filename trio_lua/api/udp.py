"""``ngx.socket.udp``: the calls and operations behind datagram sockets."""

from __future__ import annotations

import os
from typing import Any

from trio_lua.api.socket import Failure, Sockets, failure
from trio_lua.lua.ops import OpTable
from trio_lua.net.errors import SocketError
from trio_lua.net.tcp import parse_destination
from trio_lua.net.udp import UdpSocket

__all__ = ["Datagrams"]

_CLOSED: Failure = (None, b"closed", None, 0)


class Datagrams:
    """The datagram sockets of a VM.

    Args:
        table: Where to add the calls and operations of ``udp.lua``.
        sockets: Has the network and its resolvers.
    """

    def __init__(self, table: OpTable, sockets: Sockets) -> None:
        self._network = sockets.network
        self._resolver = sockets.resolver
        self._sockets: dict[int, UdpSocket] = {}
        self._last = 0
        for name in ("connect", "receive", "send", "close"):
            table.call(f"udp_{name}", getattr(self, f"_{name}"))
        table.op("udp_connect", self._connect_op)
        table.op("udp_receive", self._receive_op)

    @property
    def open(self) -> int:
        """How many sockets requests have open."""
        return len(self._sockets)

    def close(self) -> None:
        """Close everything."""
        for number in list(self._sockets):
            self._close(number)

    def _connect(self, host: bytes, port: int, local: bytes | None) -> tuple[int, bool] | Failure:
        """Number, and whether it has its peer; otherwise the operation has to follow."""
        try:
            where = parse_destination(os.fsdecode(host), port)
            sock = UdpSocket(self._network, where, None if local is None else local.decode())
            done = sock.connect_nowait()
        except SocketError as error:
            return failure(error)
        self._last = number = self._last + 1
        self._sockets[number] = sock
        return number, done

    def _send(self, number: int, data: bytes) -> bool | Failure:
        sock = self._sockets.get(number)
        if sock is None:
            return _CLOSED
        try:
            sock.send(data)
        except SocketError as error:
            return failure(error)
        return True

    def _receive(self, number: int, size: int) -> bytes | Failure | None:
        sock = self._sockets.get(number)
        if sock is None:
            return _CLOSED
        try:
            return sock.receive_nowait(size)
        except SocketError as error:
            return failure(error)

    def _close(self, number: int) -> None:
        sock = self._sockets.pop(number, None)
        if sock is not None:
            sock.close()

    async def _connect_op(
        self, _owner: Any, number: int, resolver: int, resolver_seconds: float
    ) -> tuple[bool] | Failure:
        try:
            await self._sockets[number].connect(self._resolver(resolver), resolver_seconds)
        except SocketError as error:
            self._close(number)
            return failure(error)
        except BaseException:
            self._close(number)
            raise
        return (True,)

    async def _receive_op(
        self, _owner: Any, number: int, size: int, seconds: float
    ) -> tuple[bytes] | Failure:
        try:
            return (await self._sockets[number].receive(size, seconds),)
        except SocketError as error:
            return failure(error)
        except BaseException:
            self._close(number)
            raise
