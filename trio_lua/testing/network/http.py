"""A small HTTP server for the sockets of Lua code."""

from __future__ import annotations

import inspect
import json as json_module
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union
from urllib.parse import parse_qsl

import h11
import trio

from trio_lua.testing.client import Headers
from trio_lua.testing.network.peers import Peer

__all__ = ["Answer", "AnswerLike", "HttpPeer", "HttpRequest", "Routes"]

_RECEIVE_SIZE = 65536


@dataclass(frozen=True)
class HttpRequest:
    """What came.

    Attributes:
        method: Such as ``GET``.
        target: Path and query string as they came.
        headers: The headers.
        body: The body, unframed.
    """

    method: str
    target: str
    headers: Headers
    body: bytes

    @property
    def path(self) -> str:
        """The path."""
        return self.target.partition("?")[0]

    @property
    def params(self) -> dict[str, str]:
        """The arguments of the query string, the last one of each name."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: It is not.
        """
        return json_module.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to answer.

    Attributes:
        body: The body; anything but text and bytes is sent as JSON.
        status: The status.
        headers: Further headers; ``Content-Length`` is added.
        chunks: The body in pieces instead, sent chunk by chunk.
        seconds: How long it takes until the answer begins.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: tuple[bytes, ...] | None = None
    seconds: float = 0.0


#: An answer, or its status, or its body.
AnswerLike = Union[Answer, int, str, bytes]
_Function = Callable[[HttpRequest], "AnswerLike | Awaitable[AnswerLike]"]
#: A fixed answer, a function of the request (async or not), or either by path.
Routes = Union[AnswerLike, _Function, Mapping[str, "AnswerLike | _Function"]]


class HttpPeer(Peer):
    """A small HTTP/1.1 server with keepalive.

    Args:
        name: Host and port, for messages.
        routes: What it answers: an :class:`Answer`, a status, a body, or a function of the request; or a dict
            of these by path, where everything else is 404.
        tls: A server's context.

    Attributes:
        requests: What has come.
    """

    def __init__(self, name: str, routes: Routes, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(name, self._talk, tls=tls)
        self.routes = routes
        self.requests: list[HttpRequest] = []

    async def _talk(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            try:
                request = await self._receive(stream, connection)
            except h11.RemoteProtocolError as error:
                await self._send(stream, connection, Answer(str(error), error.error_status_hint))
                return
            if request is None:
                return
            self.requests.append(request)
            await self._send(stream, connection, await self._answer(request))
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _receive(
        self, stream: trio.abc.Stream, connection: h11.Connection
    ) -> HttpRequest | None:
        head: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    await stream.send_all(
                        connection.send(h11.InformationalResponse(status_code=100, headers=[]))
                        or b""
                    )
                connection.receive_data(bytes(await stream.receive_some(_RECEIVE_SIZE)))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return HttpRequest(
                    head.method.decode(),
                    head.target.decode("latin-1"),
                    Headers(
                        (name.decode("latin-1"), value.decode("latin-1"))
                        for name, value in head.headers.raw_items()
                    ),
                    body,
                )
            else:
                return None

    async def _answer(self, request: HttpRequest) -> Answer:
        found: Any = self.routes
        if isinstance(found, Mapping):
            found = found.get(request.path, 404)
        if callable(found):
            found = found(request)
            if inspect.isawaitable(found):
                found = await found
        if isinstance(found, int):
            return Answer(status=found)
        return found if isinstance(found, Answer) else Answer(found)

    async def _send(
        self, stream: trio.abc.Stream, connection: h11.Connection, answer: Answer
    ) -> None:
        await trio.sleep(answer.seconds)
        headers = list(answer.headers.items())
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        if not isinstance(body, bytes):
            body = json_module.dumps(body).encode()
            headers.append(("Content-Type", "application/json"))
        if answer.chunks is not None:
            headers.append(("Transfer-Encoding", "chunked"))
        else:
            headers.append(("Content-Length", str(len(body))))
        head = h11.Response(status_code=answer.status, headers=headers)
        parts = [body] if answer.chunks is None else answer.chunks
        await stream.send_all(connection.send(head) or b"")
        for part in parts:
            data = connection.send(h11.Data(data=part))
            if data:
                await stream.send_all(data)
        end = connection.send(h11.EndOfMessage())
        if end:
            await stream.send_all(end)
