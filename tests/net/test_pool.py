"""Pools without Lua: turns, counts, and who comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from trio_lua.net.errors import SocketError
from trio_lua.net.pool import Pool, Pools, Turn


class Link:
    """A connection."""

    def __init__(self) -> None:
        self.reused = 0
        self.closed = False
        self.disturbed: Callable[[], None] | None = None

    def rested(self, disturbed: Callable[[], None]) -> None:
        self.disturbed = disturbed

    def resumed(self) -> None:
        self.disturbed = None

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


def rest(pool: Pool, seconds: float = 60) -> Link:
    link = Link()
    pool.keep(link, seconds, True)
    return link


async def test_last_in_first_out(pools: Pools) -> None:
    pool = pools.open(b"k", 2)
    for _ in range(3):
        assert pool.admit() is None
    first, second, third = rest(pool), rest(pool), rest(pool)
    assert first.closed  # there is room for two
    assert pool.connections == 2
    assert pool.take() is third
    assert pool.take() is second
    assert pool.take() is None
    assert second.reused == 1
    for _ in range(2):
        pool.release()
    assert pools.get(b"k") is None


async def test_turns(pools: Pools) -> None:
    pool = pools.open(b"k", 1, 2)
    turns = [pool.admit() for _ in range(3)]
    assert turns[0] is None
    with pytest.raises(SocketError, match="too many waiting connect operations"):
        pool.admit()
    order: list[str] = []

    async def wait(name: str, turn: Turn | None) -> None:
        assert turn is not None
        await pool.wait_turn(turn)
        order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "b", turns[2])
        pool.release()  # before anybody has begun to wait
        await trio.testing.wait_all_tasks_blocked()
        assert order == []
        nursery.start_soon(wait, "a", turns[1])
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["a"]
        pool.release()
    assert order == ["a", "b"]
    pool.release()
    assert pools.get(b"k") is None


async def test_another_one_takes_what_rests(pools: Pools) -> None:
    pool = pools.open(b"k", 1, 1)
    pool.admit()
    turn = pool.admit()
    assert turn is not None
    got: list[object] = []

    async def wait() -> None:
        got.append(await pool.wait_turn(turn))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        link = rest(pool)
        assert pool.take() is link  # before the waiting task runs
        await trio.testing.wait_all_tasks_blocked()
        assert not got
        pool.keep(link, 60, True)
    assert got == [link]
    pool.release()


async def test_who_waits_may_leave(pools: Pools) -> None:
    pool = pools.open(b"k", 1, 1)
    pool.admit()
    turn = pool.admit()
    assert turn is not None
    with trio.move_on_after(0):
        await pool.wait_turn(turn)
    pool.release(turn)
    assert pool.connections == 1
    pool.release()
    assert pools.get(b"k") is None


async def test_a_disturbed_one_goes(pools: Pools) -> None:
    pool = pools.open(b"k", 2)
    for _ in range(2):
        pool.admit()
    first, second = rest(pool), rest(pool)
    assert first.disturbed is not None
    first.disturbed()
    assert first.closed
    assert pool.connections == 1
    assert pool.take() is second
    assert second.disturbed is None
    assert pool.take() is None
    pool.release()
    assert pools.get(b"k") is None
