"""The network itself: names, addresses, and who answers at them."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import trio

from trio_lua.net.dns import NOT_FOUND, unresolved
from trio_lua.net.errors import SocketError
from trio_lua.net.network import Address, SystemNetwork, refused
from trio_lua.net.resolver import Resolver
from trio_lua.testing.clock import LuaClock
from trio_lua.testing.network.http import HttpPeer, Routes
from trio_lua.testing.network.memcached import MemcachedPeer
from trio_lua.testing.network.peers import (
    DatagramHandler,
    DatagramPeer,
    Handler,
    Peer,
    Script,
    ScriptedPeer,
    reset,
    silent,
)
from trio_lua.testing.network.redis import RedisPeer

__all__ = ["BoundNetwork", "LuaNetwork", "NetworkFailure"]

#: Where names without addresses of their own lie: reserved for tests of networks (RFC 2544).
_VIRTUAL = ipaddress.ip_network("198.18.0.0/15")


class NetworkFailure(AssertionError):
    """Lua code did not do with a peer what the test has announced."""


class LuaNetwork:
    """What the servers of a test can reach. Nothing else answers.

    A host is a name, an address, or ``unix:/path``. As a context manager it calls :meth:`check` at the end.

    Args:
        clock: The run's clock; needed for :meth:`pass_through` only.

    Attributes:
        queries: The names that were looked up, in their order.
    """

    def __init__(self, clock: LuaClock | None = None) -> None:
        self.queries: list[str] = []
        self._clock = clock
        self._peers: dict[tuple[str, int], Peer] = {}
        self._datagram_peers: dict[tuple[str, int], DatagramPeer] = {}
        self._names: dict[str, list[str]] = {}
        self._slow_names: dict[str, float] = {}
        self._free = _VIRTUAL.hosts()
        self._open: set[tuple[str | None, int | None]] = set()

    def __enter__(self) -> LuaNetwork:
        return self

    def __exit__(self, kind: object, _value: object, _traceback: object) -> None:
        if kind is None:
            self.check()

    # -------------------------------------------------------------------- peers

    def tcp(
        self, host: str, port: int, handler: Handler, *, tls: ssl.SSLContext | None = None
    ) -> Peer:
        """A peer whose connections an async function speaks to.

        Args:
            host: Where it is.
            port: Of TCP; 0 for a Unix socket.
            handler: Called with a Trio stream for each connection.
            tls: A server's context: the stream is then what TLS has decrypted.
        """
        return self._add(host, port, Peer(_name(host, port), handler, tls=tls))

    def script(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> Script:
        """Say what the next connection to a peer has to look like; call it again for further connections.

        A test in which the connection is not made, or is different, fails.
        """
        peer = self._peers.get(_key(host, port))
        if not isinstance(peer, ScriptedPeer):
            peer = ScriptedPeer(_name(host, port), tls=tls)
            self._add(host, port, peer)
        script = Script()
        peer.scripts.append(script)
        return script

    def redis(
        self, host: str = "127.0.0.1", port: int = 6379, data: Mapping[str, Any] | None = None
    ) -> RedisPeer:
        """A small redis.

        Args:
            host: Where it is.
            port: Of TCP; 0 for a Unix socket.
            data: Keys and values to begin with: text, numbers, lists, sets, dicts.
        """
        peer = RedisPeer(_name(host, port), data or {})
        self._add(host, port, peer)
        return peer

    def memcached(
        self,
        host: str = "127.0.0.1",
        port: int = 11211,
        data: Mapping[str, str | bytes] | None = None,
    ) -> MemcachedPeer:
        """A small memcached.

        Args:
            host: Where it is.
            port: Of TCP; 0 for a Unix socket.
            data: Keys and values to begin with.
        """
        clock = self._clock
        now = trio.current_time if clock is None else clock.now
        peer = MemcachedPeer(_name(host, port), data or {}, now)
        self._add(host, port, peer)
        return peer

    def http(
        self, host: str, port: int = 80, routes: Routes = "", *, tls: ssl.SSLContext | None = None
    ) -> HttpPeer:
        """A small HTTP server.

        Args:
            host: Where it is.
            port: Of TCP; 0 for a Unix socket.
            routes: What it answers, see :class:`HttpPeer`.
            tls: A server's context, for HTTPS.
        """
        peer = HttpPeer(_name(host, port), routes, tls=tls)
        self._add(host, port, peer)
        return peer

    def udp(self, host: str, port: int, handler: DatagramHandler | None = None) -> DatagramPeer:
        """A peer that answers datagrams; without a handler it only takes them.

        Args:
            host: Where it is.
            port: Of UDP; 0 for a Unix socket.
            handler: A function, async or not, from a datagram to one, several or None.
        """
        peer = DatagramPeer(_name(host, port), handler)
        self._datagram_peers[_key(host, port)] = peer
        self._place(host)
        return peer

    def refuse(self, host: str, port: int) -> Peer:
        """Connections are refused."""
        peer = self.tcp(host, port, silent)
        peer.refuses = True
        return peer

    def timeout(self, host: str, port: int) -> Peer:
        """Connections are never made."""
        return self.tcp(host, port, silent).slow(connecting=float("inf"))

    def silent(self, host: str, port: int) -> Peer:
        """Connections are made, but nothing ever answers."""
        return self.tcp(host, port, silent)

    def reset(self, host: str, port: int) -> Peer:
        """Connections are reset when the client sends something."""
        return self.tcp(host, port, reset)

    def slow(self, host: str, port: int, seconds: float = 0.0, *, connecting: float = 0.0) -> Peer:
        """Let a peer take its time, see :meth:`Peer.slow`."""
        return self._peers[_key(host, port)].slow(seconds, connecting=connecting)

    def _add(self, host: str, port: int, peer: Peer) -> Peer:
        self._peers[_key(host, port)] = peer
        self._place(host)
        return peer

    def _place(self, host: str) -> None:
        """A host has to have an address."""
        if not host.startswith("unix:") and not _is_address(host):
            self._names.setdefault(host.lower(), [str(next(self._free))])

    # -------------------------------------------------------------------- names

    def dns(self, name: str, *addresses: str, seconds: float = 0.0) -> None:
        """What a name resolves to; without addresses it does not exist.

        Names of peers resolve without this.

        Args:
            name: The name.
            addresses: Its addresses; several are tried as with real ones.
            seconds: How long an answer takes; ``math.inf`` for no answer.
        """
        self._names[name.lower()] = list(addresses)
        self._slow_names[name.lower()] = seconds

    async def resolve(self, name: str) -> list[str]:
        """The addresses of a name (see :class:`~trio_lua.net.resolver.Resolver`).

        Raises:
            SocketError: It has none.
        """
        self.queries.append(name)
        await trio.sleep(self._slow_names.get(name.lower(), 0))
        found = self._names.get(name.lower())
        if found:
            return list(found)
        error = unresolved(name, NOT_FOUND)
        if found is None:
            error.log = (
                f'the test has no host "{name}": add a peer with lua_network.tcp("{name}", PORT, handler) or '
                f'an address with lua_network.dns("{name}", ADDRESS)'
            )
        raise error

    # ------------------------------------------------------------- the real one

    def pass_through(self, host: str | None = None, port: int | None = None) -> None:
        """Let connections go to the real network where the test has no peer.

        From the first of them on time passes as it does outside, and does not jump.

        Args:
            host: To this host only, as Lua code names it.
            port: To this port only.
        """
        self._open.add((None if host is None else host.lower(), port))

    def passes(self, host: str, port: int | None) -> bool:
        """Whether something goes to the real network; a port of None: whether its name is looked up there."""
        return any(
            allowed in (None, host.lower()) and (port is None or number in (None, port))
            for allowed, number in self._open
        )

    def go_real(self) -> None:
        """The real network is in use: time must not jump any more."""
        if self._clock is not None:
            self._clock.follow_real_time()

    # ------------------------------------------------------------------- lookup

    def hosts(self, address: Address) -> Iterator[tuple[str, int]]:
        """Under what names and ports an address is known, names first."""
        family, where = address
        if family == socket.AF_UNIX:
            yield f"unix:{os.fsdecode(where)}", 0  # type: ignore[arg-type]
            return
        assert isinstance(where, tuple)
        host, port = where
        for name, addresses in self._names.items():
            if host in addresses:
                yield name, port
        yield _key(host, port)

    def peer(self, address: Address) -> Peer | None:
        """Who answers at an address."""
        return next((self._peers[key] for key in self.hosts(address) if key in self._peers), None)

    def datagram_peer(self, address: Address) -> DatagramPeer | None:
        """Who takes datagrams at an address."""
        peers = self._datagram_peers
        return next((peers[key] for key in self.hosts(address) if key in peers), None)

    def bound(self, nursery: trio.Nursery) -> BoundNetwork:
        """What a server takes as its network; the peers' tasks run in the nursery."""
        return BoundNetwork(self, nursery)

    def missing(self) -> list[str]:
        """What the scripts announce and Lua code has not done."""
        missing = [(peer.name, peer.missing()) for peer in self._peers.values()]
        return [f"{name}: {what}" for name, what in missing if what is not None]

    def check(self) -> None:
        """See that every script was followed.

        Raises:
            NetworkFailure: One was not; the message says where.
        """
        missing = self.missing()
        if missing:
            raise NetworkFailure("\n".join(missing))


class BoundNetwork:
    """The network as a server has it (:class:`~trio_lua.net.network.Network`).

    Args:
        network: The test's.
        nursery: Runs the peers.
    """

    def __init__(self, network: LuaNetwork, nursery: trio.Nursery) -> None:
        self._network = network
        self._nursery = nursery
        self._system = SystemNetwork()

    def connect(
        self, address: Address, local: tuple[str, int] | None
    ) -> tuple[socket.socket, bool]:
        """See :meth:`~trio_lua.net.network.Network.connect`."""
        peer = self._network.peer(address)
        if peer is None:
            self._leave(address, "tcp")
            return self._system.connect(address, local)
        why = peer.may_connect()
        if why is not None:
            error = refused(errno.ECONNREFUSED, address, at_once=True)
            error.log = f"{error.log}: {peer.name}: {why}"
            raise error
        return _End(socket.SOCK_STREAM), False

    async def connected(self, sock: socket.socket, address: Address) -> None:
        """See :meth:`~trio_lua.net.network.Network.connected`."""
        if not isinstance(sock, _End):
            await self._system.connected(sock, address)
            return
        peer = self._network.peer(address)
        assert peer is not None
        await peer.connected()
        if peer.refuses:
            raise refused(errno.ECONNREFUSED, address, at_once=False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock.give_other()))
        self._nursery.start_soon(peer.serve, stream)

    def datagrams(self, address: Address, local: str | None) -> socket.socket:
        """See :meth:`~trio_lua.net.network.Network.datagrams`."""
        peer = self._network.datagram_peer(address)
        if peer is None:
            self._leave(address, "udp")
            return self._system.datagrams(address, local)
        sock = _End(socket.SOCK_DGRAM)
        self._nursery.start_soon(peer.serve, trio.socket.from_stdlib_socket(sock.give_other()))
        return sock

    def _leave(self, address: Address, kind: str) -> None:
        """A connection leaves the test, if it may.

        Raises:
            SocketError: It may not.
        """
        hosts = list(self._network.hosts(address))
        if not any(self._network.passes(host, port) for host, port in hosts):
            host, port = hosts[0]
            # a Unix socket that is not there is a file that is not there
            missing = errno.ECONNREFUSED if port else errno.ENOENT
            error = refused(missing, address, at_once=True)
            error.log = (
                f'{error.log}: the test has no such peer: add it with lua_network.{kind}("{host}", {port}, '
                f'handler), or let it through with lua_network.pass_through("{host}", {port})'
            )
            raise error
        self._network.go_real()

    def resolver(self, words: Sequence[str]) -> Resolver:
        """See :meth:`~trio_lua.net.network.Network.resolver`."""
        return _Names(self._network, self._system, words)


class _Names:
    """The network's names first, then, where that is allowed, those of the real resolver."""

    def __init__(self, network: LuaNetwork, system: SystemNetwork, words: Sequence[str]) -> None:
        self._network = network
        self._system = system
        self._words = tuple(words)
        self._real: Resolver | None = None

    async def resolve(self, name: str) -> list[str]:
        network = self._network
        try:
            return await network.resolve(name)
        except SocketError:
            if not network.passes(name, None):
                raise
        network.go_real()
        if self._real is None:
            self._real = self._system.resolver(self._words)
        found = await self._real.resolve(name)
        network.dns(name, *found)
        return found


class _End(socket.socket):
    """Lua's end of a socket pair. It has options of TCP, too, which a Unix socket does not."""

    def __init__(self, kind: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        theirs.setblocking(False)
        self._other: socket.socket | None = theirs
        super().__init__(fileno=ours.detach())
        self.setblocking(False)

    def give_other(self) -> socket.socket:
        """The peer's end, which is the caller's from now on."""
        other, self._other = self._other, None
        assert other is not None
        return other

    def setsockopt(self, *args: Any) -> None:
        if args[0] != socket.IPPROTO_TCP:
            super().setsockopt(*args)

    def getsockopt(self, *args: Any) -> Any:
        return 1 if args[0] == socket.IPPROTO_TCP else super().getsockopt(*args)

    def close(self) -> None:
        if self._other is not None:
            self._other.close()
            self._other = None
        super().close()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _key(host: str, port: int) -> tuple[str, int]:
    return (host if host.startswith("unix:") else host.strip("[]").lower()), port


def _name(host: str, port: int) -> str:
    return f"{host}:{port}" if port else host
