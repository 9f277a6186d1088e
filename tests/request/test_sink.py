"""Sinks: what is kept, what is sent in which order, and who waits for whom."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_lua.request.sink import Capture, Ordered, Pipe


class Client:
    """A connection that takes everything, or nothing while it is ``full``."""

    id, requests, tls = 7, 3, True

    def __init__(self) -> None:
        self.sent = b""
        self.drains: list[int] = []
        self.aborted = False

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        return b"::1", b"1", b"::1", b"2"

    def write(self, data: bytes) -> int:
        self.sent += data
        return 0

    def abort(self) -> None:
        self.aborted = True

    async def drain(self, low_water: int = 0) -> bool:
        self.drains.append(low_water)
        return not self.aborted


class Owner:
    """A request that has a task of its own."""

    inline = False


@pytest.fixture
def client() -> Any:
    return Client()


async def test_a_capture_keeps_all(client: Any) -> None:
    sink = Capture(client)
    assert (sink.id, sink.requests, sink.tls, sink.addresses()[0]) == (7, 3, True, b"::1")
    assert [sink.write(data) for data in (b"a", b"", b"b")] == [0, 0, 0]
    assert sink.data == b"ab"
    assert await sink.drain()
    assert (sink.body_whole(), sink.body_nowait(), await sink.body_some()) == (b"", b"", b"")
    sink.abort()
    assert sink.write(b"c") == -1
    assert (sink.data, sink.aborted, client.aborted) == (b"ab", True, False)


async def test_a_pipe_hands_over_and_makes_its_writer_wait(client: Any) -> None:
    pipe = Pipe(client)
    pipe.request = Owner()
    seen = []

    async def read() -> None:
        while data := await pipe.receive():
            seen.append(data)

    assert not pipe.begun.is_set()
    assert pipe.write(b"ab") == 2
    assert pipe.begun.is_set()
    assert pipe.write(b"c") == 3
    assert await pipe.drain(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe.drain)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [b"abc"]
        pipe.write(b"d")
        pipe.finish()
        assert pipe.write(b"e") == -1
    assert seen == [b"abc", b"d"]


async def test_a_pipe_that_ends_without_a_byte(client: Any) -> None:
    pipe = Pipe(client)
    pipe.abort()
    assert pipe.begun.is_set()
    assert await pipe.receive() == b""


def ordered(behind: Any) -> tuple[Ordered, list[str]]:
    emptied: list[str] = []
    sink = Ordered(behind, lambda data: b"<" + data + b">", lambda: emptied.append("empty"))
    sink.request = Owner()
    return sink, emptied


async def test_slots_are_sent_in_the_order_of_their_making(client: Any) -> None:
    parent, emptied = ordered(client)
    first = parent.slot()
    parent.write(b"one")
    second, third = parent.slot(), parent.slot()
    parent.write(b"two")
    third.write(b"C")
    second.write(b"B")
    assert client.sent == b""
    first.write(b"A")
    first.write(b"")
    assert client.sent == b"<A>"
    third.finish()
    assert client.sent == b"<A>"
    first.finish()
    assert client.sent == b"<A>one<B>"
    second.write(b"b")
    assert emptied == []
    second.finish()
    assert client.sent == b"<A>one<B><b><C>two"
    assert emptied == ["empty"]
    assert parent.slots() == []


async def test_ending_twice_is_ending_once(client: Any) -> None:
    parent, emptied = ordered(client)
    slot = parent.slot()
    slot.finish()
    slot.finish()
    assert emptied == ["empty"]
    assert parent.write(b"x") == 0
    assert client.sent == b"x"


async def test_a_slot_waits_for_its_turn_and_the_parent_for_its_slots(client: Any) -> None:
    parent, _ = ordered(client)
    first, second = parent.slot(), parent.slot()
    first.request = second.request = Owner()
    done = []

    async def drain(sink: Any, name: str) -> None:
        await sink.drain(5)
        done.append(name)

    assert second.write(b"abc") == 3
    assert parent.write(b"own") == 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, second, "second")
        nursery.start_soon(drain, parent, "parent")
        await drain(first, "first")
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["first"]
        first.finish()
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["first", "second"]
        second.finish()
    assert done == ["first", "second", "parent"]
    assert client.drains == [5, 5, 5]


async def test_slots_within_slots(client: Any) -> None:
    parent, _ = ordered(client)
    outer = parent.slot()
    inner_parent, _ = ordered(outer)
    inner = inner_parent.slot()
    inner_parent.write(b"after")
    assert inner.client is client
    inner.write(b"x")
    inner.finish()
    outer.finish()
    assert client.sent == b"<<x>><after>"
    inner.abort()
    assert client.aborted
