"""Who has which inbox: shared memory that the master writes and its workers read.

A *slot* is a place for a process; it has an inbox. A process that replaces a dead one has its slot, so its pid changes
and the slot does not. A slot that is given to another purpose gets a new *incarnation*, and what was meant for
the earlier one is not delivered.

Lua reads the same memory (``api/ipc.lua``), so finding a pid costs no crossing. Words are read and written whole, without a
lock: who reads while the master writes sees a slot as it was or as it will be.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from dataclasses import dataclass
from enum import IntEnum

from trio_lua.errors import TrioLuaError

__all__ = ["MAX_SLOTS", "Entry", "State", "Table"]

#: nginx's limit, too.
MAX_SLOTS = 1024

# how many slots have ever been in use, then for each: pid, worker number, state, incarnation
_HEADER = 16
_ENTRY = struct.Struct("=iiiI")


class State(IntEnum):
    """What a slot is for."""

    FREE = 0
    WORKER = 1
    LEAVING = 2  # finishes what it has begun


@dataclass(frozen=True, slots=True)
class Entry:
    """A slot.

    Attributes:
        slot: Its number.
        pid: Of the process; 0 while there is none.
        id: ``ngx.worker.id()``; None for the privileged agent.
        state: What it is for.
        incarnation: Changes whenever the slot gets another purpose.
    """

    slot: int
    pid: int
    id: int | None
    state: State
    incarnation: int


class Table:
    """The slots of a mesh.

    Attributes:
        address: Where it is mapped, in every process that was forked later, too.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEADER + MAX_SLOTS * _ENTRY.size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def __len__(self) -> int:
        """How many slots have ever been in use."""
        return int.from_bytes(self._memory[:4], sys.byteorder)

    def __getitem__(self, slot: int) -> Entry:
        pid, id, state, incarnation = _ENTRY.unpack_from(self._memory, self._place(slot))
        return Entry(slot, pid, None if id < 0 else id, State(state), incarnation)

    def used(self) -> list[Entry]:
        """The slots that are not free."""
        entries = [self[slot] for slot in range(len(self))]
        return [entry for entry in entries if entry.state is not State.FREE]

    def incarnation(self, slot: int) -> int:
        """What number the present purpose of a slot has; 0 while it is free."""
        _, _, state, incarnation = _ENTRY.unpack_from(self._memory, self._place(slot))
        return int(incarnation) if state else 0

    def claim(self, id: int | None) -> int:
        """Take a free slot for a new purpose.

        Raises:
            TrioLuaError: There are :data:`MAX_SLOTS` already.
        """
        count = len(self)
        for slot in range(count + 1):
            if slot == MAX_SLOTS:
                raise TrioLuaError(f"no more than {MAX_SLOTS} processes at once")
            place = self._place(slot)
            _, _, state, incarnation = _ENTRY.unpack_from(self._memory, place)
            if state == State.FREE:
                _ENTRY.pack_into(
                    self._memory,
                    place,
                    0,
                    -1 if id is None else id,
                    State.WORKER,
                    incarnation % 0xFFFFFFFF + 1,
                )
                if slot == count:
                    self._memory[:4] = (count + 1).to_bytes(4, sys.byteorder)
                return slot
        raise AssertionError

    def set_pid(self, slot: int, pid: int) -> None:
        """A process has the slot now; none with 0."""
        self._memory[self._place(slot) : self._place(slot) + 4] = struct.pack("=i", pid)

    def set_state(self, slot: int, state: State) -> None:
        """A slot is for something else now."""
        place = self._place(slot) + 8
        self._memory[place : place + 4] = struct.pack("=i", state)

    @staticmethod
    def _place(slot: int) -> int:
        return _HEADER + slot * _ENTRY.size
