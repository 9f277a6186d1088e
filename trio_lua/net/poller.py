"""A nested epoll (kqueue elsewhere): one task watches any number of sockets.

A socket that only has to be noticed when something happens to it (an idle connection) needs no task of its own.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable
from typing import Any

import trio

__all__ = ["CLOSE", "EDGE", "ENDED", "READ", "Watcher", "new_poller", "supported"]

#: Something can be received, or the peer has closed.
READ = getattr(select, "EPOLLIN", 1) | getattr(select, "EPOLLRDHUP", 0)
#: The peer has closed; data in front of that is no event.
CLOSE = getattr(select, "EPOLLRDHUP", 0)
#: Each arrival is one event, whether it is received or not.
EDGE = getattr(select, "EPOLLET", 1 << 31)
#: In an event: the peer has closed, or the connection has failed.
ENDED = CLOSE | getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0) or 1 << 13

_BATCH = 64


class _Kqueue:
    """The part of ``select.epoll`` that is used here, over kqueue."""

    def __init__(self) -> None:
        self._queue = select.kqueue()  # type: ignore[attr-defined,unused-ignore]

    def _change(self, fd: int, flags: int) -> None:
        event = select.kevent(fd, select.KQ_FILTER_READ, flags)  # type: ignore[attr-defined,unused-ignore]
        self._queue.control([event], 0, 0)

    def register(self, fd: int, mask: int) -> None:
        flags = select.KQ_EV_ADD  # type: ignore[attr-defined,unused-ignore]
        if mask & EDGE:
            flags |= select.KQ_EV_CLEAR  # type: ignore[attr-defined,unused-ignore]
        self._change(fd, flags)

    def unregister(self, fd: int) -> None:
        self._change(fd, select.KQ_EV_DELETE)  # type: ignore[attr-defined,unused-ignore]

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        ended = select.KQ_EV_EOF  # type: ignore[attr-defined,unused-ignore]
        return [
            (event.ident, ENDED if event.flags & ended else 0)
            for event in self._queue.control(None, maxevents, timeout)
        ]

    def fileno(self) -> int:
        return self._queue.fileno()  # type: ignore[no-any-return,unused-ignore]

    def close(self) -> None:
        self._queue.close()


def supported() -> bool:
    """Whether the platform has epoll or kqueue."""
    return hasattr(select, "epoll") or hasattr(select, "kqueue")


def new_poller() -> Any:
    """An object with the methods of ``select.epoll`` that :class:`_Kqueue` has."""
    return select.epoll() if hasattr(select, "epoll") else _Kqueue()


class Watcher:
    """Calls a function when something happens to a socket."""

    def __init__(self) -> None:
        self._poller: Any = None
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._begun = trio.Event()

    def watch(self, fd: int, callback: Callable[[int], None], mask: int = READ) -> None:
        """Call ``callback`` with each event, in :meth:`run`'s task, until :meth:`unwatch`."""
        if self._poller is None:
            self._poller = new_poller()
            self._begun.set()
        self._callbacks[fd] = callback
        self._poller.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._poller.unregister(fd)

    def forget(self, fd: int, callback: Callable[[int], None]) -> None:
        """Do not call ``callback`` any more for a descriptor that is closed next: then the system stops watching."""
        if self._callbacks.get(fd) == callback:
            del self._callbacks[fd]

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._begun.wait()
        poller, callbacks = self._poller, self._callbacks
        fileno = poller.fileno()
        while True:
            await trio.lowlevel.wait_readable(fileno)
            for fd, events in poller.poll(0, _BATCH):
                callback = callbacks.get(fd)
                if callback is not None:
                    callback(events)

    def close(self) -> None:
        """Close the poller."""
        if self._poller is not None:
            self._poller.close()
            self._poller = None
