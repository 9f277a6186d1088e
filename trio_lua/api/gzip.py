"""``gzip`` and ``gunzip``: the streams of zlib."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from trio_lua.lua.ops import OpTable
from trio_lua.request.context import ClientConnection

__all__ = ["Inflater", "install"]

#: The largest window, and a gzip header around the stream.
_GZIP = 16 + zlib.MAX_WBITS

_SYNC, _FINISH = 1, 2


class Inflater:
    """Unpacks a gzip file that comes in pieces; it may have several members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False

    def feed(self, data: bytes, last: bool) -> bytes:
        """The bytes that a piece brings.

        Raises:
            ValueError: It is not gzip, or ends too early.
        """
        out = b""
        try:
            while data:
                if self._member.eof:
                    self._member = zlib.decompressobj(_GZIP)
                self._begun = True
                out += self._member.decompress(data)
                data = self._member.unused_data
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if last and self._begun and not self._member.eof:
            raise ValueError("premature end of the stream")
        return out


def install(table: OpTable, connections: Mapping[int, ClientConnection]) -> None:
    """Add the calls of ``gzip.lua``.

    Args:
        table: Where to add them.
        connections: Connections by number.
    """

    def deflate(number: int, level: int, data: bytes, flush: int) -> bytes:
        request = connections[number].request
        coder = getattr(request, "coder", None)
        if coder is None:
            coder = request.coder = zlib.compressobj(level, zlib.DEFLATED, _GZIP)
        out: bytes = coder.compress(data)
        if flush == _SYNC:
            out += coder.flush(zlib.Z_SYNC_FLUSH)
        elif flush == _FINISH:
            out += coder.flush()
        return out

    def inflate(number: int, data: bytes, last: bool) -> tuple[bytes | None, bytes | None]:
        request = connections[number].request
        coder = getattr(request, "coder", None)
        if coder is None:
            coder = request.coder = Inflater()
        try:
            return coder.feed(data, last), None
        except ValueError as error:
            return None, str(error).encode()

    table.call("deflate", deflate)
    table.call("inflate", inflate)
