"""Stream sockets for Lua code: connect, send, receive, in the "try first, wait second" way."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from trio_lua.net.errors import CRIT, ERR, SocketError, text_of
from trio_lua.net.network import ORDINARY, Address, Network, address_text
from trio_lua.net.poller import Watcher
from trio_lua.net.pool import Pool, Turn
from trio_lua.net.readiness import Readiness
from trio_lua.net.resolver import Resolver, resolve
from trio_lua.net.tls import check_depth, handshake_error

__all__ = ["Destination", "TcpSocket", "failed", "is_address", "parse_destination"]

#: Bytes given to the system in one call.
_SEND_SIZE = 262144

#: How long one address may take before the next one is tried as well (RFC 8305).
_ATTEMPT_DELAY = 0.25

#: What a handshake waits for.
_READ, _WRITE = 1, 2

_BLOCKED = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_PORT = re.compile(r":(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to connect.

    Attributes:
        text: As it appears in log lines.
        address: Family and address, when no resolution is needed.
        host: The name to resolve otherwise.
        port: Of the peer.
    """

    text: str
    address: Address | None
    host: str
    port: int


_NOWHERE = Destination("", None, "", 0)


def parse_destination(host: str, port: int) -> Destination:
    """What a host argument of Lua's ``connect`` means: a path, an address or a name.

    Raises:
        SocketError: It is malformed.
    """
    if host[:5].lower() == "unix:":
        path = host[5:]
        if not path:
            raise _bad_host(host, "no path in the unix domain socket")
        raw = os.fsencode(path)
        if len(raw) > 107:
            raise _bad_host(host, "too long path in the unix domain socket")
        return Destination(host, (socket.AF_UNIX, raw), host, 0)
    if host.startswith("["):
        inner, bracket, rest = host[1:].partition("]")
        if not bracket:
            raise _bad_host(host, "invalid host")
        if not is_address(socket.AF_INET6, inner):
            raise _bad_host(host, "invalid IPv6 address")
        port = _own_port(host, rest, port)
        return Destination(f"[{inner}]:{port}", (socket.AF_INET6, (inner, port)), inner, port)
    name, colon, _ = host.partition(":")
    if colon:
        port = _own_port(host, host[len(name) :], port)
    if not name:
        raise _bad_host(host, "no host")
    if is_address(socket.AF_INET, name):
        return Destination(f"{name}:{port}", (socket.AF_INET, (name, port)), name, port)
    return Destination(f"{name}:{port}", None, name, port)


def _bad_host(host: str, reason: str) -> SocketError:
    return SocketError(f'failed to parse host name "{host}": {reason}')


def _own_port(host: str, rest: str, port: int) -> int:
    if not rest:
        return port
    match = _PORT.fullmatch(rest)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise _bad_host(host, "invalid port")
    return int(match[1])


def is_address(family: int, text: str) -> bool:
    """Whether a text is a numeric address."""
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


def address_of(text: str, port: int) -> Address:
    """Family and address of a numeric address."""
    return (socket.AF_INET6 if ":" in text else socket.AF_INET), (text, port)


class TcpSocket:
    """One connection, from before it is made until it is closed or rests in a pool.

    Args:
        network: What makes it.
        watcher: Who tells when something can be received.
        pool: See :attr:`pool`.
        local: Host and port to connect from.

    Attributes:
        destination: Where to connect; set before that.
        sock: The socket; an :class:`ssl.SSLSocket` after a handshake; None before the connection is made.
        pool: The pool in which it is counted.
        readable: Whether there is something to receive.
        turn: Its turn in the pool, as long as it has to wait for that.
        reused: How many times it has come out of a pool.
        tls: Whether a handshake has begun.
    """

    __slots__ = (
        "_depth",
        "_local",
        "_network",
        "_unsent",
        "destination",
        "pool",
        "readable",
        "reused",
        "sock",
        "tls",
        "turn",
    )

    def __init__(
        self,
        network: Network,
        watcher: Watcher,
        pool: Pool | None,
        local: tuple[str, int] | None = None,
    ) -> None:
        self._network = network
        self.readable = Readiness(watcher)
        self.destination = _NOWHERE
        self._local = local
        self.sock: socket.socket | None = None
        self.pool = pool
        self.turn: Turn | None = None
        self.reused = 0
        self.tls = False
        self._depth = 0
        self._unsent: memoryview | None = None

    # ---------------------------------------------------------------- connect

    def connect_nowait(self) -> bool:
        """Begin to connect; whether that is done already.

        Raises:
            SocketError: It failed at once.
        """
        address = self.destination.address
        if address is None or self.turn is not None:
            return False
        self.sock, done = self._network.connect(address, self._local)
        return done

    async def connect(
        self, seconds: float, resolver: Resolver, resolver_seconds: float
    ) -> TcpSocket:
        """Do what :meth:`connect_nowait` left.

        Args:
            seconds: For the turn in the pool at most, and again for the connection.
            resolver: Finds the addresses of a name.
            resolver_seconds: For that.

        Returns:
            This socket, or one that rested in the pool.

        Raises:
            SocketError: It failed, with "timeout" also because it took too long.
        """
        where = self.destination
        if self.turn is not None:
            pool = self.pool
            assert pool is not None
            with trio.move_on_after(seconds) as scope:
                link = await pool.wait_turn(self.turn)
            if scope.cancelled_caught:
                raise SocketError(
                    "timeout",
                    f"lua tcp socket queued connect timed out, when trying to connect to {where.text}",
                )
            self.turn = None
            if link is not None:
                assert isinstance(link, TcpSocket)
                self.pool = None
                link.pool = pool
                return link
            if self.connect_nowait():
                return self
        if self.sock is not None:
            addresses = [where.address]
        else:
            found = await resolve(resolver, where.host, resolver_seconds)
            addresses = [address_of(text, where.port) for text in found]
        with trio.move_on_after(seconds):
            await self._connect_any([address for address in addresses if address is not None])
            return self
        text = address_text(addresses[0]) if addresses[0] else where.text
        raise SocketError("timeout", f"lua tcp socket connect timed out, when connecting to {text}")

    async def _connect_any(self, addresses: Sequence[Address]) -> None:
        """Connect to the first address that answers."""
        if self.sock is not None:
            await self._network.connected(self.sock, addresses[0])
            return
        if len(addresses) == 1:
            await self._attempt(addresses[0])
            return
        errors: list[SocketError] = []

        async def attempt(address: Address, over: trio.Event) -> None:
            try:
                await self._attempt(address)
            except SocketError as error:
                errors.append(error)
            else:
                nursery.cancel_scope.cancel()
            over.set()

        async with trio.open_nursery() as nursery:
            for address in addresses:
                over = trio.Event()
                nursery.start_soon(attempt, address, over)
                with trio.move_on_after(_ATTEMPT_DELAY):
                    await over.wait()
        if self.sock is None:
            raise errors[0]

    async def _attempt(self, address: Address) -> None:
        sock, done = self._network.connect(address, self._local)
        try:
            if done:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await self._network.connected(sock, address)
        except BaseException:
            sock.close()
            raise
        if self.sock is None:
            self.sock = sock
        else:
            sock.close()

    # ------------------------------------------------------------ send, receive

    def receive_nowait(self, size: int) -> bytes | None:
        """Bytes that are here, b"" at the end of the stream, None when there are none yet.

        Raises:
            SocketError: The connection failed.
        """
        readable = self.readable
        assert self.sock is not None
        try:
            data = self.sock.recv(size)
        except _BLOCKED:
            readable.ready = False
            return None
        except OSError as error:
            raise failed("recv", error) from None
        # there was no more; a TLS layer may have some even so
        if len(data) < size and not (readable.ended or self.tls):
            readable.ready = False
        return data

    async def receive(self, size: int, seconds: float) -> bytes:
        """Wait for bytes, ``seconds`` at most; b"" at the end of the stream.

        Raises:
            SocketError: The connection failed; "timeout" leaves it usable.
        """
        sock = self.sock
        assert sock is not None
        fd = sock.fileno()
        with trio.move_on_after(seconds):
            while True:
                try:
                    await self.readable.wait(fd)
                except trio.ClosedResourceError:
                    raise SocketError("closed") from None
                data = self.receive_nowait(size)
                if data is not None:
                    return data
        raise SocketError("timeout", "lua tcp socket read timed out")

    def send_nowait(self, data: bytes) -> bool:
        """Send what goes at once and keep the rest for :meth:`send`; whether nothing is left.

        Raises:
            SocketError: The connection failed.
        """
        sent = self._send_some(data)
        if sent == len(data):
            return True
        self._unsent = memoryview(data)[sent:]
        return False

    def _send_some(self, data: bytes | memoryview) -> int:
        assert self.sock is not None
        try:
            return self.sock.send(data)
        except _BLOCKED:
            return 0
        except OSError as error:
            raise failed("send", error) from None

    async def send(self, seconds: float) -> None:
        """Send the rest.

        Args:
            seconds: The time between two successful writes.

        Raises:
            SocketError: The connection failed, or the peer takes nothing ("timeout").
        """
        sock, data = self.sock, self._unsent
        assert sock is not None
        assert data is not None
        while data:
            with trio.move_on_after(seconds) as scope:
                try:
                    await trio.lowlevel.wait_writable(sock)
                except trio.ClosedResourceError:
                    raise SocketError("closed") from None
                # TLS wants the very bytes it refused
                data = data[self._send_some(data if self.tls else data[:_SEND_SIZE]) :]
            if scope.cancelled_caught:
                raise SocketError("timeout", "lua tcp socket write timed out")
        self._unsent = None

    # -------------------------------------------------------------------- TLS

    def start_tls(
        self,
        context: ssl.SSLContext,
        server_name: str | None,
        session: ssl.SSLSession | None,
        depth: int,
    ) -> bool:
        """Begin a handshake; whether it is done already.

        Args:
            context: For the handshake.
            server_name: Sent to the peer, and checked where the context checks names.
            session: One to be resumed, where the peer agrees.
            depth: See :class:`~trio_lua.net.tls.TlsSettings`.

        Raises:
            SocketError: It failed; this is then to be closed.
        """
        sock = self.sock
        assert sock is not None
        try:
            self.sock = context.wrap_socket(
                sock, do_handshake_on_connect=False, server_hostname=server_name, session=session
            )
        except ValueError as error:
            raise SocketError("SSL_set_tlsext_host_name failed", f"TLS: {error}") from None
        except OSError as error:
            raise SocketError("failed to create ssl connection", f"TLS: {error}") from None
        self.tls = True
        self.readable.ready = True
        self._depth = depth
        return self._shake() is None

    def _shake(self) -> int | None:
        """Go on with the handshake: what to wait for, None when it is done."""
        sock = self.sock
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            return _READ
        except ssl.SSLWantWriteError:
            return _WRITE
        except OSError as error:
            raise handshake_error(error, sock.server_hostname) from None
        if sock.context.verify_mode is not ssl.CERT_NONE:
            check_depth(sock, self._depth)
        return None

    async def handshake(self, seconds: float) -> None:
        """Bring a handshake to its end, for ``seconds`` at most.

        Raises:
            SocketError: It failed ("timeout": it took too long); this is then to be closed.
        """
        with trio.move_on_after(seconds):
            while True:
                wanted = self._shake()
                if wanted is None:
                    return
                assert self.sock is not None
                try:
                    if wanted == _READ:
                        await trio.lowlevel.wait_readable(self.sock)
                    else:
                        await trio.lowlevel.wait_writable(self.sock)
                except trio.ClosedResourceError:
                    raise SocketError("closed") from None
        raise SocketError("timeout")

    # -------------------------------------------------------------------- end

    def rest(self, pool: Pool, seconds: float) -> None:
        """Go into a pool.

        Raises:
            SocketError: The peer has closed, or there is data that nobody has asked for; this is closed then.
        """
        assert self.sock is not None
        # before the look, so that nothing can come between the two
        self.readable.watch(self.sock.fileno())
        text = self._disturbance()
        if text is None:
            counted = self.pool is not None
            self.pool = None
            pool.keep(self, seconds, counted)
            return
        self.close()
        raise SocketError(text)

    def _disturbance(self) -> str | None:
        """What keeps a connection from resting: its end, or data that nobody has asked for."""
        readable, sock = self.readable, self.sock
        if not readable.ready:
            return None
        assert sock is not None
        try:
            # past the TLS layer, if there is one
            if not socket.socket.recv(sock, 1, socket.MSG_PEEK):
                return "closed"
        except BlockingIOError:
            readable.ready = False
            return None
        except OSError:
            pass
        return "connection in dubious state"

    def rested(self, disturbed: Callable[[], None]) -> None:
        """See :class:`~trio_lua.net.pool.Poolable`."""

        def look() -> None:
            if self._disturbance() is not None:
                disturbed()

        self.readable.resting = look

    def resumed(self) -> None:
        """See :class:`~trio_lua.net.pool.Poolable`."""
        self.readable.resting = None

    def close(self) -> None:
        """Close, and leave the pool. Safe to call again."""
        sock, pool = self.sock, self.pool
        self.sock = self.pool = None
        if sock is not None:
            self.readable.close()
            if sock.fileno() >= 0:
                # who sends waits for Trio
                trio.lowlevel.notify_closing(sock)
            sock.close()
        if pool is not None:
            pool.release(self.turn)
            self.turn = None


def failed(call: str, error: OSError) -> SocketError:
    """The failure of a system call on a connection."""
    number = error.errno or 0
    if isinstance(error, ssl.SSLError):
        return SocketError("error", f"{call} failed ({error})")
    level = ERR if number in ORDINARY else CRIT
    return SocketError(text_of(error), f"{call}() failed ({number}: {error.strerror})", level)
