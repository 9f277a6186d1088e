"""The two ways bytes reach a client: a non-blocking socket, or any Trio stream.

Everything above knows one interface, :class:`Transport`. ``send_nowait`` takes what the peer
takes at once (a stream takes nothing then, all of it waits for :meth:`Transport.send`); the others wait. Errors of
the peer end as :class:`Broken`, whatever the operating system called them.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Protocol

import trio

from trio_lua.errors import TrioLuaError
from trio_lua.net.tls_facts import TlsFacts

__all__ = ["RECEIVE_SIZE", "Broken", "SocketTransport", "StreamTransport", "Transport"]

RECEIVE_SIZE = 65536


class Broken(TrioLuaError):
    """The peer is gone."""


class Transport(Protocol):
    """A byte stream to a client."""

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Number of bytes that were taken at once.

        Raises:
            Broken: The peer is gone.
        """

    async def send(self, data: bytes | memoryview) -> int:
        """Wait until some bytes can be sent, send them and return their number.

        Raises:
            Broken: The peer is gone.
        """

    def forget_unsent(self) -> None:
        """What was refused by :meth:`send_nowait` and :meth:`send` will not be offered again."""

    async def receive(self) -> bytes:
        """Wait for bytes; b"" at the end of the stream.

        Raises:
            Broken: The peer is gone.
        """

    def receive_nowait(self) -> bytes | None:
        """Bytes that are here; None when there are none yet, or one can only wait for them.

        Raises:
            Broken: The peer is gone.
        """

    def fileno(self) -> int:
        """A descriptor that can be polled for the peer's close; -1 when there is none."""

    def peek(self) -> bool:
        """Whether unread bytes lie in front of the peer's close."""

    async def send_eof(self) -> None:
        """Say that nothing more will come, where the transport can say so."""

    def close(self) -> None:
        """Close now. Safe to call again."""

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Peer address and port, own address and port, as text; "unix:" and "" for unix sockets."""

    @property
    def tls(self) -> bool:
        """Whether the stream is encrypted."""

    @property
    def facts(self) -> TlsFacts | None:
        """What is known of the encryption; None where there is none."""


def socket_addresses(
    sock: socket.socket, accepted: Any = None
) -> tuple[bytes, bytes, bytes, bytes]:
    """The addresses of a socket in the form of :meth:`Transport.addresses`.

    Args:
        sock: The socket.
        accepted: The peer's address as ``accept`` gave it: a socket that the peer has reset does not know it any more.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return b"unix:", b"", b"unix:", b""
    try:
        peer = accepted or sock.getpeername()
        own = sock.getsockname()
    except OSError:
        return b"", b"", b"", b""
    return (
        peer[0].encode(),
        str(peer[1]).encode(),
        own[0].encode(),
        str(own[1]).encode(),
    )


class SocketTransport:
    """A non-blocking stream socket: tries first, waits second."""

    __slots__ = ("_accepted", "_closed", "sock")

    tls = False
    facts = None

    def __init__(self, sock: socket.socket, accepted: Any = None) -> None:
        self.sock = sock
        self._accepted = accepted
        self._closed = False

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise Broken(str(error)) from None

    async def send(self, data: bytes | memoryview) -> int:
        while True:
            try:
                await trio.lowlevel.wait_writable(self.sock)
            except (trio.ClosedResourceError, OSError) as error:
                raise Broken(str(error)) from None
            sent = self.send_nowait(data)
            if sent:
                return sent

    def forget_unsent(self) -> None:
        pass

    async def receive(self) -> bytes:
        while True:
            try:
                return self.sock.recv(RECEIVE_SIZE)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                raise Broken(str(error)) from None
            try:
                await trio.lowlevel.wait_readable(self.sock)
            except (trio.ClosedResourceError, OSError, ValueError) as error:
                raise Broken(str(error)) from None

    def receive_nowait(self) -> bytes | None:
        try:
            return self.sock.recv(RECEIVE_SIZE)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise Broken(str(error)) from None

    def fileno(self) -> int:
        return self.sock.fileno()

    def peek(self) -> bool:
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False

    async def send_eof(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self.sock.fileno() >= 0:
                trio.lowlevel.notify_closing(self.sock)
            self.sock.close()

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        return socket_addresses(self.sock, self._accepted)


class StreamTransport:
    """Any Trio stream: TLS, memory streams, streams that an embedding program hands over."""

    __slots__ = ("_addresses", "_closed", "_scope", "facts", "stream", "tls")

    def __init__(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        """Wrap a stream.

        Args:
            stream: The stream.
            scope: Of the task that serves it; closing cancels it.
        """
        self.stream = stream
        self.tls = isinstance(stream, trio.SSLStream)
        self.facts = TlsFacts(stream) if self.tls else None
        self._scope = scope
        self._closed = False
        inner: object = stream
        while isinstance(inner, trio.SSLStream):
            inner = inner.transport_stream
        raw = getattr(inner, "socket", None)
        self._addresses = (b"unix:", b"", b"unix:", b"") if raw is None else socket_addresses(raw)

    def send_nowait(self, data: bytes | memoryview) -> int:
        if self._closed:
            raise Broken("closed")
        return 0

    async def send(self, data: bytes | memoryview) -> int:
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Broken(str(error)) from None
        return len(data)

    def forget_unsent(self) -> None:
        pass

    async def receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(RECEIVE_SIZE))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Broken(str(error)) from None

    def receive_nowait(self) -> bytes | None:
        return None

    def fileno(self) -> int:
        return -1

    def peek(self) -> bool:
        return False

    async def send_eof(self) -> None:
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.stream.send_eof()

    def close(self) -> None:
        self._closed = True

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        return self._addresses
