"""The chunked body of a request, out of its chunks.

h11 can do this, too, but it drops chunk extensions before anyone can look at them, and a bare CR
inside one is a line end to some servers in front of us and not to others: exactly the difference
that request smuggling lives on. So the framing is read here, strictly, and a property-based test
holds it against h11: what this decoder accepts, h11 accepts, with the same data.
"""

from __future__ import annotations

import re

from trio_lua.errors import ProtocolError

__all__ = ["ChunkedDecoder"]

# Sixteen digits hold every 64-bit size; what is too large for off_t is refused by value.
_size_line = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*|[ \t]*)")
_trailer_line = re.compile(
    rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:[ \t]*(?:[^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?[ \t]*"
)
_MAX_SIZE = 2**63 - 6
_MAX_LINE = 4096
_MAX_TRAILER = 32768

_SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


class ChunkedDecoder:
    """Bytes in, body data out.

    How much body is too much is the caller's decision; lines of the framing itself are limited here.
    """

    __slots__ = ("_left", "_rest", "_state", "_trailer_size")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._rest = b""
        self._trailer_size = 0

    @property
    def done(self) -> bool:
        """Whether the last chunk and the trailer have been read."""
        return self._state == _DONE

    @property
    def trailing(self) -> bytes:
        """Once done: what was received behind the body."""
        return self._rest

    def feed(self, data: bytes) -> list[bytes]:
        """Take in bytes and return the pieces of body data in them, none of them empty.

        Raises:
            ProtocolError: The framing is wrong.
        """
        pieces: list[bytes] = []
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = 0
        size = len(data)
        while at < size and self._state != _DONE:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._check_partial(data[at:])
                break
            if end == at or data[end - 1] != 13:
                raise ProtocolError("client sent invalid chunked body")
            self._line(data[at : end - 1])
            at = end + 1
        self._rest = data[at:]
        return pieces

    def _line(self, line: bytes) -> None:
        if self._state == _DATA_END:
            if line:
                raise ProtocolError("client sent invalid chunked body")
            self._state = _SIZE
        elif self._state == _SIZE:
            match = _size_line.fullmatch(line)
            if match is None or len(line) > _MAX_LINE:
                raise ProtocolError("client sent invalid chunked body")
            self._left = int(match.group(1), 16)
            if self._left > _MAX_SIZE:
                raise ProtocolError("client sent invalid chunked body")
            self._state = _DATA if self._left else _TRAILER
        elif not line:
            self._state = _DONE
        else:
            self._trailer_size += len(line) + 2
            if _trailer_line.fullmatch(line) is None or self._trailer_size > _MAX_TRAILER:
                raise ProtocolError("client sent invalid chunked body")

    def _check_partial(self, line: bytes) -> None:
        body = line[:-1] if line.endswith(b"\r") else line
        if self._state == _DATA_END:
            wrong = bool(body)
        elif self._state == _SIZE:
            # An extension of any length would otherwise be collected for ever.
            wrong = len(line) > _MAX_LINE or (bool(body) and _size_line.fullmatch(body) is None)
        else:
            wrong = len(line) + self._trailer_size > _MAX_TRAILER or b"\r" in body
        if wrong:
            raise ProtocolError("client sent invalid chunked body")
