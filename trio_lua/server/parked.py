"""Connections without tasks: the driver for plain sockets.

An idle connection costs its socket and one small object. A nested epoll (kqueue elsewhere) watches all of them and one
task awaits that. What is ready is received and served inline, up to the end of each request or its first suspension;
only then does the request become a task of the connections nursery. Its socket leaves the epoll only if something
comes from it before the request has ended: most clients send nothing, and that saves two system calls.

Fair to every other task: a bounded batch, then a checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import math
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import trio

from trio_lua.errors import ProtocolError
from trio_lua.lua.driver import DETACH, resume_detached
from trio_lua.net.poller import READ, new_poller
from trio_lua.server.connection import Connection, Served
from trio_lua.server.listener import Endpoint
from trio_lua.server.tls import shake_hands
from trio_lua.server.transport import RECEIVE_SIZE, SocketTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_lua.server.worker import Worker

__all__ = ["ACCEPT_BATCH", "Balance", "ParkedDriver"]

#: Events taken in one turn.
_BATCH = 64
#: Connections accepted in one turn, where nobody else accepts them.
ACCEPT_BATCH = 64
#: Pipelined requests served before other connections get their turn.
_PIPELINE_BATCH = 16
#: How often requests look again in one turn for what they wait for.
_ATTEMPTS = 4
#: Pause after the system ran out of descriptors or memory (nginx: accept_mutex_delay).
_EXHAUSTED_PAUSE = 0.5

#: How long connections are left to other workers that have fewer, in seconds.
_COURTESY = 0.002
#: Connections taken then, if they have not been.
_COURTESY_BATCH = 8

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Balance(Protocol):
    """How a worker shares connections with others that accept from the same sockets."""

    def leaves(self, connections: int) -> bool:
        """Whether a worker with so many connections leaves the next one to those that have fewer."""

    def publish(self, connections: int) -> None:
        """Tell the others how many it has."""


class ParkedDriver:
    """Runs the connections of a worker's listening sockets.

    Args:
        worker: Whose requests these are.
        nursery: The connections nursery.
        accept_batch: Connections accepted from one socket in one turn.
        balance: How connections are shared with other workers that accept from the same sockets.
    """

    def __init__(
        self,
        worker: Worker,
        nursery: trio.Nursery,
        accept_batch: int = ACCEPT_BATCH,
        balance: Balance | None = None,
    ) -> None:
        self._accept_batch = accept_batch
        self._balance = balance
        self._worker = worker
        self._nursery = nursery
        self._epoll: Any = new_poller()
        self._mask = READ
        self._parked: dict[int, Connection] = {}
        #: Not in the epoll: sockets that something came from while a request was a task.
        self._unwatched: set[int] = set()
        self._listeners: dict[int, tuple[socket.socket, Endpoint]] = {}
        self._again: deque[Connection] = deque()
        #: Requests that wait for something that may come while others have their turn.
        self._trying: list[tuple[Connection, Any, Callable[[], Any]]] = []
        #: Whether others still have their turn.
        self._serving = False

    def listen(self, sock: socket.socket, endpoint: Endpoint) -> None:
        """Accept connections from a listening, non-blocking socket."""
        self._listeners[sock.fileno()] = (sock, endpoint)
        self._epoll.register(sock.fileno(), self._mask)

    def stop_listening(self) -> None:
        """Take no more connections; the sockets stay open."""
        for fd in self._listeners:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)
        self._listeners.clear()

    async def run(self) -> None:
        """Serve until cancelled."""
        epoll, parked, listeners = self._epoll, self._parked, self._listeners
        worker = self._worker
        poll, ready = epoll.poll, self._ready
        fileno = epoll.fileno()
        wait_readable = trio.lowlevel.wait_readable
        try:
            while True:
                if self._again:
                    await trio.lowlevel.checkpoint()
                    for _ in range(len(self._again)):
                        self.pump(self._again.popleft())
                else:
                    await wait_readable(fileno)
                worker.tick()
                self._serving = True
                for fd, _mask in poll(0, _BATCH):
                    conn = parked.get(fd)
                    if conn is not None:
                        ready(conn)
                    elif fd in listeners:
                        self._accept(*listeners[fd])
                    else:
                        self._unwatch(fd)
                if self._trying:
                    self._try_again()
                self._serving = False
        finally:
            for _, coroutine, _ in self._trying:
                coroutine.close()
            for conn in list(parked.values()):
                self.close(conn)
            epoll.close()

    # ------------------------------------------------------------------ accept

    def _accept(self, sock: socket.socket, endpoint: Endpoint) -> None:
        balance = self._balance
        if balance is None:
            self._accept_some(sock, endpoint, self._accept_batch)
        elif balance.leaves(len(self._worker.connections)):
            self._epoll.unregister(sock.fileno())
            self._nursery.start_soon(self._accept_later, sock, endpoint, _COURTESY)
        else:
            self._accept_some(sock, endpoint, self._accept_batch)
            balance.publish(len(self._worker.connections))

    def _accept_some(self, sock: socket.socket, endpoint: Endpoint, number: int) -> None:
        worker = self._worker
        for _ in range(number):
            try:
                client, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    worker.log(3, f"accept4() failed ({error.errno}: {error.strerror})".encode())
                    with contextlib.suppress(OSError):
                        self._epoll.unregister(sock.fileno())
                        self._nursery.start_soon(self._accept_later, sock, endpoint)
                    return
                if error.errno in (errno.EBADF, errno.EINVAL):
                    raise
                continue  # the client is gone already
            if not worker.has_room():
                client.close()
                continue
            if client.family != getattr(socket, "AF_UNIX", None):
                # some systems refuse when the client is gone already
                with contextlib.suppress(OSError):
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.adopt(client, endpoint.local(client), address)

    def adopt(
        self, client: socket.socket, endpoint: Endpoint, address: object = None
    ) -> Connection:
        """Serve a connected stream socket, which is this driver's own from now on."""
        worker = self._worker
        client.setblocking(False)
        conn = worker.connect(endpoint, SocketTransport(client, address))
        conn.fd = client.fileno()
        if endpoint.tls is None:
            self._park(conn)
        else:
            self._nursery.start_soon(self._shake_hands, conn)
        return conn

    def _park(self, conn: Connection) -> None:
        """Wait for the first request of a connection."""
        conn.deadline = self._worker.time + conn.endpoint.default.server.client_header_timeout
        self._parked[conn.fd] = conn
        self._unwatched.discard(conn.fd)  # said of a connection that had the number before
        self._epoll.register(conn.fd, self._mask)

    async def _shake_hands(self, conn: Connection) -> None:
        try:
            if not await shake_hands(self._worker, conn):
                self._drop(conn)
                return
        except BaseException:
            self._drop(conn)
            raise
        self._worker.tick()
        self._park(conn)
        if conn.pending:
            self.pump(conn)
        else:
            # a request may have come with the end of the handshake
            self._ready(conn)

    async def _accept_later(
        self, sock: socket.socket, endpoint: Endpoint, pause: float = _EXHAUSTED_PAUSE
    ) -> None:
        """Let others accept for a time, or the system recover; then take what is left."""
        await trio.sleep(pause)
        if sock.fileno() in self._listeners:
            self._epoll.register(sock.fileno(), self._mask)
            self._worker.tick()
            self._accept_some(sock, endpoint, _COURTESY_BATCH)
            if self._balance is not None:
                self._balance.publish(len(self._worker.connections))

    # ------------------------------------------------------------------- serve

    def _ready(self, conn: Connection) -> None:
        try:
            data = conn.transport.sock.recv(RECEIVE_SIZE)  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._worker.left(conn, f" ({error.errno}: {error.strerror})")
            self.close(conn)
            return
        if not data:
            self._worker.left(conn)
            self.close(conn)
            return
        conn.receive(data)
        self.pump(conn)

    def pump(self, conn: Connection) -> None:
        """Serve what has been received, up to the first suspension."""
        worker = self._worker
        for _ in range(_PIPELINE_BATCH):
            conn.request = None
            try:
                found = conn.next_request(worker.now)
            except ProtocolError as error:
                coroutine = worker.refuse(conn, error)
            else:
                if isinstance(found, Served):
                    if conn.pending:
                        continue
                    worker.rest(conn)
                    return
                if found is None:
                    self._wait_for_head(conn)
                    return
                coroutine = worker.serve_request(conn, found)
            try:
                mark = coroutine.send(None)
            except StopIteration:
                if conn.closed:
                    self._forget(conn)
                    return
                if not conn.pending:
                    worker.rest(conn)
                    return
                continue
            self._suspended(conn, coroutine, mark)
            return
        self._again.append(conn)

    def _suspended(self, conn: Connection, coroutine: Any, mark: Any) -> None:
        """A request waits; its connection is left alone, as most clients send nothing before they have their answer."""
        self._parked.pop(conn.fd, None)
        conn.deadline = math.inf
        if mark is DETACH or not self._serving:
            self._nursery.start_soon(self._task, conn, coroutine)
        else:
            self._trying.append((conn, coroutine, mark))

    def _try_again(self) -> None:
        """Others have had their turn: let requests go on whose answers have come; the rest become tasks."""
        for left in reversed(range(_ATTEMPTS)):
            trying, self._trying = self._trying, []
            # what waits anew in the last round becomes a task
            self._serving = left > 0
            for conn, coroutine, attempt in trying:
                value = attempt()
                if value is None:
                    self._nursery.start_soon(self._task, conn, coroutine)
                else:
                    self._go_on(conn, coroutine, value)

    def _go_on(self, conn: Connection, coroutine: Any, value: Any) -> None:
        try:
            mark = coroutine.send(value)
        except StopIteration:
            self._ended(conn)
        else:
            self._suspended(conn, coroutine, mark)

    def _ended(self, conn: Connection) -> None:
        """A request that has waited is over."""
        if conn.closed:
            self._drop(conn)
            return
        self._parked[conn.fd] = conn
        if conn.fd in self._unwatched:
            self._unwatched.remove(conn.fd)
            self._epoll.register(conn.fd, self._mask)
        if conn.pending:
            self.pump(conn)
        else:
            self._worker.rest(conn)

    def _wait_for_head(self, conn: Connection) -> None:
        """More of a head has to come; the time for all of it runs from its first byte."""
        if conn.idle:
            self._worker.rest(conn)
        elif not conn.reading_head:
            conn.reading_head = True
            conn.deadline = self._worker.time + conn.endpoint.default.server.client_header_timeout

    async def _task(self, conn: Connection, coroutine: Any) -> None:
        request = conn.request
        try:
            with trio.CancelScope() as request.cancel_scope:
                await resume_detached(coroutine)
        except BaseException:
            self._drop(conn)
            raise
        self._worker.tick()
        self._ended(conn)

    def _unwatch(self, fd: int) -> None:
        """A client has sent more, or left, while its request is a task, which looks after that."""
        self._unwatched.add(fd)
        with contextlib.suppress(OSError):  # closed already
            self._epoll.unregister(fd)

    def _forget(self, conn: Connection) -> None:
        self._parked.pop(conn.fd, None)
        self._drop(conn)

    def _drop(self, conn: Connection) -> None:
        self._unwatched.discard(conn.fd)
        conn.close()
        self._worker.disconnect(conn)

    def close(self, conn: Connection) -> None:
        """Close a parked connection."""
        self._parked.pop(conn.fd, None)
        self._drop(conn)

    # ------------------------------------------------------------------- idle

    def sweep(self, now: float) -> None:
        """Close the connections whose deadline has passed."""
        late = [conn for conn in self._parked.values() if conn.deadline <= now]
        for conn in late:
            self._worker.expired(conn)
            self.close(conn)

    def close_idle(self, keep: Callable[[Connection], bool]) -> None:
        """Close the connections between two requests, but for some; what has come already is served first."""
        for conn in [conn for conn in self._parked.values() if conn.idle]:
            self._ready(conn)
        for conn in [conn for conn in self._parked.values() if conn.idle and not keep(conn)]:
            self.close(conn)

    @property
    def parked(self) -> int:
        """How many connections have no task."""
        return len(self._parked)
