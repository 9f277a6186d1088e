"""Where the sockets of Lua code lead: the system's network, or one that a test makes up.

A :class:`Network` makes sockets that are connected, or will be, and resolvers. All the rest (sending, receiving,
TLS, pools) is the same for real sockets and for the ends of socket pairs.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Protocol

import trio

from trio_lua.config.units import parse_time
from trio_lua.errors import ConfigError
from trio_lua.net.dns import DnsResolver, parse_server, system_servers
from trio_lua.net.errors import CRIT, ERR, SocketError, text_of
from trio_lua.net.resolver import Resolver, SystemResolver

__all__ = ["ORDINARY", "Address", "Network", "SystemNetwork", "address_text", "refused"]

#: Refusals that are part of life; other reasons are critical in nginx's logs.
ORDINARY = frozenset(
    (
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EPIPE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    )
)

#: Address family, and host and port or the path of a Unix socket.
Address = tuple[int, "tuple[str, int] | str | bytes"]


class Network(Protocol):
    """Makes the sockets of a VM."""

    def connect(
        self, address: Address, local: tuple[str, int] | None
    ) -> tuple[socket.socket, bool]:
        """A non-blocking stream socket, and whether it is connected already.

        Args:
            address: Of the peer.
            local: Host and port to connect from; None for any.

        Raises:
            SocketError: It failed at once.
        """

    async def connected(self, sock: socket.socket, address: Address) -> None:
        """Wait until a socket of :meth:`connect` is connected.

        Raises:
            SocketError: It failed.
        """

    def datagrams(self, address: Address, local: str | None) -> socket.socket:
        """A non-blocking datagram socket with a peer.

        Raises:
            SocketError: The peer cannot be reached.
        """

    def resolver(self, words: Sequence[str]) -> Resolver:
        """What a ``resolver`` directive with these arguments means; without any what is used if there is none.

        Raises:
            ConfigError: An argument is not valid.
        """


class SystemNetwork:
    """The network of the operating system."""

    def __init__(self) -> None:
        self._resolver = SystemResolver()

    def connect(
        self, address: Address, local: tuple[str, int] | None
    ) -> tuple[socket.socket, bool]:
        """See :meth:`Network.connect`."""
        sock = _new_socket(address, local)
        try:
            number = sock.connect_ex(address[1])
            if number not in (0, errno.EINPROGRESS):
                raise refused(number, address, at_once=True)
        except BaseException:
            sock.close()
            raise
        return sock, not number

    async def connected(self, sock: socket.socket, address: Address) -> None:
        """See :meth:`Network.connected`."""
        try:
            await trio.lowlevel.wait_writable(sock)
        except trio.ClosedResourceError:
            raise SocketError("closed") from None
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise refused(number, address, at_once=False)

    def datagrams(self, address: Address, local: str | None) -> socket.socket:
        """See :meth:`Network.datagrams`."""
        sock = socket.socket(address[0], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if address[0] == socket.AF_UNIX:
                # without a name of its own nobody could answer
                sock.bind("")
            elif local is not None:
                _bind(sock, (local, 0))
            sock.connect(address[1])
        except OSError as error:
            sock.close()
            reason = os.strerror(error.errno or 0)
            raise SocketError(
                text_of(error), f"connect() failed ({error.errno}: {reason})", CRIT
            ) from None
        return sock

    def resolver(self, words: Sequence[str]) -> Resolver:
        """See :meth:`Network.resolver`."""
        return _dns_resolver(words) if words else self._resolver


def _new_socket(address: Address, local: tuple[str, int] | None) -> socket.socket:
    try:
        sock = socket.socket(address[0], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise SocketError(text_of(error), f"socket() failed ({error})", CRIT) from None
    if address[0] != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local is not None:
            try:
                _bind(sock, local)
            except OSError as error:
                sock.close()
                text = f"bind({local[0]}) failed ({error.errno}: {error.strerror})"
                raise SocketError(text_of(error), text, CRIT) from None
    return sock


def _bind(sock: socket.socket, local: tuple[str, int]) -> None:
    try:
        sock.bind(local)
    except socket.gaierror:
        # Python's own number for an address of the other family
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT)) from None


def _dns_resolver(words: Sequence[str]) -> Resolver:
    servers: list[tuple[str, int]] = []
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            options[key] = value
        else:
            host, port = parse_server(word)
            try:
                servers.append((socket.gethostbyname(host) if ":" not in host else host, port))
            except OSError:
                raise ConfigError(f'host not found in resolver "{word}"') from None
    if options.get("local") == "on":
        servers += [(address, 53) for address in system_servers()]
    valid = options.get("valid")
    return DnsResolver(
        servers,
        valid=None if valid is None else parse_time(valid, seconds=True),
        ipv4=options.get("ipv4") != "off",
        ipv6=options.get("ipv6") != "off",
    )


def address_text(address: Address) -> str:
    """An address as it appears in log lines."""
    family, where = address
    if family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(where)}"  # type: ignore[arg-type]
    assert isinstance(where, tuple)
    host, port = where
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def refused(number: int, address: Address, *, at_once: bool) -> SocketError:
    """A connection could not be made; nginx names the address only when that is known at once."""
    reason = os.strerror(number)
    where = f"connect() to {address_text(address)} failed" if at_once else "connect() failed"
    level = ERR if number in ORDINARY else CRIT
    return SocketError(reason.lower(), f"{where} ({number}: {reason})", level)
