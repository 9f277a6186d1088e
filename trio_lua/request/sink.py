"""Where the response of a subrequest goes: into a buffer, to a reader, or into its parent's response.

A request writes its response to its *connection*, and for that a connection is whatever has the methods of
:class:`~trio_lua.request.context.ClientConnection`. A client's request has the real one. A subrequest has one of the
sinks below, which answer questions about the client (its address, TLS) for the connection behind them,
and have no request body: the engine gives a subrequest its body when it is made.

* :class:`Capture` keeps the body for ``ngx.location.capture``.
* :class:`Pipe` hands it to a reader piece by piece, with a bound on what is kept.
* :class:`Slot` is a place in the parent's response. Slots are filled at the same time and sent in the order in
  which they were made (nginx's "postpone" filter); what the parent itself writes after a slot was made comes
  after it. :class:`Ordered` keeps that order.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import trio

from trio_lua.lua.driver import detach
from trio_lua.request.context import ClientConnection

if TYPE_CHECKING:
    from trio_lua.net.tls_facts import TlsFacts

__all__ = ["Capture", "Ordered", "Pipe", "Sink", "Slot"]


class Sink:
    """What all sinks have in common.

    Args:
        client: The client's connection.

    Attributes:
        id: The client connection's number (``$connection``).
        requests: How many requests the client's connection has carried.
        request: The subrequest.
    """

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        self.id = client.id
        self.requests = client.requests
        self.request: Any = None

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        return self.client.addresses()

    @property
    def listen(self) -> bytes:
        return self.client.listen

    @property
    def tls(self) -> bool:
        return self.client.tls

    @property
    def facts(self) -> TlsFacts | None:
        return self.client.facts

    def write(self, data: bytes) -> int:
        raise NotImplementedError

    def pace(self, rate: int, after: int) -> None:
        """Only the client's response has a pace."""

    def abort(self) -> None:
        raise NotImplementedError

    async def drain(self, low_water: int = 0) -> bool:
        return True

    def body_whole(self) -> bytes | None:
        return b""

    def body_nowait(self) -> bytes | None:
        return b""

    async def body_some(self) -> bytes:
        return b""

    def continue_body(self) -> None:
        """There is no body to come."""

    async def receive_more(self) -> bool:
        return False

    @contextlib.asynccontextmanager
    async def watched(self, _gone: Callable[[], None]) -> AsyncIterator[None]:
        # its parent watches
        yield

    def take_raw(self) -> bool:
        return False

    def raw_nowait(self) -> bytes | None:
        return b""

    def drop_output(self) -> None:
        """There is no end of a socket here."""

    def finish(self) -> None:
        """The subrequest has ended, whether well or not."""


class Capture(Sink):
    """Keeps all that is written.

    Attributes:
        aborted: Whether the subrequest broke off its response.
    """

    def __init__(self, client: ClientConnection) -> None:
        super().__init__(client)
        self._pieces: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> int:
        if self.aborted:
            return -1
        if data:
            self._pieces.append(data)
        return 0

    def abort(self) -> None:
        self.aborted = True

    @property
    def data(self) -> bytes:
        """What has been written."""
        return b"".join(self._pieces)


class Pipe(Sink):
    """Hands what is written to a reader; the writer waits while much is unread."""

    def __init__(self, client: ClientConnection) -> None:
        super().__init__(client)
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._changed = trio.Event()
        #: Set when the head is known: something has been written, or nothing will be.
        self.begun = trio.Event()

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def write(self, data: bytes) -> int:
        if self._ended:
            return -1
        self.begun.set()
        if data:
            self._pieces.append(data)
            self._size += len(data)
            self._notify()
        return self._size

    def abort(self) -> None:
        self.finish()

    def finish(self) -> None:
        self._ended = True
        self.begun.set()
        self._notify()

    async def drain(self, low_water: int = 0) -> bool:
        if self._size > low_water:
            await detach(self.request)
            while self._size > low_water:
                await self._changed.wait()
        return True

    async def receive(self) -> bytes:
        """All that has been written since the last call, at least a byte; b"" at the end."""
        while not self._pieces and not self._ended:
            await self._changed.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._notify()
        return data


class Slot(Sink):
    """A place in the parent's response."""

    def __init__(self, client: ClientConnection, ordered: Ordered) -> None:
        super().__init__(client)
        self._ordered = ordered
        self.kept: list[bytes] = []
        self._size = 0
        self.ended = False
        self.turn = trio.Event()

    def write(self, data: bytes) -> int:
        if not self.turn.is_set():
            if data:
                self.kept.append(data)
                self._size += len(data)
            return self._size
        return self._ordered.relay(data)

    def abort(self) -> None:
        self._ordered.abort()

    async def drain(self, low_water: int = 0) -> bool:
        if not self.turn.is_set():
            await detach(self.request)
            await self.turn.wait()
        return await self._ordered.drain_relayed(low_water)

    def finish(self) -> None:
        if not self.ended:
            self.ended = True
            self._ordered.advance()


class Ordered(Sink):
    """Stands in for the connection of a request that has slots in its response.

    Args:
        behind: The connection (or sink) of the request itself.
        frame: Gives a piece of a subrequest's body the form it has in this request's response (a chunk,
            perhaps; b"" when the response has no body).
        emptied: Called when nothing waits any more.
    """

    def __init__(
        self,
        behind: ClientConnection,
        frame: Callable[[bytes], bytes],
        emptied: Callable[[], None],
    ) -> None:
        super().__init__(getattr(behind, "client", behind))
        self.behind = behind
        self._frame = frame
        self._emptied = emptied
        # what waits for its turn: slots, and bytes of the request itself
        self._line: deque[Slot | bytes] = deque()
        self._size = 0
        self._empty = trio.Event()
        self._empty.set()

    def slot(self) -> Slot:
        """Make a place behind all that has been written."""
        slot = Slot(self.client, self)
        if not self._line:
            slot.turn.set()
            self._empty = trio.Event()
        self._line.append(slot)
        return slot

    def slots(self) -> list[Slot]:
        """The slots that have not ended."""
        return [item for item in self._line if isinstance(item, Slot)]

    def relay(self, data: bytes) -> int:
        """Send a piece of the slot whose turn it is."""
        return self.behind.write(self._frame(data) if data else b"")

    def advance(self) -> None:
        """A slot has ended: send what had to wait for it."""
        line = self._line
        while line:
            head = line[0]
            if isinstance(head, Slot):
                if not head.turn.is_set():
                    head.turn.set()
                    kept, head.kept = b"".join(head.kept), []
                    self.relay(kept)
                if not head.ended:
                    return
            else:
                self._size -= len(head)
                self.behind.write(head)
            line.popleft()
        self._empty.set()
        self._emptied()

    def write(self, data: bytes) -> int:
        if not self._line:
            return self.behind.write(data)
        if data:
            self._line.append(data)
            self._size += len(data)
        return self._size

    def pace(self, rate: int, after: int) -> None:
        self.behind.pace(rate, after)

    def abort(self) -> None:
        self.behind.abort()

    async def drain(self, low_water: int = 0) -> bool:
        if self._line:
            await detach(self.request)
            await self._empty.wait()
        return await self.behind.drain(low_water)

    async def drain_relayed(self, low_water: int) -> bool:
        """Wait for the peer only."""
        return await self.behind.drain(low_water)

    def body_whole(self) -> bytes | None:
        return self.behind.body_whole()

    def body_nowait(self) -> bytes | None:
        return self.behind.body_nowait()

    async def body_some(self) -> bytes:
        return await self.behind.body_some()
