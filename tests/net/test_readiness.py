"""What is known of a socket without asking, and what a connection makes of it."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from trio_lua.net.errors import SocketError
from trio_lua.net.network import Address, SystemNetwork
from trio_lua.net.poller import Watcher
from trio_lua.net.pool import Pools
from trio_lua.net.readiness import Readiness
from trio_lua.net.tcp import TcpSocket


@contextlib.asynccontextmanager
async def watching() -> AsyncIterator[Watcher]:
    watcher = Watcher()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        yield watcher
        nursery.cancel_scope.cancel()
    watcher.close()


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[tuple[Readiness, socket.socket, socket.socket]]:
    """What is known about the first of two connected sockets, and both."""
    ours, peer = socket.socketpair()
    with ours, peer:
        async with watching() as watcher:
            readable = Readiness(watcher)
            yield readable, ours, peer
            readable.close()


class Pair(SystemNetwork):
    """Every connection leads to :attr:`peer`."""

    def connect(
        self, address: Address, local: tuple[str, int] | None
    ) -> tuple[socket.socket, bool]:
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        return ours, True


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[TcpSocket, socket.socket]]:
    network = Pair()
    async with watching() as watcher:
        link = TcpSocket(network, watcher, None)
        link.sock, _ = network.connect((socket.AF_UNIX, b""), None)
        with network.peer:
            yield link, network.peer
        link.close()


async def test_each_arrival_is_told_once() -> None:
    async with watched() as (readable, ours, peer):
        assert readable.ready  # nobody knows yet
        readable.watch(ours.fileno())
        readable.ready = False
        for _ in range(2):
            peer.send(b"x")
            await readable.wait(ours.fileno())
            assert readable.ready
            readable.ready = False
        await trio.testing.wait_all_tasks_blocked()
        assert not readable.ready  # though there is something
        assert not readable.ended
        peer.close()
        await readable.wait(ours.fileno())
        assert readable.ended


async def test_what_came_before_the_wait() -> None:
    async with watched() as (readable, ours, peer):
        peer.send(b"x")
        readable.ready = False
        await readable.wait(ours.fileno())
        assert readable.ready
        await readable.wait(ours.fileno())


async def test_a_wait_can_be_cancelled_and_closed() -> None:
    async with watched() as (readable, ours, _peer):
        readable.ready = False
        with trio.move_on_after(0) as scope:
            await readable.wait(ours.fileno())
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await readable.wait(ours.fileno())

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            readable.close()


async def test_the_end_comes_behind_the_data() -> None:
    async with connected() as (link, peer):
        assert link.receive_nowait(100) is None
        peer.send(b"abc")
        assert await link.receive(100, 1) == b"abc"
        assert link.receive_nowait(100) is None
        peer.send(b"def")
        peer.close()
        assert await link.receive(100, 1) == b"def"
        assert link.receive_nowait(100) == b""
        assert await link.receive(100, 1) == b""


async def test_the_end_comes_between_event_and_read() -> None:
    async with connected() as (link, peer):
        assert link.receive_nowait(100) is None
        peer.send(b"abc")
        link.readable.watch(link.sock.fileno() if link.sock else -1)
        await trio.testing.wait_all_tasks_blocked()
        assert link.readable.ready
        peer.close()
        assert link.receive_nowait(100) == b"abc"
        assert await link.receive(100, 1) == b""


async def test_a_full_read_leaves_something() -> None:
    async with connected() as (link, peer):
        assert link.receive_nowait(3) is None
        peer.send(b"abcdef")
        assert await link.receive(3, 1) == b"abc"
        assert await link.receive(3, 1) == b"def"
        assert link.receive_nowait(3) is None


async def test_rest() -> None:
    async with connected() as (link, peer):
        pools = Pools()
        pool = pools.open(b"k", 1)
        link.rest(pool, 60)
        assert pool.take() is link
        peer.send(b"abc")
        assert await link.receive(100, 1) == b"abc"
        link.rest(pool, 60)
        await trio.testing.wait_all_tasks_blocked()
        assert pools.idle == 1
        peer.send(b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert pools.idle == 0
        assert link.sock is None


@pytest.mark.parametrize("data", [b"", b"abc"])
async def test_no_rest_for_one_that_is_disturbed(data: bytes) -> None:
    async with connected() as (link, peer):
        pools = Pools()
        peer.send(data) if data else peer.close()
        with pytest.raises(SocketError, match="dubious state" if data else "closed"):
            link.rest(pools.open(b"k", 1), 60)
        assert link.sock is None


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="counts calls of epoll")
async def test_an_exchange_costs_no_call_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Epoll:
        def __init__(self) -> None:
            self._epoll = select_epoll()

        def __getattr__(self, name: str) -> object:
            if name in ("register", "modify", "unregister"):
                calls.append(name)
            return getattr(self._epoll, name)

    select_epoll = select.epoll
    monkeypatch.setattr(select, "epoll", Epoll)
    async with connected() as (link, peer):
        pool = Pools().open(b"k", 1)
        for _ in range(10):
            peer.send(b"abc")
            assert await link.receive(100, 1) == b"abc"
            assert link.receive_nowait(100) is None
            link.rest(pool, 60)
            assert pool.take() is link
    assert calls == ["register"]
