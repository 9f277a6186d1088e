"""TLS over another transport: any socket, any stream."""

from __future__ import annotations

import contextlib
import errno
import ssl

from trio_lua.net.tls_facts import TlsFacts
from trio_lua.net.tls_stream import TlsState
from trio_lua.server.transport import Broken, Transport

__all__ = ["TlsTransport"]

#: Bytes encrypted in one go: several records, so that the system is not called for each.
_PIECE = 65536


class TlsTransport:
    """Encrypts what is sent and decrypts what comes.

    What was encrypted has to be sent. Bytes count as taken when that has happened, so the one piece of which
    only a part could be sent is offered here again, and is not encrypted again.

    Args:
        inner: Carries the records.
        state: After its handshake.
        facts: What is known of it.
    """

    __slots__ = ("_ahead", "_held", "_unsent", "facts", "inner", "state")

    tls = True

    def __init__(self, inner: Transport, state: TlsState, facts: TlsFacts) -> None:
        self.inner = inner
        self.state = state
        self.facts = facts
        #: Encrypted, and not sent yet: so many bytes of data, and the records they became.
        self._held = 0
        self._unsent: bytes | memoryview = b""
        #: Received already by :meth:`peek`.
        self._ahead: bytes | None = None

    # ----------------------------------------------------------------- sending

    def _flush(self) -> bool:
        """Send what is left of the records; whether nothing is."""
        unsent = self._unsent
        if unsent:
            sent = self.inner.send_nowait(unsent)
            self._unsent = memoryview(unsent)[sent:]
            return sent == len(unsent)
        return True

    def send_nowait(self, data: bytes | memoryview) -> int:
        total = 0
        while self._flush():
            total += self._held
            self._held = 0
            if total >= len(data):
                break
            piece = data[total : total + _PIECE] if total or len(data) > _PIECE else data
            try:
                self._unsent = self.state.write(piece)
            except (ssl.SSLError, OSError) as error:
                raise Broken(str(error)) from None
            self._held = len(piece)
        return total

    async def send(self, data: bytes | memoryview) -> int:
        while True:
            taken = self.send_nowait(data)
            if taken:
                return taken
            sent = await self.inner.send(self._unsent)
            self._unsent = memoryview(self._unsent)[sent:]

    def forget_unsent(self) -> None:
        # the records go out all the same: the peer could not read those that follow
        self._held = 0

    async def send_eof(self) -> None:
        with contextlib.suppress(Broken):
            self._unsent = bytes(self._unsent) + self.state.shutdown()
            while self._unsent:
                sent = await self.inner.send(self._unsent)
                self._unsent = memoryview(self._unsent)[sent:]
        await self.inner.send_eof()

    # --------------------------------------------------------------- receiving

    def _read(self) -> bytes | None:
        try:
            data = self.state.read()
        except (ssl.SSLError, OSError) as error:
            raise Broken(str(error)) from None
        output = self.state.output()
        if output:  # an answer of TLS itself
            self._unsent = bytes(self._unsent) + output
            self._flush()
        return data

    def receive_nowait(self) -> bytes | None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            return ahead
        data = self._read()
        if data is None:
            received = self.inner.receive_nowait()
            if received is None:
                return None
            self.state.feed(received)
            data = self._read()
        return data

    async def receive(self) -> bytes:
        data = self.receive_nowait()
        while data is None:
            self.state.feed(await self.inner.receive())
            data = self._read()
        return data

    @property
    def sock(self) -> TlsTransport:
        """What the driver that waits for many connections receives from."""
        return self

    def recv(self, _size: int) -> bytes:
        """Bytes that are here, as of a non-blocking socket.

        Raises:
            BlockingIOError: There are none yet.
            OSError: The connection is broken.
        """
        try:
            data = self.receive_nowait()
        except Broken as error:
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from None
        if data is None:
            raise BlockingIOError
        return data

    def peek(self) -> bool:
        if self._ahead is None:
            try:
                self._ahead = self.receive_nowait()
            except Broken:
                return False
        return self._ahead != b""

    # -------------------------------------------------------------------- rest

    def fileno(self) -> int:
        return self.inner.fileno()

    def close(self) -> None:
        if self.inner.fileno() >= 0 and not self._unsent:
            with contextlib.suppress(Broken):
                self.inner.send_nowait(self.state.shutdown())
        self.inner.close()

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        return self.inner.addresses()
