"""Pools of idle connections, which the requests of a worker share.

As in OpenResty a pool has a key (by default the host and port as they were given), a size that its first user
chooses, and with a *backlog* also a cap: then no more connections than its size exist, and who wants one
more waits for its turn. The connection that rested least is taken first, the one that rested longest goes when room is
needed. The peer's close, or data that nobody asked for, ends an idle connection.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

from trio_lua.net.errors import SocketError

__all__ = ["Pool", "Poolable", "Pools", "Turn"]


class Poolable(Protocol):
    """A connection that can rest in a pool."""

    #: How many times it has come out of a pool.
    reused: int

    def rested(self, disturbed: Callable[[], None]) -> None:
        """It rests now; ``disturbed`` is to be called when its peer closes it or sends something."""

    def resumed(self) -> None:
        """It rests no more."""

    def close(self) -> None:
        """Close it."""


class _Idle:
    __slots__ = ("deadline", "link", "pool")

    def __init__(self, pool: Pool, link: Poolable, deadline: float) -> None:
        self.pool = pool
        self.link = link
        self.deadline = deadline


class Turn:
    """A place in the queue of those that wait for a connection; it exists before anybody awaits it."""

    __slots__ = ("come",)

    def __init__(self) -> None:
        self.come = trio.Event()


class Pool:
    """One pool.

    Attributes:
        connections: How many connections are in use, idle or being made.
    """

    def __init__(self, pools: Pools, key: bytes, size: int, backlog: int | None) -> None:
        self._pools = pools
        self._key = key
        self._size = size
        self._backlog = backlog
        self.connections = 0
        self.idle: deque[_Idle] = deque()
        self._waiting: deque[Turn] = deque()

    def take(self) -> Poolable | None:
        """The idle connection that was used last, if there is one."""
        if not self.idle:
            return None
        item = self.idle.popleft()
        item.link.resumed()
        item.link.reused += 1
        return item.link

    def admit(self) -> Turn | None:
        """Count one more connection; the turn it has to wait for, if it has to.

        Raises:
            SocketError: Too many are waiting already.
        """
        if self._backlog is None:
            self.connections += 1
            return None
        if self.connections >= self._size + self._backlog:
            raise SocketError("too many waiting connect operations")
        self.connections += 1
        if self.connections <= self._size:
            return None
        turn = Turn()
        self._waiting.append(turn)
        return turn

    async def wait_turn(self, turn: Turn) -> Poolable | None:
        """Wait until another connection of the pool has ended or rests; then that one, if it rests.

        The caller has to :meth:`release` when this does not return.
        """
        while True:
            await turn.come.wait()
            link = self.take()
            if link is not None:
                # the resting connection has been counted by its last user
                self.connections -= 1
                return link
            if self.connections - len(self._waiting) <= self._size:
                return None
            # another one took what rested before this task ran
            turn.come = trio.Event()
            self._waiting.appendleft(turn)

    def release(self, turn: Turn | None = None) -> None:
        """A counted connection has ended, could not be made, or its turn has not come."""
        self.connections -= 1
        if turn is not None and not turn.come.is_set():
            self._waiting.remove(turn)
        self._wake()
        if not self.connections:
            self._pools.forget(self._key, self)

    def keep(self, link: Poolable, seconds: float, counted: bool) -> None:
        """Let a connection rest.

        Args:
            link: The connection.
            seconds: How long at most.
            counted: Whether it was counted when it was made.
        """
        if not counted:
            self.connections += 1
        if len(self.idle) >= self._size:
            self.drop(self.idle[-1])
        item = _Idle(self, link, trio.current_time() + seconds)
        self.idle.appendleft(item)
        self._pools.park(item)
        self._wake()

    def drop(self, item: _Idle) -> None:
        """Close an idle connection."""
        self.idle.remove(item)
        item.link.close()
        self.release()

    def _wake(self) -> None:
        if self._waiting:
            self._waiting.popleft().come.set()


class Pools:
    """All pools of a worker."""

    def __init__(self) -> None:
        self._pools: dict[bytes, Pool] = {}
        self._alarm = trio.CancelScope()

    def get(self, key: bytes) -> Pool | None:
        """The pool of a key, if there is one."""
        return self._pools.get(key)

    def open(self, key: bytes, size: int, backlog: int | None = None) -> Pool:
        """The pool of a key; ``size`` and ``backlog`` (None: no cap) count when it does not exist yet."""
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(self, key, size, backlog)
        return pool

    def forget(self, key: bytes, pool: Pool) -> None:
        """A pool has no connections any more."""
        if self._pools.get(key) is pool:
            del self._pools[key]

    def park(self, item: _Idle) -> None:
        """Watch an idle connection, also for its time."""
        item.link.rested(_dropper(item))
        if item.deadline < self._alarm.deadline:
            self._alarm.deadline = item.deadline

    async def run(self) -> None:
        """Close connections that have rested for too long, until cancelled."""
        while True:
            self._alarm = trio.CancelScope(deadline=self._sweep(trio.current_time()))
            with self._alarm:
                await trio.sleep_forever()

    def _sweep(self, now: float) -> float:
        """Close what is late; the time of the next one."""
        following = math.inf
        for pool in list(self._pools.values()):
            for item in list(pool.idle):
                if item.deadline <= now:
                    pool.drop(item)
                elif item.deadline < following:
                    following = item.deadline
        return following

    def close(self) -> None:
        """Close all idle connections."""
        for pool in list(self._pools.values()):
            while pool.idle:
                pool.drop(pool.idle[-1])

    @property
    def idle(self) -> int:
        """How many connections rest."""
        return sum(len(pool.idle) for pool in self._pools.values())


def _dropper(item: _Idle) -> Callable[[], None]:
    return lambda: item.pool.drop(item)
