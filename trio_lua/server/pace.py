"""``limit_rate``: a transport that lets only so many bytes a second through.

It takes the place of a connection's transport while a response is limited, so other responses pay nothing. The
budget is nginx's: what the rate gives in a second may go at once, and grows with the time from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_lua.server.transport import Transport

if TYPE_CHECKING:
    from trio_lua.net.tls_facts import TlsFacts
    from trio_lua.server.connection import Connection

__all__ = ["Paced"]

#: Longest sleep in seconds: a shorter time than any sensible ``send_timeout``, which goes on meanwhile.
_STEP = 0.25


class Paced:
    """The transport of a connection whose response is limited.

    When the connection has come to its next request, it puts the real transport back.

    Args:
        connection: The connection, with its real transport.
        rate: Bytes a second; 0 is no limit.
        after: So many bytes are not counted.
    """

    __slots__ = ("_after", "_connection", "_number", "_sent", "_start", "inner", "rate")

    def __init__(self, connection: Connection, rate: int, after: int) -> None:
        self.inner: Transport = connection.transport
        self._connection = connection
        self._number = connection.requests
        self._start = trio.current_time()
        self._sent = 0
        self.limit(rate, after)

    def limit(self, rate: int, after: int) -> None:
        """Change the limit of the response."""
        self.rate = rate
        self._after = after

    @property
    def ended(self) -> bool:
        """Whether the response it was made for has ended."""
        return self._connection.requests != self._number

    def _room(self, data: bytes | memoryview) -> int:
        """How many of these bytes may go now; negative: how many too many have gone."""
        if self.ended:
            self._connection.transport = self.inner
            self.rate = 0
        if not self.rate:
            return len(data)
        elapsed = trio.current_time() - self._start
        room = int(self.rate * (elapsed + 1)) - (self._sent - self._after)
        return min(room, len(data))

    def send_nowait(self, data: bytes | memoryview) -> int:
        room = self._room(data)
        if room <= 0:
            return 0
        sent = self.inner.send_nowait(data[:room])
        self._sent += sent
        return sent

    async def send(self, data: bytes | memoryview) -> int:
        room = self._room(data)
        wanted = min(len(data), max(1, int(self.rate * _STEP))) if self.rate else len(data)
        if room < wanted:
            await trio.sleep(min(_STEP, (wanted - room) / self.rate))
            room = self._room(data)
            if room <= 0:
                return 0
        sent = await self.inner.send(data[:room])
        self._sent += sent
        return sent

    def forget_unsent(self) -> None:
        self.inner.forget_unsent()

    async def receive(self) -> bytes:
        return await self.inner.receive()

    def receive_nowait(self) -> bytes | None:
        return self.inner.receive_nowait()

    def fileno(self) -> int:
        return self.inner.fileno()

    def peek(self) -> bool:
        return self.inner.peek()

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    def close(self) -> None:
        self.inner.close()

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        return self.inner.addresses()

    @property
    def tls(self) -> bool:
        return self.inner.tls

    @property
    def facts(self) -> TlsFacts | None:
        return self.inner.facts

    @property
    def sock(self) -> object:
        """The socket, for the driver that waits for many."""
        return self.inner.sock  # type: ignore[attr-defined]
