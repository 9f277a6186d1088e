"""What the processes of one generation know of each other: pids, heartbeats and loads, in shared memory.

Each slot has three words of eight bytes, each with one writer. They are written in one piece, so nobody needs a lock: a
reader sees the old value or the new one.
"""

from __future__ import annotations

import mmap
import time

__all__ = ["Scoreboard"]

_WORD = 8
#: The load of a process that accepts nothing.
_NOT_ACCEPTING = 1 << 62


class Scoreboard:
    """Made by the master before it forks.

    Args:
        slots: How many processes there are; the workers come first.
        workers: How many of them are workers.
    """

    def __init__(self, slots: int, workers: int) -> None:
        self._memory = mmap.mmap(-1, max(slots, 1) * 3 * _WORD)
        view = memoryview(self._memory)
        self._pids = view[: slots * _WORD].cast("q")
        self._beats = view[slots * _WORD : 2 * slots * _WORD].cast("d")
        self._loads = view[2 * slots * _WORD : 3 * slots * _WORD].cast("q")
        self._workers = workers
        for slot in range(slots):
            self._loads[slot] = _NOT_ACCEPTING

    def set_pid(self, slot: int, pid: int, now: float | None = None) -> None:
        """A process runs in a slot; 0 when it has ended. Its heart beats for the first time."""
        self._pids[slot] = pid
        self._loads[slot] = _NOT_ACCEPTING
        self.beat(slot, now)

    def pids(self) -> tuple[int, ...]:
        """The processes of the workers that run, in the order of their numbers."""
        return tuple(pid for pid in self._pids[: self._workers] if pid)

    def beat(self, slot: int, now: float | None = None) -> None:
        """The process in a slot is alive."""
        self._beats[slot] = time.monotonic() if now is None else now

    def last_beat(self, slot: int) -> float:
        """When that was, on :func:`time.monotonic`, which all processes share."""
        return self._beats[slot]

    def set_load(self, slot: int, connections: int | None) -> None:
        """How many connections a worker has; None when it accepts no more."""
        self._loads[slot] = _NOT_ACCEPTING if connections is None else connections

    def least_load(self) -> int:
        """How many the worker has that has the fewest."""
        return min(self._loads[: self._workers])
