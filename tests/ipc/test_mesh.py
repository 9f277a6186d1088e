"""A mesh whose endpoints are all in this process."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from trio_lua.errors import TrioLuaError
from trio_lua.ipc.endpoint import Endpoint
from trio_lua.ipc.frame import MAX_MESSAGE
from trio_lua.ipc.mesh import Mesh


class Peer:
    """An endpoint at work, and what it has received."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.got: list[tuple[int, bytes]] = []
        self.drained: list[tuple[int, int]] = []
        self.open = trio.Event()
        self.open.set()
        self.changed = trio.Event()

    def deliver(self, slot: int, _pid: int, message: bytes | memoryview | mmap.mmap) -> None:
        self.got.append((slot, bytes(message)))
        self.changed.set()

    async def room(self) -> None:
        await self.open.wait()

    async def run(self) -> None:
        await self.endpoint.serve(
            self.deliver, lambda *waiting: self.drained.append(waiting), self.room
        )

    async def receive(self, count: int) -> list[tuple[int, bytes]]:
        """The first messages, when they have come."""
        with trio.fail_after(20):
            while len(self.got) < count:
                self.changed = trio.Event()
                await self.changed.wait()
        return self.got[:count]


Start = Callable[[int], Peer]


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    with contextlib.closing(Mesh(3)) as mesh:
        for slot in range(3):
            mesh.forked(slot, 100 + slot)
        yield mesh


@pytest.fixture
async def start(mesh: Mesh) -> AsyncIterator[Start]:
    peers = []
    async with trio.open_nursery() as nursery:

        def start_one(slot: int) -> Peer:
            peer = Peer(mesh.endpoint(slot, share=True))
            peers.append(peer)
            nursery.start_soon(peer.run)
            return peer

        yield start_one
        nursery.cancel_scope.cancel()
    for peer in peers:
        peer.endpoint.close()


async def test_everybody_to_everybody(start: Start) -> None:
    peers = [start(slot) for slot in range(3)]
    for peer in peers:
        for other in range(3):
            peer.endpoint.send(other, b"%d to %d" % (peer.endpoint.slot, other))
    for slot, peer in enumerate(peers):
        expected = [(other, b"%d to %d" % (other, slot)) for other in range(3)]
        assert sorted(await peer.receive(3)) == expected


async def test_order_and_size(start: Start) -> None:
    """Messages of all sizes, several hundred times what an inbox holds."""
    chance = random.Random(3)
    sizes = [1, 100, 5000, MAX_MESSAGE, MAX_MESSAGE + 1, 300_000]
    sent = [chance.randbytes(chance.choice(sizes)) for _ in range(300)]
    a, b = start(0), start(1)
    for message in sent:
        a.endpoint.send(1, message)
    assert [message for _, message in await b.receive(len(sent))] == sent
    await a.endpoint.flushed()
    assert a.drained[-1] == (1, 0)


async def test_what_waits_is_counted(mesh: Mesh, start: Start) -> None:
    a, message = start(0), b"x" * MAX_MESSAGE
    waits, sent = 0, 0
    while not waits:
        waits = a.endpoint.send(1, message)
        sent += 1
    assert waits == len(message)
    assert a.endpoint.send(1, b"y") == len(message) + 1
    # another receiver's inbox is not full
    assert a.endpoint.send(2, b"z") == 0
    b = start(1)
    await b.receive(sent + 1)
    await a.endpoint.flushed()
    assert a.endpoint.send(1, b"y") == 0


async def test_small_messages_overtake_a_large_one_of_somebody_else(start: Start) -> None:
    a, b, c = start(0), start(1), start(2)
    b.open = trio.Event()
    a.endpoint.send(1, b"x" * 20_000_000)
    # to others, and from others
    a.endpoint.send(2, b"small")
    await c.receive(1)
    for _ in range(5):
        assert c.endpoint.send(1, b"small") == 0
    b.open.set()
    got = await b.receive(6)
    assert [len(message) for _, message in got] == [5] * 5 + [20_000_000]


async def test_messages_to_oneself(start: Start) -> None:
    a = start(0)
    a.open = trio.Event()
    assert a.endpoint.send(0, b"123") == 3
    data = bytearray(b"45")
    assert a.endpoint.send(0, data) == 5
    data[:] = b"66"
    a.open.set()
    await a.endpoint.flushed()
    assert a.got == [(0, b"123"), (0, b"45")]
    assert a.drained == [(0, 2), (0, 0)]


async def test_a_process_alone(nursery: trio.Nursery) -> None:
    peer = Peer(Endpoint.alone())
    nursery.start_soon(peer.run)
    assert peer.endpoint.table[0].pid == os.getpid()
    peer.endpoint.send(0, b"x")
    assert await peer.receive(1) == [(0, b"x")]


async def test_a_replacement_gets_what_was_sent_to_the_slot(mesh: Mesh, start: Start) -> None:
    a = start(0)
    mesh.died(1)
    a.endpoint.send(1, b"one")
    mesh.forked(1, 555)
    a.endpoint.send(1, b"two")
    assert await start(1).receive(2) == [(0, b"one"), (0, b"two")]


async def test_a_slot_that_is_used_again(mesh: Mesh, start: Start) -> None:
    """The next worker there does not get what was meant for the one before."""
    a = start(0)
    for size in (10, 5_000_000):
        a.endpoint.send(1, b"x" * size)
    await trio.testing.wait_all_tasks_blocked()
    mesh.retire(1)
    assert a.endpoint.send(1, b"still there") > 0
    mesh.release(1)
    assert a.endpoint.send(1, b"gone") == 0
    assert mesh.claim(1) == 1
    mesh.forked(1, 101)
    b = start(1)
    a.endpoint.send(1, b"new")
    assert await b.receive(1) == [(0, b"new")]
    await a.endpoint.flushed()


async def test_who_waits_for_a_receiver_that_goes(mesh: Mesh, start: Start) -> None:
    a = start(0)
    a.endpoint.send(1, b"x" * 5_000_000)
    await trio.testing.wait_all_tasks_blocked()
    mesh.release(1)
    await a.endpoint.flushed()
    assert a.drained[-1] == (1, 0)


async def test_new_slots_are_announced(mesh: Mesh, start: Start) -> None:
    """What is sent before that waits for it."""
    old = start(0)
    slot = mesh.claim(None)
    mesh.forked(slot, 103)
    new = start(slot)
    new.endpoint.send(0, b"from the new one")
    assert old.endpoint.send(slot, b"before") == 6
    await old.receive(1)
    assert new.got == []
    assert mesh.announce()
    assert await new.receive(1) == [(0, b"before")]
    old.endpoint.send(slot, b"after")
    assert (await new.receive(2))[1] == (0, b"after")


async def test_an_announcement_waits_for_room(mesh: Mesh, start: Start) -> None:
    a = start(0)
    while not a.endpoint.send(1, b"x" * MAX_MESSAGE):
        pass
    slot = mesh.claim(3)
    mesh.forked(slot, 103)
    c = start(slot)
    assert not mesh.announce()
    b = start(1)
    await a.endpoint.flushed()
    await trio.testing.wait_all_tasks_blocked()
    assert mesh.announce()
    assert mesh.announce()
    b.endpoint.send(slot, b"known")
    assert await c.receive(1) == [(1, b"known")]


async def test_a_replacement_knows_what_its_predecessor_was_told(mesh: Mesh, start: Start) -> None:
    slot = mesh.claim(3)
    mesh.forked(slot, 103)
    assert mesh.announce()
    mesh.died(0)
    mesh.forked(0, 200)
    before = len(os.listdir("/proc/self/fd"))
    a, new = start(0), start(slot)
    a.endpoint.send(slot, b"x")
    assert await new.receive(1) == [(0, b"x")]
    await trio.testing.wait_all_tasks_blocked()
    # two endpoints, each with an inbox and the ways to four
    assert len(os.listdir("/proc/self/fd")) == before + 2 * 5


async def test_the_system_has_no_memory_for_a_moment(
    start: Start, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    a, b = start(0), start(1)
    link = a.endpoint._links[1]
    real = link.writer
    assert real is not None
    failures = 3

    class Short:
        def sendmsg(self, pieces: list[bytes]) -> int:
            nonlocal failures
            if failures:
                failures -= 1
                raise OSError(errno.ENOBUFS, "No buffer space available")
            assert real is not None
            return real.sendmsg(pieces)

        def close(self) -> None:
            real.close()

    monkeypatch.setattr(link, "writer", Short())
    assert a.endpoint.send(1, b"one") == 3
    assert a.endpoint.send(1, b"two") == 6
    assert await b.receive(2) == [(0, b"one"), (0, b"two")]


def test_buffers_that_are_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_lua.ipc.mesh._BUFFER", 4096)
    with pytest.raises(TrioLuaError, match="wmem_max"):
        Mesh(1)


def test_the_worker_closes_what_is_not_its_own() -> None:
    before = len(os.listdir("/proc/self/fd"))
    mesh = Mesh(4)
    child = os.fork()
    if not child:
        endpoint = mesh.endpoint(2)
        count = len(os.listdir("/proc/self/fd"))
        os._exit(0 if count == before + 5 and endpoint.table[2].pid == os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    mesh.close()
    assert len(os.listdir("/proc/self/fd")) == before
