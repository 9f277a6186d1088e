"""One TLS connection without a socket: OpenSSL between two buffers.

Bytes of the network go in and come out here; whoever has a socket or a stream carries them. A connection that is
encrypted can so be anything: a parked socket, a memory stream, a pipe.
"""

from __future__ import annotations

import contextlib
import ssl

__all__ = ["TlsState"]

#: Larger than any record.
_SIZE = 65536


class TlsState:
    """The server's side of a TLS connection.

    Args:
        context: Decides about certificates, versions and ciphers.

    Attributes:
        object: OpenSSL's connection, for questions about it.
        ended: The peer will send nothing more.
    """

    __slots__ = ("_incoming", "_outgoing", "ended", "object")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take bytes of the network; b"" is its end."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def output(self) -> bytes:
        """Take what is to be sent."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is complete, so that nothing more is needed of the peer.

        Raises:
            ssl.SSLError: It failed. There may be output all the same, which tells the peer.
        """
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read(self) -> bytes | None:
        """All that has arrived; b"" at the end, None when there is nothing yet.

        Raises:
            ssl.SSLError: The peer does not speak TLS any more.
        """
        read = self.object.read
        pieces: list[bytes] = []
        try:
            while not self.ended:
                piece = read(_SIZE)
                if not piece:
                    self.ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.ended = True
        if pieces:
            return b"".join(pieces)
        return b"" if self.ended else None

    def write(self, data: bytes | memoryview) -> bytes:
        """Encrypt.

        Returns:
            What is to be sent.

        Raises:
            ssl.SSLError: The connection is unusable.
        """
        self.object.write(data)
        return self._outgoing.read()

    def shutdown(self) -> bytes:
        """Say that nothing more will come; returns what is to be sent for that."""
        # the peer's own word for that is not waited for
        with contextlib.suppress(ssl.SSLError, OSError):
            self.object.unwrap()
        return self._outgoing.read()
