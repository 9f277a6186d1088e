"""A small memcached for the sockets of Lua code: the text protocol, keys that expire on the run's clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from trio_lua.testing.network.peers import Peer

__all__ = ["MemcachedPeer"]

_RECEIVE_SIZE = 65536

_VERSION = b"1.6.9"

#: Times beyond it are no longer durations but seconds since 1970.
_MONTH = 60 * 60 * 24 * 30

_STORING = {b"set", b"add", b"replace", b"append", b"prepend", b"cas"}

#: What a key, and a value, may take.
_MAX_KEY, _MAX_VALUE = 250, 1 << 20

_ERROR = b"ERROR\r\n"
_BAD_LINE = b"CLIENT_ERROR bad command line format\r\n"


class _Refused(Exception):
    """The command is answered with an error."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer)
        self.answer = answer


@dataclass
class _Item:
    value: bytes
    flags: bytes
    expires: float
    unique: int


class MemcachedPeer(Peer):
    """A small memcached.

    Args:
        name: Host and port, for messages.
        data: Keys and values to begin with.
        now: Seconds since 1970.

    Attributes:
        commands: The lines that have come, as text.
    """

    def __init__(
        self, name: str, data: Mapping[str, str | bytes], now: Callable[[], float]
    ) -> None:
        super().__init__(name, self._talk)
        self.commands: list[str] = []
        self._now = now
        self._items: dict[bytes, _Item] = {}
        self._count = 0
        for key, value in data.items():
            self[key] = value

    # ------------------------------------------------------------- for the test

    def __getitem__(self, key: str) -> str:
        """The value of a key.

        Raises:
            KeyError: It does not exist, or has expired.
        """
        item = self._find(key.encode())
        if item is None:
            raise KeyError(key)
        return item.value.decode("utf-8", "replace")

    def __setitem__(self, key: str, value: str | bytes) -> None:
        data = value.encode() if isinstance(value, str) else value
        self._put(key.encode(), data, b"0", 0)

    def __contains__(self, key: str) -> bool:
        return self._find(key.encode()) is not None

    def keys(self) -> list[str]:
        """The keys that there are."""
        return [key.decode("utf-8", "replace") for key in list(self._items) if self._find(key)]

    # ------------------------------------------------------------------- items

    def _find(self, key: bytes) -> _Item | None:
        item = self._items.get(key)
        if item is not None and item.expires and item.expires <= self._now():
            del self._items[key]
            return None
        return item

    def _put(self, key: bytes, value: bytes, flags: bytes, seconds: int) -> None:
        self._count += 1
        self._items[key] = _Item(value, flags, 0.0, self._count)
        self._touch(key, seconds)

    def _touch(self, key: bytes, seconds: int) -> None:
        if seconds < 0:
            del self._items[key]
        else:
            later = seconds if seconds > _MONTH else self._now() + seconds
            self._items[key].expires = later if seconds else 0.0

    # ---------------------------------------------------------------- protocol

    async def _talk(self, stream: trio.abc.Stream) -> None:
        received = b""
        while True:
            line, end, rest = received.partition(b"\n")
            words = line.split()
            size = 0
            if end and words and words[0] in _STORING:
                size = int(words[4]) + 2 if len(words) > 4 and words[4].isdigit() else 0
            if not end or len(rest) < size:
                more = await stream.receive_some(_RECEIVE_SIZE)
                if not more:
                    return
                received += bytes(more)
                continue
            received = rest[size:]
            self.commands.append(line.decode("utf-8", "replace").rstrip("\r"))
            if words[:1] == [b"quit"]:
                return
            answer = self._answer(words, rest[:size])
            if answer and words[-1:] != [b"noreply"]:
                await stream.send_all(answer)

    def datagram(self, data: bytes) -> bytes:
        """Answer a datagram: eight bytes of a frame's header, and a command."""
        line, _, rest = data[8:].partition(b"\n")
        self.commands.append(line.decode("utf-8", "replace").rstrip("\r"))
        return data[:2] + b"\0\0\0\1\0\0" + self._answer(line.split(), rest)

    def _answer(self, words: list[bytes], block: bytes) -> bytes:
        if not words:
            return _ERROR
        name, *arguments = words
        call = getattr(self, f"_do_{name.decode('latin-1')}", None)
        if name not in _STORING and call is None:
            return _ERROR
        if arguments[-1:] == [b"noreply"]:
            arguments.pop()
        try:
            if call is None:
                return self._store(name, arguments, block)
            answer: bytes = call(arguments)
            return answer
        except _Refused as refused:
            return refused.answer
        except (IndexError, ValueError):
            return _BAD_LINE if arguments else _ERROR

    def _store(self, name: bytes, arguments: list[bytes], block: bytes) -> bytes:
        key, flags, seconds = arguments[0], arguments[1], int(arguments[2])
        if len(key) > _MAX_KEY:
            return _BAD_LINE
        if not block.endswith(b"\r\n"):
            return b"CLIENT_ERROR bad data chunk\r\n"
        value = block[:-2]
        if len(value) > _MAX_VALUE:
            return b"SERVER_ERROR object too large for cache\r\n"
        old = self._find(key)
        if name == b"cas":
            if old is None:
                return b"NOT_FOUND\r\n"
            if old.unique != int(arguments[4]):
                return b"EXISTS\r\n"
        elif (name == b"add") is not (old is None) and name != b"set":
            return b"NOT_STORED\r\n"
        if old is not None and name in (b"append", b"prepend"):
            value = old.value + value if name == b"append" else value + old.value
            old.value = value
            self._count += 1
            old.unique = self._count
        else:
            self._put(key, value, flags, seconds)
        return b"STORED\r\n"

    def _values(self, keys: list[bytes], *, unique: bool) -> bytes:
        if not keys:
            raise _Refused(_ERROR)
        parts = []
        for key in keys:
            if len(key) > _MAX_KEY:
                raise _Refused(_BAD_LINE)
            item = self._find(key)
            if item is not None:
                number = b" %d" % item.unique if unique else b""
                head = b"VALUE %b %b %d%b\r\n" % (key, item.flags, len(item.value), number)
                parts.append(head + item.value + b"\r\n")
        return b"".join(parts) + b"END\r\n"

    def _do_get(self, keys: list[bytes]) -> bytes:
        return self._values(keys, unique=False)

    def _do_gets(self, keys: list[bytes]) -> bytes:
        return self._values(keys, unique=True)

    def _do_gat(self, arguments: list[bytes]) -> bytes:
        return self._get_and_touch(arguments, unique=False)

    def _do_gats(self, arguments: list[bytes]) -> bytes:
        return self._get_and_touch(arguments, unique=True)

    def _get_and_touch(self, arguments: list[bytes], *, unique: bool) -> bytes:
        seconds, keys = int(arguments[0]), arguments[1:]
        found = self._values(keys, unique=unique)
        for key in keys:
            if self._find(key) is not None:
                self._touch(key, seconds)
        return found

    def _do_touch(self, arguments: list[bytes]) -> bytes:
        key, seconds = arguments[0], int(arguments[1])
        if self._find(key) is None:
            return b"NOT_FOUND\r\n"
        self._touch(key, seconds)
        return b"TOUCHED\r\n"

    def _do_delete(self, arguments: list[bytes]) -> bytes:
        key = arguments[0]
        if len(arguments) > 1 and arguments[1:] != [b"0"]:
            return b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
        if self._find(key) is None:
            return b"NOT_FOUND\r\n"
        del self._items[key]
        return b"DELETED\r\n"

    def _do_incr(self, arguments: list[bytes]) -> bytes:
        return self._add(arguments, 1)

    def _do_decr(self, arguments: list[bytes]) -> bytes:
        return self._add(arguments, -1)

    def _add(self, arguments: list[bytes], sign: int) -> bytes:
        key, delta = arguments[0], arguments[1]
        if not delta.isdigit():
            return b"CLIENT_ERROR invalid numeric delta argument\r\n"
        item = self._find(key)
        if item is None:
            return b"NOT_FOUND\r\n"
        if not item.value.strip().isdigit():
            return b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
        # 64 bits wrap upwards, and end at 0 downwards
        number = max(0, int(item.value) + sign * int(delta)) % (1 << 64)
        item.value = b"%d" % number
        self._count += 1
        item.unique = self._count
        return item.value + b"\r\n"

    def _do_flush_all(self, arguments: list[bytes]) -> bytes:
        seconds = int(arguments[0]) if arguments else 0
        for key in list(self._items):
            if seconds > 0:
                self._touch(key, seconds)
            else:
                del self._items[key]
        return b"OK\r\n"

    def _do_version(self, _arguments: list[bytes]) -> bytes:
        return b"VERSION %b\r\n" % _VERSION

    def _do_verbosity(self, _arguments: list[bytes]) -> bytes:
        return b"OK\r\n"

    def _do_stats(self, arguments: list[bytes]) -> bytes:
        if arguments:
            return b"RESET\r\n" if arguments == [b"reset"] else b"END\r\n"
        begun = [line.partition(" ")[0] for line in self.commands]
        stats = {
            "pid": 1,
            "uptime": 0,
            "time": int(self._now()),
            "version": _VERSION.decode(),
            "pointer_size": 64,
            "curr_connections": self.open,
            "total_connections": self.accepted,
            "cmd_get": begun.count("get") + begun.count("gets"),
            "cmd_set": sum(begun.count(name.decode()) for name in _STORING),
            "curr_items": len(self.keys()),
            "total_items": self._count,
            "bytes": sum(len(item.value) for item in self._items.values()),
        }
        lines = [f"STAT {name} {value}\r\n".encode() for name, value in stats.items()]
        return b"".join(lines) + b"END\r\n"
