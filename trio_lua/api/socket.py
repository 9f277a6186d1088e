"""``ngx.socket.tcp``: the calls and operations behind cosockets.

Lua knows a socket by a number. It closes its sockets when their request ends; an operation that is cancelled closes
the socket that it waits for, whose state nobody could know.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import trio

from trio_lua.config.model import Settings
from trio_lua.errors import TrioLuaError
from trio_lua.lua.driver import attempt
from trio_lua.lua.ops import OpTable
from trio_lua.net.errors import SocketError, text_of
from trio_lua.net.network import Network, SystemNetwork
from trio_lua.net.poller import Watcher
from trio_lua.net.pool import Pools
from trio_lua.net.resolver import Resolver
from trio_lua.net.tcp import TcpSocket, is_address, parse_destination
from trio_lua.net.tls import Certificate, Contexts, TlsSettings

__all__ = ["Failure", "Sockets", "failure"]

#: What ``setoption`` and ``getoption`` know: level and name for the system.
_OPTIONS = {
    b"keepalive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    b"reuseaddr": (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    b"tcp-nodelay": (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    b"sndbuf": (socket.SOL_SOCKET, socket.SO_SNDBUF),
    b"rcvbuf": (socket.SOL_SOCKET, socket.SO_RCVBUF),
}

#: The calls ``rt.py.tcp_...``; each is a method of :class:`Sockets`.
_CALLS = [
    "connect",
    "receive",
    "send",
    "rest",
    "close",
    "reused",
    "set",
    "get",
    "tls",
    "encrypted",
    "session",
    "forget_session",
    "resumable",
]

#: nil, text, log line, level: how a failure reaches Lua.
Failure = tuple[None, bytes, "bytes | None", int]


def failure(error: SocketError) -> Failure:
    """What Lua receives for a failure."""
    log = None if error.log is None else error.log.encode("utf-8", "surrogateescape")
    return None, error.text.encode("utf-8", "surrogateescape"), log, error.level


_CLOSED: Failure = (None, b"closed", None, 0)


class _Closing:
    """A socket in use, which is closed when a wait for it does not end in its own way."""

    __slots__ = ("_close", "_link", "_number")

    def __init__(self, link: TcpSocket, number: int, close: Callable[[int], bool]) -> None:
        self._link = link
        self._number = number
        self._close = close

    def __enter__(self) -> TcpSocket:
        return self._link

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is not None and not issubclass(kind, TrioLuaError):
            self._close(self._number)


class Sockets:
    """The cosockets of a VM, its pools and its resolvers.

    Args:
        table: Where to add the calls and operations of ``socket.lua``.
        network: Where sockets lead.
    """

    def __init__(self, table: OpTable, network: Network | None = None) -> None:
        self.network = SystemNetwork() if network is None else network
        self.watcher = Watcher()
        self.pools = Pools()
        self._system = self.network.resolver(())
        self._resolvers: list[Resolver] = []
        self._numbers: dict[tuple[str, ...], int] = {}
        self._sockets: dict[int, TcpSocket] = {}
        self._last = 0
        self.contexts = Contexts()
        self._tls_settings: list[TlsSettings] = []
        self._sessions: dict[int, tuple[ssl.SSLContext, ssl.SSLSession]] = {}
        for name in _CALLS:
            table.call(f"tcp_{name}", getattr(self, f"_{name}"))
        for name in ("connect", "receive", "send", "tls"):
            table.op(f"tcp_{name}", getattr(self, f"_{name}_op"), inline=name == "receive")
        table.call("is_address", _is_address)

    @property
    def open(self) -> int:
        """How many sockets requests have open."""
        return len(self._sockets)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look after idle connections; close them at the end."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.watcher.run)
                nursery.start_soon(self.pools.run)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self.close()

    def close(self) -> None:
        """Close everything."""
        for link in self._sockets.values():
            link.close()
        self._sockets.clear()
        self.pools.close()
        self.watcher.close()

    def constants(self, settings: Settings) -> dict[str, object]:
        """What ``socket.lua`` reads of a location (``r.loc.socket``)."""
        return {
            "connect_timeout": settings.lua_socket_connect_timeout,
            "send_timeout": settings.lua_socket_send_timeout,
            "read_timeout": settings.lua_socket_read_timeout,
            "buffer_size": settings.lua_socket_buffer_size,
            "pool_size": settings.lua_socket_pool_size,
            "keepalive_timeout": settings.lua_socket_keepalive_timeout,
            "log_errors": settings.lua_socket_log_errors,
            "check_client_abort": settings.lua_check_client_abort,
            "resolver": self._resolver_number(settings.resolver),
            "resolver_timeout": settings.resolver_timeout,
            "tls": self._tls_number(
                TlsSettings(
                    settings.lua_ssl_protocols,
                    settings.lua_ssl_ciphers,
                    settings.lua_ssl_verify_depth,
                    settings.lua_ssl_trusted_certificate,
                    settings.lua_ssl_crl,
                    settings.lua_ssl_certificate,
                    settings.lua_ssl_certificate_key,
                    settings.lua_ssl_key_log,
                )
            ),
        }

    def _resolver_number(self, words: tuple[str, ...]) -> int:
        if not words:
            return 0
        number = self._numbers.get(words)
        if number is None:
            self._resolvers.append(self.network.resolver(words))
            number = self._numbers[words] = len(self._resolvers)
        return number

    def resolver(self, number: int) -> Resolver:
        """The resolver of a location."""
        return self._resolvers[number - 1] if number else self._system

    def resolver_of(self, settings: Settings) -> Resolver:
        """The same by the location's settings."""
        return self.resolver(self._resolver_number(settings.resolver))

    # -------------------------------------------------------------------- calls

    def _connect(
        self,
        host: bytes,
        port: int,
        key: bytes,
        pool_size: int,
        backlog: int | None,
        local: bytes | None,
        local_port: int,
    ) -> tuple[int, int] | Failure:
        """Number and times of reuse, which is -1 when the operation has to follow."""
        pool = self.pools.get(key)
        if pool is None and pool_size:
            pool = self.pools.open(key, pool_size, backlog)
        if pool is not None:
            rested = pool.take()
            if rested is not None:
                assert isinstance(rested, TcpSocket)
                rested.pool = pool
                return self._add(rested), rested.reused
        link: TcpSocket | None = None
        try:
            turn = None if pool is None else pool.admit()
            link = TcpSocket(
                self.network,
                self.watcher,
                pool,
                None if local is None else (local.decode(), local_port),
            )
            link.turn = turn
            link.destination = parse_destination(os.fsdecode(host), port)
            done = link.connect_nowait()
        except SocketError as error:
            if link is not None:
                link.close()
            return failure(error)
        return self._add(link), 0 if done else -1

    def _add(self, link: TcpSocket) -> int:
        self._last = number = self._last + 1
        self._sockets[number] = link
        return number

    def _receive(self, number: int, size: int) -> bytes | Failure | None:
        link = self._sockets.get(number)
        if link is None:
            return _CLOSED
        try:
            return link.receive_nowait(size)
        except SocketError as error:
            return failure(error)

    def _send(self, number: int, data: bytes) -> bool | Failure:
        link = self._sockets.get(number)
        if link is None:
            return _CLOSED
        try:
            return link.send_nowait(data)
        except SocketError as error:
            return failure(error)

    def _rest(
        self, number: int, key: bytes, size: int, seconds: float
    ) -> bool | tuple[None, bytes]:
        """Whether that has made the pool; None and an error."""
        link = self._sockets.pop(number, None)
        if link is None:
            return None, b"closed"
        new = link.pool is None and self.pools.get(key) is None
        try:
            link.rest(link.pool or self.pools.open(key, size), seconds or math.inf)
        except SocketError as error:
            return None, error.text.encode()
        return new

    def _close(self, number: int) -> bool:
        link = self._sockets.pop(number, None)
        if link is None:
            return False
        link.close()
        return True

    def _reused(self, number: int) -> int | None:
        link = self._sockets.get(number)
        return None if link is None else link.reused

    def _set(self, number: int, name: bytes, value: int) -> bool | tuple[None, bytes]:
        link, option = self._sockets.get(number), _OPTIONS[name]
        if link is None or link.sock is None:
            return None, b"closed"
        try:
            link.sock.setsockopt(*option, value)
        except OSError as error:
            return None, text_of(error).encode()
        return True

    def _get(self, number: int, name: bytes) -> int | tuple[None, bytes]:
        link, option = self._sockets.get(number), _OPTIONS[name]
        if link is None or link.sock is None:
            return None, b"closed"
        try:
            return link.sock.getsockopt(*option)
        except OSError as error:
            return None, text_of(error).encode()

    # ---------------------------------------------------------------------- TLS

    def _tls_number(self, settings: TlsSettings) -> int:
        if settings not in self._tls_settings:
            self._tls_settings.append(settings)
        return self._tls_settings.index(settings)

    def _encrypted(self, number: int) -> bool:
        link = self._sockets.get(number)
        return link is not None and link.tls

    def _tls(
        self,
        number: int,
        settings_number: int,
        name: bytes | None,
        verify: bool,
        session: int,
        chain: bytes | None,
        key: bytes | None,
    ) -> bool | Failure:
        """True when the handshake is done, False when the operation has to follow."""
        link = self._sockets.get(number)
        if link is None:
            return _CLOSED
        settings = self._tls_settings[settings_number]
        client = None if chain is None or key is None else Certificate(chain, key)
        try:
            context = self.contexts.get(settings, verify, name is not None, client)
            host = None if name is None else name.decode("latin-1")
            maker, known = self._sessions.get(session, (None, None))
            # OpenSSL resumes a session only with the settings that it began with
            return link.start_tls(
                context, host, known if maker is context else None, settings.depth
            )
        except SocketError as error:
            self._close(number)
            return failure(error)

    def _session(self, number: int, known: int) -> int | None:
        """Keep the TLS session of a connection; its number, None when there is none.

        It is the known one when that was resumed: each look at a session makes a copy of it, certificates and all.
        """
        link = self._sockets.get(number)
        sock = None if link is None else link.sock
        if not isinstance(sock, ssl.SSLSocket):
            return None
        if known in self._sessions and sock.session_reused:
            return known
        session = sock.session
        if session is None:
            return None
        self._last += 1
        self._sessions[self._last] = sock.context, session
        return self._last

    def _resumable(self, number: int) -> bool | None:
        """Whether the TLS session of a connection can be resumed, None when there is none."""
        link = self._sockets.get(number)
        session = getattr(None if link is None else link.sock, "session", None)
        return None if session is None else session.has_ticket or bool(session.id)

    def _forget_session(self, number: int) -> None:
        self._sessions.pop(number, None)

    # --------------------------------------------------------------- operations

    async def _connect_op(
        self, _owner: Any, number: int, seconds: float, resolver: int, resolver_seconds: float
    ) -> tuple[int] | Failure:
        try:
            with _Closing(self._sockets[number], number, self._close) as link:
                self._sockets[number] = await link.connect(
                    seconds, self.resolver(resolver), resolver_seconds
                )
        except SocketError as error:
            self._close(number)
            return failure(error)
        return (self._sockets[number].reused,)

    async def _receive_op(
        self, owner: Any, number: int, size: int, seconds: float
    ) -> tuple[bytes] | Failure:
        if owner.inline:
            found = await attempt(owner, partial(self._receive, number, size))
            if found is not None:
                return found if found.__class__ is tuple else (found,)
        try:
            with _Closing(self._sockets[number], number, self._close) as link:
                return (await link.receive(size, seconds),)
        except SocketError as error:
            return failure(error)

    async def _tls_op(self, _owner: Any, number: int, seconds: float) -> tuple[bool] | Failure:
        try:
            with _Closing(self._sockets[number], number, self._close) as link:
                await link.handshake(seconds)
        except SocketError as error:
            self._close(number)
            return failure(error)
        return (True,)

    async def _send_op(self, _owner: Any, number: int, seconds: float) -> tuple[bool] | Failure:
        try:
            with _Closing(self._sockets[number], number, self._close) as link:
                await link.send(seconds)
        except SocketError as error:
            return failure(error)
        return (True,)


def _is_address(text: bytes) -> bool:
    families = (socket.AF_INET, socket.AF_INET6)
    return any(is_address(family, text.decode("latin-1")) for family in families)
