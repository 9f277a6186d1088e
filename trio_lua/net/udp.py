"""Datagram sockets for Lua code: one peer, no streams."""

from __future__ import annotations

import errno
import socket

import trio

from trio_lua.net.errors import CRIT, SocketError, text_of
from trio_lua.net.network import Network
from trio_lua.net.resolver import Resolver, resolve
from trio_lua.net.tcp import Destination, address_of

__all__ = ["MAX_DATAGRAM", "UdpSocket"]

#: Bytes of the largest datagram that is received whole.
MAX_DATAGRAM = 8192


class UdpSocket:
    """A datagram socket.

    Args:
        network: What makes it.
        destination: Its peer.
        local: The address to send from.

    Attributes:
        sock: The socket, None before it has a peer and after it was closed.
    """

    __slots__ = ("_destination", "_local", "_network", "sock")

    def __init__(
        self, network: Network, destination: Destination, local: str | None = None
    ) -> None:
        self._network = network
        self._destination = destination
        self._local = local
        self.sock: socket.socket | None = None

    def connect_nowait(self) -> bool:
        """Set the peer, unless its name has to be resolved; whether that is done.

        Raises:
            SocketError: It cannot be reached.
        """
        address = self._destination.address
        if address is None:
            return False
        self.sock = self._network.datagrams(address, self._local)
        return True

    async def connect(self, resolver: Resolver, resolver_seconds: float) -> None:
        """Resolve the peer's name and set it.

        Raises:
            SocketError: The name has no address, or that cannot be reached.
        """
        where = self._destination
        found = await resolve(resolver, where.host, resolver_seconds)
        address = address_of(found[0], where.port)
        self.sock = self._network.datagrams(address, self._local)

    def send(self, data: bytes) -> None:
        """Send a datagram.

        Raises:
            SocketError: It was refused.
        """
        assert self.sock is not None
        try:
            self.sock.send(data)
        except OSError as error:
            raise self._failed("send", error) from None

    def receive_nowait(self, size: int) -> bytes | None:
        """A datagram, its first ``size`` bytes; None when there is none.

        Raises:
            SocketError: An earlier datagram was refused.
        """
        assert self.sock is not None
        try:
            return self.sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise self._failed("recv", error) from None

    async def receive(self, size: int, seconds: float) -> bytes:
        """Wait for a datagram, ``seconds`` at most.

        Raises:
            SocketError: An earlier datagram was refused, or none has come ("timeout").
        """
        sock = self.sock
        assert sock is not None
        with trio.move_on_after(seconds):
            while True:
                try:
                    await trio.lowlevel.wait_readable(sock)
                except trio.ClosedResourceError:
                    raise SocketError("closed") from None
                data = self.receive_nowait(size)
                if data is not None:
                    return data
        raise SocketError("timeout", "lua udp socket read timed out")

    @staticmethod
    def _failed(call: str, error: OSError) -> SocketError:
        ordinary = error.errno == errno.ECONNREFUSED
        log = f"{call}() failed ({error.errno}: {error.strerror})"
        return SocketError(text_of(error), log, 4 if ordinary else CRIT)

    def close(self) -> None:
        """Close. Safe to call again."""
        sock, self.sock = self.sock, None
        if sock is not None:
            trio.lowlevel.notify_closing(sock)
            sock.close()
