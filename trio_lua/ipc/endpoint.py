"""A worker's side of the messages between workers.

To send is to try at once: only what an inbox does not take now waits in a queue, one for each receiver, with a task that goes on
when there is room. How much waits is the caller's to look at (:meth:`Endpoint.send` returns it); nothing is refused here,
and nothing dropped but what nobody can receive any more.

Messages to oneself go the same way without a socket. A process without a master has nobody else, so that is all that an
endpoint of its own (:meth:`Endpoint.alone`) does.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trio_lua.ipc.frame import MAX_DATAGRAM, MAX_MESSAGE, Assembler, Buffer, datagrams, slots_of
from trio_lua.ipc.table import Table

__all__ = ["Deliver", "Endpoint"]

#: Datagrams received or sent before others have their turn.
_BATCH = 16

#: Errors that pass: no room, no memory (what a full inbox is on macOS).
_LATER = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM)

#: How long to wait where nothing tells when to go on, in seconds.
_PAUSE = 0.01

#: Parts of a large message that are sent at once.
_PARTS = 4

#: The most descriptors that come with a datagram.
_MAX_DESCRIPTORS = 253

#: Takes the sender's slot and pid and a message (bytes, a view, a mapping), which is valid only during the call.
Deliver = Callable[[int, int, Any], None]


class _Link:
    """The way to one receiver.

    Attributes:
        writer: Where to write; None until the master has told.
        queue: Messages that wait, each with the incarnation that it is meant for.
        waiting: Their bytes.
        busy: Whether a task sends them.
    """

    __slots__ = ("busy", "queue", "slot", "waiting", "writer")

    def __init__(self, slot: int, writer: socket.socket | None) -> None:
        self.slot = slot
        self.writer = writer
        self.queue: deque[tuple[int, Buffer]] = deque()
        self.waiting = 0
        self.busy = False


class Endpoint:
    """Sends to the inboxes of all workers and receives from one.

    Args:
        table: Who has which slot.
        slot: This process's.
        reader: Its inbox; None when nobody else sends. The endpoint owns it.
        writers: The inboxes of all by slot, which it owns as well.
    """

    def __init__(
        self,
        table: Table,
        slot: int,
        reader: socket.socket | None,
        writers: list[socket.socket | None],
    ) -> None:
        self.table = table
        self.slot = slot
        self.pid = table[slot].pid or os.getpid()
        self._reader = reader
        self._links = [_Link(other, writer) for other, writer in enumerate(writers)]
        self._incarnation = table.incarnation(slot)
        self._assembler = Assembler(self._incarnation, self._alive)
        self._own: deque[bytes] = deque()
        self._arrived = trio.Event()
        self._idle = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._drained: Callable[[int, int], None] = lambda _slot, _waiting: None

    @classmethod
    def alone(cls) -> Endpoint:
        """The endpoint of a worker without a master."""
        table = Table()
        slot = table.claim(0)
        table.set_pid(slot, os.getpid())
        return cls(table, slot, None, [None])

    def _alive(self, slot: int, pid: int) -> bool:
        return slot < len(self.table) and self.table[slot].pid == pid

    # ------------------------------------------------------------------ sending

    def send(self, slot: int, message: Buffer) -> int:
        """Send a message, or keep a copy of what the receiver's inbox does not take now.

        Args:
            slot: The receiver's.
            message: Bytes, which the caller may change afterwards, unless they are a :class:`bytes`.

        Returns:
            How many bytes wait for this receiver.
        """
        incarnation = self.table.incarnation(slot)
        if not incarnation:
            return 0
        link = self._link(slot)
        size = len(message)
        if slot == self.slot:
            self._own.append(bytes(message))
            self._arrived.set()
        else:
            if not link.queue and link.writer is not None and size <= MAX_MESSAGE:
                (pieces,) = datagrams(
                    slot=self.slot, pid=self.pid, incarnation=incarnation, message=message
                )
                try:
                    link.writer.sendmsg(pieces)
                    return 0
                except OSError as error:
                    if error.errno not in _LATER:
                        return 0
            link.queue.append((incarnation, bytes(message)))
            self._write_soon(link)
        link.waiting += size
        return link.waiting

    def _link(self, slot: int) -> _Link:
        while slot >= len(self._links):
            self._links.append(_Link(len(self._links), None))
        return self._links[slot]

    def _write_soon(self, link: _Link) -> None:
        if not link.busy and link.writer is not None and self._nursery is not None:
            link.busy = True
            self._nursery.start_soon(self._write, link)

    async def _write(self, link: _Link) -> None:
        """Send what waits for a receiver."""
        assert link.writer is not None
        turn = 0
        while link.queue:
            incarnation, message = link.queue[0]
            for pieces in datagrams(self.slot, self.pid, incarnation, message):
                # parts wait for an inbox that is nearly empty, so that it has room for what others send
                turn += 1
                if turn % _PARTS == 0:
                    if len(message) > MAX_MESSAGE:
                        await trio.lowlevel.wait_writable(link.writer)
                    else:
                        await trio.lowlevel.checkpoint()
                if not await self._put(link, incarnation, pieces):
                    break
            link.queue.popleft()
            link.waiting -= len(message)
            self._drained(link.slot, link.waiting)
        link.busy = False
        self._idle.unpark_all()

    async def _put(self, link: _Link, incarnation: int, pieces: tuple[Buffer, ...]) -> bool:
        """Send a datagram; False when nobody can receive it any more."""
        assert link.writer is not None
        while self.table.incarnation(link.slot) == incarnation:
            try:
                link.writer.sendmsg(pieces)
                return True
            except BlockingIOError:
                await trio.lowlevel.wait_writable(link.writer)
            except OSError as error:
                if error.errno not in _LATER:
                    break
                # nothing tells when there is memory again
                await trio.sleep(_PAUSE)
        return False

    async def flushed(self) -> None:
        """Wait until nothing waits any more, but for receivers whose inboxes are not known yet."""
        while self._own or any(link.busy for link in self._links):
            await self._idle.park()

    # ---------------------------------------------------------------- receiving

    async def serve(
        self,
        deliver: Deliver,
        drained: Callable[[int, int], None],
        room: Callable[[], Awaitable[None]],
    ) -> None:
        """Receive, and send what waits, until cancelled.

        Args:
            deliver: Called with each message.
            drained: Called when less waits for a receiver than before, with its slot and how many bytes that is now.
            room: Awaited before each message: while it waits, senders have to.
        """
        self._drained = drained
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for link in self._links:
                if link.queue:
                    self._write_soon(link)
            nursery.start_soon(self._deliver_own, deliver, room)
            if self._reader is not None:
                await self._receive(deliver, room)
            else:
                await trio.sleep_forever()

    async def _deliver_own(self, deliver: Deliver, room: Callable[[], Awaitable[None]]) -> None:
        link = self._links[self.slot]
        turn = 0
        while True:
            if not self._own:
                self._arrived = trio.Event()
                await self._arrived.wait()
            await room()
            message = self._own.popleft()
            link.waiting -= len(message)
            deliver(self.slot, self.pid, message)
            self._drained(self.slot, link.waiting)
            if not self._own:
                self._idle.unpark_all()
            turn += 1
            if turn % _BATCH == 0:
                await trio.lowlevel.checkpoint()

    async def _receive(self, deliver: Deliver, room: Callable[[], Awaitable[None]]) -> None:
        assert self._reader is not None
        receive = self._reader.recvmsg_into
        inbox = memoryview(bytearray(MAX_DATAGRAM))
        ancillary = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
        turn = 0
        while True:
            await room()
            try:
                size, extra, _, _ = receive((inbox,), ancillary)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._reader)
                continue
            if extra:
                self._learn(inbox[:size], extra)
            elif size:
                message = self._assembler.receive(inbox[:size])
                if message is not None:
                    deliver(*message)
            turn += 1
            if turn % _BATCH == 0:
                await trio.lowlevel.checkpoint()

    def _learn(self, datagram: memoryview, extra: list[Any]) -> None:
        """The master tells of inboxes that are new."""
        descriptors = array.array("i")
        for _, _, data in extra:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        for slot, descriptor in zip(slots_of(datagram), descriptors, strict=True):
            link = self._link(slot)
            if link.writer is None:
                link.writer = socket.socket(fileno=descriptor)
                link.writer.setblocking(False)
                if link.queue:
                    self._write_soon(link)
            else:
                # a replacement was forked with it
                os.close(descriptor)

    def close(self) -> None:
        """Close the sockets."""
        for link in self._links:
            if link.writer is not None:
                link.writer.close()
        if self._reader is not None:
            self._reader.close()
