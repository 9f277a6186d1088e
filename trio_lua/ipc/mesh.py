"""The master's side of the messages between workers.

The life of a mesh in a master::

    mesh = Mesh()
    slots = [mesh.claim(id) for id in range(workers)]    # all of them before the first fork
    agent = mesh.claim(None)
    for slot in slots:
        pid = os.fork()
        if pid == 0:
            endpoint = mesh.endpoint(slot)               # for the worker; the mesh is used up here
            ...
        mesh.forked(slot, pid)

When a worker has died: ``mesh.died(slot)``, then fork again with the same slot. On a reload: ``claim`` slots for the new
workers, fork them, ``retire`` the old slots, and ``release`` each when its process has ended. ``announce`` tells the processes that
were there before of new inboxes; it belongs behind a reload's forks and into the master's periodic round.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys

from trio_lua.errors import TrioLuaError
from trio_lua.ipc.endpoint import Endpoint
from trio_lua.ipc.frame import MAX_DATAGRAM, slots_told
from trio_lua.ipc.table import Entry, State, Table

__all__ = ["Mesh"]

#: What a sender's side of an inbox holds; the system may allow less.
_BUFFER = 1 << 21

#: Descriptors of one datagram; the system allows 253.
_MAX_TOLD = 200

_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM


def _inbox() -> tuple[socket.socket, socket.socket]:
    """A socket pair: where its owner reads, where everybody writes."""
    reader, writer = socket.socketpair(socket.AF_UNIX, _KIND)
    for end in (reader, writer):
        end.setblocking(False)
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    room = writer.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    if room < 2 * MAX_DATAGRAM:
        reader.close()
        writer.close()
        raise OSError(errno.ENOBUFS, f"the system allows it {room} bytes (net.core.wmem_max)")
    return reader, writer


class Mesh:
    """The inboxes of a master's processes. Never blocks.

    Args:
        slots: How many workers to claim at once, numbered from 0.

    Attributes:
        table: Who has which slot, shared with all processes that are forked later.
    """

    def __init__(self, slots: int = 0) -> None:
        self.table = Table()
        self._inboxes: list[tuple[socket.socket, socket.socket]] = []
        #: By slot, how many inboxes the process there knows; those without a process are not in it.
        self._known: dict[int, int] = {}
        for id in range(slots):
            self.claim(id)

    def claim(self, id: int | None) -> int:
        """Get a slot for a process that is to be forked; from now on alerts can be sent to it.

        Args:
            id: The worker's number, ``ngx.worker.id()``; None for the privileged agent.

        Raises:
            TrioLuaError: There are too many, or the system has no more sockets.
        """
        slot = self.table.claim(id)
        if slot == len(self._inboxes):
            try:
                self._inboxes.append(_inbox())
            except OSError as error:
                self.table.set_state(slot, State.FREE)
                raise TrioLuaError(f"cannot make a worker's inbox: {error.strerror}") from error
        # what came too late for the process that had the slot before
        self._discard(slot)
        return slot

    def endpoint(self, slot: int, *, share: bool = False) -> Endpoint:
        """The worker's side of a slot, in the worker's process.

        The mesh is used up by it: what belongs to the other processes is closed here.

        Args:
            slot: The process's own.
            share: The mesh goes on being used in this process, which has several endpoints (tests).
        """
        reader, _ = self._inboxes[slot]
        writers: list[socket.socket | None] = [writer for _, writer in self._inboxes]
        if share:
            reader = reader.dup()
            writers = [writer.dup() for writer in writers if writer is not None]
            for end in (reader, *writers):
                assert end is not None
                end.setblocking(False)
        else:
            for other, (end, _) in enumerate(self._inboxes):
                if other != slot:
                    end.close()
            self._inboxes.clear()
            self.table.set_pid(slot, os.getpid())
        return Endpoint(self.table, slot, reader, writers)

    def forked(self, slot: int, pid: int) -> None:
        """A process runs in the slot."""
        self.table.set_pid(slot, pid)
        self._known[slot] = len(self._inboxes)

    def died(self, slot: int) -> None:
        """The slot's process has ended; what was sent to it is for the one that replaces it."""
        self.table.set_pid(slot, 0)
        self._known.pop(slot, None)

    def retire(self, slot: int) -> None:
        """The slot's process was told to quit: it is no longer the one that its worker's number names."""
        self.table.set_state(slot, State.LEAVING)

    def release(self, slot: int) -> None:
        """The slot's process has ended, and none replaces it."""
        self.died(slot)
        self.table.set_state(slot, State.FREE)
        # room for who waits to write, and so sees that there is nobody
        self._discard(slot)

    def announce(self) -> bool:
        """Give the inboxes that are new to the processes that were there before.

        Returns:
            False when the inbox of a process is full: call it again later.
        """
        complete = True
        for slot, known in list(self._known.items()):
            while known < len(self._inboxes):
                told = list(range(known, min(len(self._inboxes), known + _MAX_TOLD)))
                if not self._tell(slot, told):
                    complete = False
                    break
                known = self._known[slot] = told[-1] + 1
        return complete

    def _tell(self, slot: int, told: list[int]) -> bool:
        datagram = slots_told(self.table[slot].incarnation, told)
        descriptors = [self._inboxes[other][1].fileno() for other in told]
        try:
            socket.send_fds(self._inboxes[slot][1], [datagram], descriptors)
        except OSError:
            return False
        return True

    def _discard(self, slot: int) -> None:
        """Empty an inbox; descriptors in it are closed by the system."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._inboxes[slot][0].recv(MAX_DATAGRAM)

    def processes(self) -> list[Entry]:
        """The slots that are in use."""
        return self.table.used()

    def close(self) -> None:
        """Close all inboxes in this process."""
        for ends in self._inboxes:
            for end in ends:
                end.close()
        self._inboxes.clear()
        self._known.clear()
