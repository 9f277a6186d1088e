"""A client that opens thousands of connections and holds them.

One epoll loop in one thread, because what is measured is the server and not the client. A window bounds how many
connections are being opened at once: a full accept queue would cost a second's retransmission each.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Iterator

__all__ = ["Holder", "holding"]

_WINDOW = 256


class Holder:
    """Connections of one case to one server.

    Args:
        port: The server's.
        request: Sent once on every connection.
        expected: How every response ends.

    Attributes:
        answered: How many responses are complete.
        failed: How many connections were refused, closed or badly answered.
    """

    def __init__(self, port: int, request: bytes, expected: bytes) -> None:
        self._address = ("127.0.0.1", port)
        self._request = request
        self._ends = (expected, expected + b"\r\n0\r\n\r\n")
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._connecting: set[int] = set()
        self._received: dict[int, bytes] = {}
        self.answered = 0
        self.failed = 0

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._sockets)

    def fill(self, count: int, *, answered: bool, seconds: float) -> None:
        """Open connections up to a number and send the request on each.

        Args:
            count: How many to have at the end.
            answered: Whether to wait for the responses, too.
            seconds: After which to give up.
        """
        deadline = time.monotonic() + seconds
        started = len(self._sockets)
        goal = self.answered + count - started
        while time.monotonic() < deadline:
            while started < count and len(self._unsettled(answered)) < _WINDOW:
                self._connect()
                started += 1
            if started == count and not self._unsettled(answered):
                break
            if answered and self.answered + self.failed >= goal:
                break
            self._turn(0.2)

    def finish(self, *, seconds: float) -> None:
        """Wait for the responses that are missing."""
        deadline = time.monotonic() + seconds
        while self._received and time.monotonic() < deadline:
            self._turn(0.5)

    def wait(self, condition: Callable[[], bool], *, seconds: float) -> None:
        """Look at a condition every now and then until it holds."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            pause = time.monotonic() + 0.25
            while (left := pause - time.monotonic()) > 0:
                self._turn(left)

    def close(self) -> None:
        """Close every connection."""
        for sock in self._sockets.values():
            # a reset instead of TIME_WAIT, so that the next server finds free ports
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        self._sockets.clear()
        self._epoll.close()

    def _unsettled(self, answered: bool) -> set[int] | dict[int, bytes]:
        return self._received if answered else self._connecting

    def _connect(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        code = sock.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self.failed += 1
            return
        fd = sock.fileno()
        self._sockets[fd] = sock
        self._connecting.add(fd)
        self._received[fd] = b""
        self._epoll.register(fd, select.EPOLLOUT)

    def _turn(self, timeout: float) -> None:
        for fd, _mask in self._epoll.poll(timeout, 512):
            sock = self._sockets[fd]
            try:
                if fd in self._connecting:
                    self._connecting.discard(fd)
                    sock.send(self._request)
                    self._epoll.modify(fd, select.EPOLLIN)
                else:
                    self._receive(fd, sock)
            except OSError:
                self._drop(fd)

    def _receive(self, fd: int, sock: socket.socket) -> None:
        data = sock.recv(65536)
        if not data:
            self._drop(fd)
        elif fd in self._received:
            whole = self._received[fd] + data
            if not whole.endswith(self._ends):
                self._received[fd] = whole
                return
            del self._received[fd]
            if whole.startswith(b"HTTP/1.1 200 "):
                self.answered += 1
            else:
                self.failed += 1

    def _drop(self, fd: int) -> None:
        if self._received.pop(fd, None) is not None:
            self.failed += 1
        self._epoll.unregister(fd)
        self._sockets.pop(fd).close()


@contextlib.contextmanager
def holding(port: int, request: bytes, expected: bytes) -> Iterator[Holder]:
    """A :class:`Holder` that is closed at the end."""
    holder = Holder(port, request, expected)
    try:
        yield holder
    finally:
        holder.close()
