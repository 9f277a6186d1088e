"""Whether a stream socket can be read, known without asking.

The worker's :class:`~trio_lua.net.poller.Watcher` tells every arrival once (edge-triggered), for as long as the
connection lives. Waiting for an answer then costs no system call, and going into a pool and out of it none either: what
remains of an exchange with a pooled server are the calls that send and receive.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_lua.net.poller import EDGE, ENDED, READ, Watcher

__all__ = ["Readiness"]


class Readiness:
    """What is known about one socket.

    Args:
        watcher: Who tells of arrivals.

    Attributes:
        ready: Whether a read may succeed. Whoever reads sets it to False when nothing was left, and only then waits.
        ended: Whether the peer has closed or the connection has failed, behind what may still be to be read.
        resting: Called, in the watcher's task, about an arrival that nobody waits for.
    """

    __slots__ = ("_closed", "_fd", "_task", "_watcher", "ended", "ready", "resting")

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._fd = -1
        self._task: trio.lowlevel.Task | None = None
        self._closed = False
        self.ready = True
        self.ended = False
        self.resting: Callable[[], None] | None = None

    def watch(self, fd: int) -> None:
        """Begin to watch, if that has not begun: an arrival from now on is not missed."""
        if self._fd < 0:
            self._fd = fd
            self._watcher.watch(fd, self._arrived, READ | EDGE)

    def _arrived(self, events: int) -> None:
        self.ready = True
        if events & ENDED:
            self.ended = True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
        elif self.resting is not None:
            self.resting()

    async def wait(self, fd: int) -> None:
        """Wait until a read may succeed; one task at a time.

        Raises:
            trio.ClosedResourceError: The socket was closed meanwhile.
        """
        self.watch(fd)
        if self.ready:
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._closed:
            raise trio.ClosedResourceError

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def close(self) -> None:
        """The descriptor is about to be closed, which ends the watch by itself."""
        self._closed = True
        self.resting = None
        if self._fd >= 0:
            self._watcher.forget(self._fd, self._arrived)
            self._fd = -1
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
