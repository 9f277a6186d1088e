"""What a test's network has in it: peers that run a handler, follow a script, or misbehave."""

from __future__ import annotations

import inspect
import math
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

__all__ = ["DatagramHandler", "DatagramPeer", "Handler", "Peer", "Script", "ScriptedPeer"]

#: Speaks to one connection.
Handler = Callable[[trio.abc.Stream], Awaitable[None]]

#: Answers a datagram: with one, several or none.
DatagramHandler = Callable[
    [bytes], "bytes | Iterable[bytes] | Awaitable[bytes | Iterable[bytes] | None] | None"
]

_RECEIVE_SIZE = 65536


class Peer:
    """Something that Lua code can connect to.

    Args:
        name: Host and port, for messages.
        handler: Runs for each connection, which is closed when it returns.
        tls: A server's context: clients have to shake hands.

    Attributes:
        refuses: Whether connections are refused.
        accepted: How many connections there have been.
        open: How many of them have not ended.
    """

    def __init__(self, name: str, handler: Handler, *, tls: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.refuses = False
        self.accepted = 0
        self.open = 0
        self._handler = handler
        self._tls = tls
        self._connecting = 0.0
        self._latency = 0.0

    def slow(self, seconds: float = 0.0, *, connecting: float = 0.0) -> Peer:
        """Let it take its time.

        Args:
            seconds: Before each piece that it sends.
            connecting: Before a connection is made; ``math.inf`` for never.

        Returns:
            This peer.
        """
        self._latency = seconds
        self._connecting = connecting
        return self

    def may_connect(self) -> str | None:
        """None, or why the test has not foreseen one more connection."""
        return None

    async def connected(self) -> None:
        """Wait until a connection is made."""
        await trio.sleep(self._connecting)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Speak to a connection, and close it."""
        self.accepted += 1
        self.open += 1
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        try:
            await self._handler(_Late(stream, self._latency) if self._latency else stream)
            await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # the client has gone
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    def missing(self) -> str | None:
        """What the test has announced and Lua code has not done; None when there is nothing."""
        return None


class _Late(trio.abc.Stream):
    """A stream that waits before it sends."""

    def __init__(self, stream: trio.abc.Stream, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(self._seconds)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Mismatch(Exception):
    """A connection did not do what its script says."""


Step = Callable[["_Conversation"], Awaitable[None]]


class _Conversation:
    """A connection that follows a script: the stream, and what came and is not looked at yet."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = b""

    async def more(self, expected: str) -> None:
        data = await self.stream.receive_some(_RECEIVE_SIZE)
        if not data:
            raise _Mismatch(
                f"expected {expected}, but the client closed the connection after {self.received!r}"
            )
        self.received += bytes(data)


class Script:
    """What one connection of a scripted peer has to look like: the steps in their order.

    ::

        lua_network.script("cache", 11211).expect("get x\\r\\n").send("END\\r\\n").close()

    At the end of the steps the connection stays open until the client closes it.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, Step]] = []
        #: The step that runs or comes next; None when all have been done.
        self.at: str | None = "connect"
        #: Why it went wrong; None when it did not.
        self.failure: str | None = None

    def expect(self, what: bytes | str | re.Pattern[bytes]) -> Script:
        """Wait for exactly these bytes, or for a match of a pattern at the start of what comes."""
        if isinstance(what, re.Pattern):
            pattern = what

            async def step(talk: _Conversation) -> None:
                while (match := pattern.match(talk.received)) is None:
                    await talk.more(f"a match of {pattern.pattern!r}")
                talk.received = talk.received[match.end() :]

            return self._add(f"expect({pattern.pattern!r})", step)
        wanted = what.encode() if isinstance(what, str) else what

        async def exactly(talk: _Conversation) -> None:
            while not talk.received.startswith(wanted):
                if not wanted.startswith(talk.received):
                    raise _Mismatch(f"expected {wanted!r}, received {talk.received!r}")
                await talk.more(repr(wanted))
            talk.received = talk.received[len(wanted) :]

        return self._add(f"expect({wanted!r})", exactly)

    def send(self, data: bytes | str) -> Script:
        """Send bytes."""
        raw = data.encode() if isinstance(data, str) else data

        async def step(talk: _Conversation) -> None:
            await talk.stream.send_all(raw)

        return self._add(f"send({raw!r})", step)

    def wait(self, seconds: float) -> Script:
        """Let time pass."""

        async def step(talk: _Conversation) -> None:
            await trio.sleep(seconds)

        return self._add(f"wait({seconds})", step)

    def close(self) -> Script:
        """Close the connection."""

        async def step(talk: _Conversation) -> None:
            self.at = None
            await talk.stream.aclose()

        return self._add("close()", step)

    def _add(self, name: str, step: Step) -> Script:
        self._steps.append((name, step))
        return self

    async def run(self, stream: trio.abc.Stream) -> None:
        """Do the steps."""
        talk = _Conversation(stream)
        try:
            for name, step in self._steps:
                self.at = name
                await step(talk)
            self.at = None
            if self._steps and self._steps[-1][0] == "close()":
                return
            more = talk.received or await stream.receive_some(_RECEIVE_SIZE)
            if more:
                raise _Mismatch(f"nothing more was expected, but there is {bytes(more)!r}")
        except _Mismatch as error:
            self.failure = str(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if self.at is not None:
                self.failure = f"the client has closed the connection before {self.at}"


class ScriptedPeer(Peer):
    """Each connection follows the next one of its scripts."""

    def __init__(self, name: str, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(name, self._follow, tls=tls)
        self.scripts: list[Script] = []
        self._begun = 0

    def may_connect(self) -> str | None:
        """See :meth:`Peer.may_connect`."""
        if self._begun == len(self.scripts):
            return f"the test has scripts for {self._begun} connections only"
        self._begun += 1
        return super().may_connect()

    async def _follow(self, stream: trio.abc.Stream) -> None:
        await self.scripts[self.accepted - 1].run(stream)

    def missing(self) -> str | None:
        """See :meth:`Peer.missing`."""
        for number, script in enumerate(self.scripts, 1):
            if script.failure is not None:
                return f"connection {number}: {script.failure}"
            if script.at == "connect":
                return f"connection {number} was expected and not made"
            if script.at is not None:
                return f"connection {number} is still at {script.at}"
        return None


async def silent(stream: trio.abc.Stream) -> None:
    """A handler that receives and says nothing."""
    while await stream.receive_some(_RECEIVE_SIZE):
        pass


async def reset(stream: trio.abc.Stream) -> None:
    """A handler that ends the connection as soon as something comes, without reading it.

    A Unix socket that is closed with unread data resets its peer, as TCP does.
    """
    assert isinstance(stream, trio.SocketStream)
    await trio.lowlevel.wait_readable(stream.socket.fileno())


class DatagramPeer:
    """Something that Lua code can send datagrams to.

    Args:
        name: Host and port, for messages.
        handler: Answers each datagram; None: nothing answers.

    Attributes:
        received: The datagrams that have come.
    """

    def __init__(self, name: str, handler: DatagramHandler | None) -> None:
        self.name = name
        self.received: list[bytes] = []
        self._handler = handler
        self._latency = 0.0

    def slow(self, seconds: float) -> DatagramPeer:
        """Let ``seconds`` pass before each answer; ``math.inf`` for no answer."""
        self._latency = seconds
        return self

    async def serve(self, sock: trio.socket.SocketType) -> None:
        """Answer what comes from a socket."""
        with sock:
            while True:
                try:
                    data = await sock.recv(_RECEIVE_SIZE)
                except ConnectionResetError:
                    return
                if not data:
                    return
                self.received.append(data)
                answer: Any = None if self._handler is None else self._handler(data)
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer is None or self._latency == math.inf:
                    continue
                await trio.sleep(self._latency)
                for datagram in [answer] if isinstance(answer, bytes) else answer:
                    await sock.send(datagram)
