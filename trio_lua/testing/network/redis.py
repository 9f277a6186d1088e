"""A small redis for the sockets of Lua code: RESP2, keys that expire on the run's clock, MULTI, publish and subscribe.

The commands are those that applications use most. Others, and scripts, can be added by a test with
:meth:`RedisPeer.command`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import trio

from trio_lua.testing.network.peers import Peer
from trio_lua.testing.network.redis_commands import COMMANDS, OK, Database, RedisError, Status

__all__ = ["RedisError", "RedisPeer"]

_RECEIVE_SIZE = 65536


class RedisPeer(Peer):
    """A small redis.

    Args:
        name: Host and port, for messages.
        data: Keys and values to begin with.

    Attributes:
        password: What ``AUTH`` has to name; None: nothing is asked for.
        commands: What has come, as text.
    """

    def __init__(self, name: str, data: Mapping[str, Any]) -> None:
        super().__init__(name, self._talk)
        self.password: str | None = None
        self.commands: list[list[str]] = []
        self.databases: dict[int, Database] = {}
        self._own: dict[str, Callable[..., Any]] = {}
        self._sessions: list[_Session] = []
        for key, value in data.items():
            self.database(0).put(key.encode(), _stored(value))

    def database(self, number: int) -> Database:
        """A database of ``SELECT``."""
        return self.databases.setdefault(number, Database(trio.current_time))

    def command(self, name: str, function: Callable[..., Any]) -> None:
        """Add or replace a command.

        Args:
            name: Such as ``EVAL``.
            function: Called with the arguments as bytes; returns a number, bytes, text (a status), None or a list
                of these, or raises :class:`RedisError`.
        """
        self._own[name.upper()] = function

    def __getitem__(self, key: str) -> Any:
        """The value of a key of database 0: text, list, set or dict.

        Raises:
            KeyError: It does not exist, or has expired.
        """
        value = self.database(0).get(key.encode())
        if value is None:
            raise KeyError(key)
        return _shown(value)

    def __contains__(self, key: str) -> bool:
        return self.database(0).get(key.encode()) is not None

    def keys(self) -> list[str]:
        """The keys of database 0."""
        return [key.decode("utf-8", "replace") for key in self.database(0).all_keys()]

    async def publish(self, channel: str, message: str | bytes) -> int:
        """Send a message to those who have subscribed; how many there are."""
        data = message.encode() if isinstance(message, str) else message
        return await self._publish(channel.encode(), data)

    async def _publish(self, channel: bytes, message: bytes) -> int:
        count = 0
        for session in list(self._sessions):
            if channel in session.channels:
                await session.send([b"message", channel, message])
                count += 1
            for pattern in session.patterns:
                if fnmatchcase(channel.decode("latin-1"), pattern.decode("latin-1")):
                    await session.send([b"pmessage", pattern, channel, message])
                    count += 1
        return count

    async def _talk(self, stream: trio.abc.Stream) -> None:
        session = _Session(self, stream)
        self._sessions.append(session)
        try:
            while (words := await session.receive()) is not None:
                text = [word.decode("utf-8", "replace") for word in words]
                self.commands.append(text)
                if text[0].upper() == "QUIT":
                    await session.send(OK)
                    return
                try:
                    await session.run(text[0].upper(), words[1:])
                except RedisError as error:
                    await session.send(error)
        finally:
            self._sessions.remove(session)

    def call(self, database: Database, name: str, arguments: list[bytes]) -> Any:
        """Run a command that concerns one database.

        Raises:
            RedisError: It failed.
        """
        own = self._own.get(name)
        try:
            if own is not None:
                return own(*arguments)
            known = COMMANDS.get(name)
            if known is None:
                raise RedisError(f"ERR unknown command '{name}'")
            if not _takes(known, database, *arguments):
                raise RedisError(f"ERR wrong number of arguments for '{name.lower()}' command")
            return known(database, *arguments)
        except ValueError:
            raise RedisError("ERR value is not an integer or out of range") from None


class _Session:
    """A connection."""

    def __init__(self, peer: RedisPeer, stream: trio.abc.Stream) -> None:
        self._peer = peer
        self._stream = stream
        self._buffer = b""
        self._sending = trio.Lock()
        self._database = peer.database(0)
        self._known = peer.password is None
        self._queue: list[tuple[str, list[bytes]]] | None = None
        self._watched: dict[bytes, int] = {}
        self.channels: list[bytes] = []
        self.patterns: list[bytes] = []

    async def send(self, reply: Any) -> None:
        """Send a reply."""
        async with self._sending:
            await self._stream.send_all(encoded(reply))

    async def _more(self) -> bool:
        data = await self._stream.receive_some(_RECEIVE_SIZE)
        self._buffer += bytes(data)
        return bool(data)

    async def _line(self) -> bytes | None:
        while b"\r\n" not in self._buffer:
            if not await self._more():
                return None
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    async def receive(self) -> list[bytes] | None:
        """The words of a command; None at the end."""
        line = await self._line()
        if line is None:
            return None
        if not line.startswith(b"*"):
            return line.split() or await self.receive()
        words = []
        for _ in range(int(line[1:])):
            head = await self._line()
            if head is None:
                return None
            length = int(head[1:])
            while len(self._buffer) < length + 2:
                if not await self._more():
                    return None
            words.append(self._buffer[:length])
            self._buffer = self._buffer[length + 2 :]
        return words

    async def run(self, name: str, arguments: list[bytes]) -> None:
        """Run a command and send its replies.

        Raises:
            RedisError: It failed.
        """
        if name == "AUTH":
            password = self._peer.password
            if password is None:
                raise RedisError("ERR Client sent AUTH, but no password is set")
            if arguments[-1].decode() != password:
                raise RedisError("WRONGPASS invalid username-password pair or user is disabled.")
            self._known = True
            await self.send(OK)
        elif not self._known:
            raise RedisError("NOAUTH Authentication required.")
        elif name in ("SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE"):
            await self._subscribe(name, arguments)
        elif name == "MULTI":
            self._queue = []
            await self.send(OK)
        elif name == "DISCARD":
            self._queue, self._watched = None, {}
            await self.send(OK)
        elif name == "EXEC":
            await self.send(self._exec())
        elif self._queue is not None:
            self._queue.append((name, arguments))
            await self.send(Status("QUEUED"))
        elif name == "WATCH":
            self._watched.update((key, self._database.version(key)) for key in arguments)
            await self.send(OK)
        elif name == "UNWATCH":
            self._watched = {}
            await self.send(OK)
        elif name == "SELECT":
            self._database = self._peer.database(int(arguments[0]))
            await self.send(OK)
        elif name == "PUBLISH":
            await self.send(await self._peer._publish(*arguments))
        elif name in ("BLPOP", "BRPOP"):
            await self.send(await self._blocking(name[1:], arguments))
        else:
            await self.send(self._peer.call(self._database, name, arguments))

    def _exec(self) -> Any:
        if self._queue is None:
            raise RedisError("ERR EXEC without MULTI")
        queue, self._queue = self._queue, None
        watched, self._watched = self._watched, {}
        if any(self._database.version(key) != number for key, number in watched.items()):
            return None
        replies: list[Any] = []
        for name, arguments in queue:
            try:
                replies.append(self._peer.call(self._database, name, arguments))
            except RedisError as error:
                replies.append(error)
        return replies

    async def _subscribe(self, name: str, arguments: list[bytes]) -> None:
        topics = self.patterns if name.startswith("P") else self.channels
        for topic in arguments or list(topics) or [b""]:
            if "UN" in name:
                if topic in topics:
                    topics.remove(topic)
            elif topic not in topics:
                topics.append(topic)
            count = len(self.channels) + len(self.patterns)
            await self.send([name.lower().encode(), topic or None, count])

    async def _blocking(self, name: str, arguments: list[bytes]) -> Any:
        *keys, timeout = arguments
        with trio.move_on_after(float(timeout) or math.inf):
            while True:
                for key in keys:
                    value = self._peer.call(self._database, name, [key])
                    if value is not None:
                        return [key, value]
                await self._database.changed()
        return None


def encoded(reply: Any) -> bytes:
    """A reply in RESP2."""
    if isinstance(reply, RedisError):
        return f"-{reply}\r\n".encode()
    if isinstance(reply, str):
        return f"+{reply}\r\n".encode()
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if reply is None:
        return b"$-1\r\n"
    return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))


def _takes(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _stored(value: Any) -> Any:
    """A value of Python as the database has it."""
    if isinstance(value, Mapping):
        return {_bytes(key): _bytes(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return {_bytes(item) for item in value}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [_bytes(item) for item in value]
    return _bytes(value)


def _shown(value: Any) -> Any:
    """A value of the database for a test."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {_shown(key): _shown(item) for key, item in value.items()}
    if isinstance(value, (set, list)):
        return type(value)(map(_shown, value))
    return value
