"""The first message of a TLS client, read before a handshake begins (RFC 8446, 4.1.2; RFC 6066, 3).

OpenSSL would report it from inside of the handshake, through a callback that has to answer at once. Read in
front of it, the choice of a server and its certificate may take as long as Lua code needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["BadHello", "ClientHello", "is_tls", "parse"]

#: No client needs more, keys for post-quantum algorithms included.
_MAX_SIZE = 65536

_HANDSHAKE, _CLIENT_HELLO = 22, 1

#: Types of extensions.
_SERVER_NAME, _GROUPS, _ALPN, _TICKET, _VERSIONS = 0, 10, 16, 35, 43


class BadHello(ValueError):
    """It is none; OpenSSL knows the right answer."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client offers.

    Attributes:
        version: The highest version, such as 0x0303 for TLS 1.2.
        random: 32 bytes.
        session_id: Of the session that it wants to resume; b"" for none.
        ciphers: Numbers of its cipher suites.
        extensions: Types and contents, in its order.
    """

    version: int
    random: bytes
    session_id: bytes
    ciphers: tuple[int, ...]
    extensions: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def server_name(self) -> bytes | None:
        """The host name that it wants to speak to, as it wrote it."""
        content = self.extensions.get(_SERVER_NAME)
        if content is None:
            return None
        reader = _Reader(_Reader(content).vector(2))
        while reader:
            kind, name = reader.number(1), reader.vector(2)
            if kind == 0:
                return name
        return None

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions that it supports, where it lists them."""
        content = self.extensions.get(_VERSIONS)
        return () if content is None else _Reader(_Reader(content).vector(1)).numbers()

    @property
    def groups(self) -> tuple[int, ...]:
        """Numbers of its elliptic curves and other groups."""
        content = self.extensions.get(_GROUPS)
        return () if content is None else _Reader(_Reader(content).vector(2)).numbers()

    @property
    def ticket(self) -> bytes:
        """The ticket of the session that it wants to resume; b"" for none."""
        return self.extensions.get(_TICKET, b"")


class _Reader:
    """Takes numbers and vectors off the front of bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise BadHello("it ends too early")
        return self._data[start : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))

    def numbers(self) -> tuple[int, ...]:
        """What is left, as numbers of two bytes."""
        numbers = []
        while self:
            numbers.append(self.number(2))
        return tuple(numbers)


def is_tls(data: bytes) -> bool:
    """Whether a connection begins like one of TLS (or of SSL 2), as nginx tells it from HTTP."""
    return data[0] == _HANDSHAKE or data[0] >= 0x80


def parse(data: bytes) -> ClientHello | None:
    """Read the message from the first bytes of a connection.

    Returns:
        None when it is not complete.

    Raises:
        BadHello: It is none.
    """
    message = b""
    at = 0
    while len(data) >= at + 5:
        if data[at] != _HANDSHAKE or data[at + 1] != 3:
            raise BadHello("not a record of a handshake")
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        record = data[at + 5 : at + 5 + size]
        if len(record) < size:
            break
        message += record
        at += 5 + size
        if len(message) >= 4:
            if message[0] != _CLIENT_HELLO:
                raise BadHello("not a ClientHello")
            length = int.from_bytes(message[1:4], "big")
            if length > _MAX_SIZE:
                raise BadHello("too long")
            if len(message) >= 4 + length:
                return _read(message[4 : 4 + length])
    if len(data) > 2 * _MAX_SIZE:
        raise BadHello("too long")
    return None


def _read(body: bytes) -> ClientHello:
    reader = _Reader(body)
    version = reader.number(2)
    random = reader.take(32)
    session_id = reader.vector(1)
    ciphers = _Reader(reader.vector(2)).numbers()
    reader.vector(1)
    extensions: dict[int, bytes] = {}
    if reader:
        inner = _Reader(reader.vector(2))
        while inner:
            kind = inner.number(2)
            extensions[kind] = inner.vector(2)
    hello = ClientHello(version, random, session_id, ciphers, extensions)
    # what is used of it is read once here, so that it cannot fail later
    _ = hello.server_name, hello.groups
    version = max((number for number in hello.versions if number >> 8 == 3), default=version)
    return ClientHello(version, random, session_id, ciphers, extensions)
