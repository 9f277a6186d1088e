"""The form of what goes through an inbox: messages of any size in, datagrams out, and back.

A datagram begins with its kind, the slot and pid of its sender and the incarnation that it is meant for. A message that fits into one
is one, any other becomes parts, each with its place in the whole. Parts of several senders may mix; those of
one sender cannot, as it sends one message after the other.

Nothing here knows what messages mean: for the Lua side each is a batch of alerts.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "MAX_DATAGRAM",
    "MAX_MESSAGE",
    "Assembler",
    "Buffer",
    "datagrams",
    "slots_of",
    "slots_told",
]

#: The most bytes of a datagram: what Linux can take without a contiguous piece of memory.
MAX_DATAGRAM = 60 << 10

# kind, slot, pid, incarnation
_HEADER = struct.Struct("=BxHII4x")
_SIZE = _HEADER.size
_PART = struct.Struct("=QQ")
_WHOLE, _IN_PARTS, _SLOTS = 1, 2, 3

#: The most bytes of a message that is not divided.
MAX_MESSAGE = MAX_DATAGRAM - _SIZE

Buffer = Any


def datagrams(
    slot: int, pid: int, incarnation: int, message: Buffer
) -> Iterator[tuple[Buffer, ...]]:
    """A message as datagrams, each as pieces to be joined.

    Args:
        slot: Of the sender.
        pid: Of the sender.
        incarnation: Of the receiver's slot.
        message: Bytes, which the pieces share.
    """
    size = len(message)
    if size <= MAX_MESSAGE:
        yield _HEADER.pack(_WHOLE, slot, pid, incarnation), message
        return
    head = _HEADER.pack(_IN_PARTS, slot, pid, incarnation)
    view = memoryview(message)
    step = MAX_MESSAGE - _PART.size
    for start in range(0, size, step):
        yield head, _PART.pack(size, start), view[start : start + step]


def slots_told(incarnation: int, slots: list[int]) -> bytes:
    """The datagram that goes with descriptors of these slots' inboxes."""
    return _HEADER.pack(_SLOTS, 0, 0, incarnation) + struct.pack(f"={len(slots)}H", *slots)


def slots_of(datagram: Buffer) -> list[int]:
    """The slots that a datagram of :func:`slots_told` names."""
    return list(memoryview(bytes(datagram[_SIZE:])).cast("H"))


class Assembler:
    """Makes messages out of the datagrams of an inbox.

    Args:
        incarnation: What the datagrams have to be meant for.
        alive: Whether the sender, a slot and a pid, is still there.
    """

    def __init__(self, incarnation: int, alive: Callable[[int, int], bool]) -> None:
        self._incarnation = incarnation
        self._alive = alive
        self._partial: dict[int, tuple[int, mmap.mmap, int]] = {}

    def receive(self, datagram: memoryview) -> tuple[int, int, memoryview | mmap.mmap] | None:
        """Take a datagram.

        Returns:
            The sender's slot and pid and a message that is whole now, in the datagram's memory or in
            memory of its own; None when there is none.
        """
        kind, slot, pid, incarnation = _HEADER.unpack_from(datagram)
        if incarnation != self._incarnation:
            return None
        if self._partial:
            self._forget_the_dead()
        if kind == _WHOLE:
            return slot, pid, datagram[_SIZE:]
        size, start = _PART.unpack_from(datagram, _SIZE)
        part = datagram[_SIZE + _PART.size :]
        known = self._partial.get(slot)
        if start == 0:
            # pages of memory come into being as they are written, not all at once
            known = (pid, mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), 0)
        elif known is None or known[0] != pid or known[2] != start:
            # the rest of what a process before this one has begun to receive
            self._partial.pop(slot, None)
            return None
        _, message, _ = known
        end = start + len(part)
        message[start:end] = part
        if end == size:
            self._partial.pop(slot, None)
            return slot, pid, message
        self._partial[slot] = (pid, message, end)
        return None

    def _forget_the_dead(self) -> None:
        for slot, (pid, _, _) in list(self._partial.items()):
            if not self._alive(slot, pid):
                del self._partial[slot]
