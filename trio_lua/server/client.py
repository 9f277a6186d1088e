"""An HTTP client inside the process: requests over streams that lead straight into a server.

h11 speaks the client's side, so that a response that breaks HTTP is an error.
"""

from __future__ import annotations

import json as json_module
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Union
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import h11
import trio

__all__ = ["Client", "Headers", "HeadersLike", "IncompleteResponse", "Response"]

#: Headers as callers may give them.
HeadersLike = Union[Mapping[str, str], Iterable[tuple[str, str]]]

_RECEIVE_SIZE = 65536

_ASCII = "".join(map(chr, range(128)))


class Headers(Mapping[str, str]):
    """Response headers in their order; names compare without case.

    A header that came several times reads as its values joined by ", " (RFC 9110, section 5.3).
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = tuple(pairs)

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def get_all(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.pairs if key.lower() == name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name, _ in self.pairs))

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self.pairs})

    def __repr__(self) -> str:
        return f"Headers({list(self.pairs)!r})"


class Response:
    """What a server answered.

    Attributes:
        status: The status, such as 200.
        reason: Its text, such as ``OK``.
        headers: The headers.
        body: The body, unframed.
        http_version: ``1.1`` as a rule.
        seconds: How long it took from the request to the end of the body, on the run's clock.
    """

    def __init__(
        self, status: int, reason: str, headers: Headers, body: bytes, http_version: str
    ) -> None:
        self.seconds = 0.0
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body
        self.http_version = http_version

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

    def __repr__(self) -> str:
        body = self.body if len(self.body) <= 200 else self.body[:200] + b"..."
        return f"<Response {self.status} {self.reason} {dict(self.headers)} {body!r}>"


class IncompleteResponse(h11.RemoteProtocolError):
    """The server has closed the connection before its response was complete.

    Attributes:
        response: What has come of it; None for nothing.
    """

    def __init__(self, response: Response | None) -> None:
        if response is None:
            text = "the server closed the connection without a response"
        else:
            text = (
                "the server closed the connection in the middle of its response: "
                f"{response.status} {response.reason}, {len(response.body)} bytes of the body"
            )
        super().__init__(text)
        self.response = response


class Client:
    """Sends requests, each over a connection of its own.

    Args:
        connect: Opens a stream to the server.
        host: The ``Host`` of requests that name none.
        reach: Opens a stream to where a URL leads: its scheme, host and port.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[trio.abc.Stream]],
        *,
        host: str = "localhost",
        reach: Callable[[str, str, int], Awaitable[trio.abc.Stream]] | None = None,
    ) -> None:
        self._connect = connect
        self._reach = reach
        self.host = host

    async def request(
        self,
        method: str,
        target: str,
        *,
        params: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        headers: HeadersLike = (),
        body: bytes | str | None = None,
        json: Any = None,
        http_version: str = "1.1",
    ) -> Response:
        """Send a request and return the whole response.

        Args:
            method: Such as ``GET``.
            target: The path, with or without a query string; or a whole URL, which says to which ``listen`` and to which
                host the request goes. What is not ASCII goes as percent-encoded UTF-8.
            params: Arguments to add to the query string.
            headers: Headers; ``Host`` and ``Content-Length`` are added where they are missing.
            body: The body.
            json: A value to send as a JSON body instead.
            http_version: ``1.1`` or ``1.0``.

        Raises:
            ValueError: A line break in the target or in a header, which would end it; a URL that leads nowhere.
            IncompleteResponse: The server closed the connection too early.
            h11.RemoteProtocolError: What it sent is not HTTP.
        """
        __tracebackhide__ = True
        host, connect = self.host, self._connect
        if self._reach is not None and target.startswith(("http://", "https://")):
            url = urlsplit(target)
            port = url.port or (443 if url.scheme == "https" else 80)
            host, connect = url.netloc, partial(self._reach, url.scheme, url.hostname or "", port)
            target = urlunsplit(("", "", url.path or "/", url.query, ""))
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if all(name.lower() != "host" for name, _ in pairs):
            pairs.insert(0, ("Host", host))
        head, data = _message(method, target, params, pairs, body, json, http_version)
        began = trio.current_time()
        async with _opened(connect) as stream:
            await stream.send_all(head + data)
            response = await _response(stream, method)
        response.seconds = trio.current_time() - began
        return response

    async def get(self, target: str, **options: Any) -> Response:
        """``GET``; options as for :meth:`request`."""
        __tracebackhide__ = True
        return await self.request("GET", target, **options)

    async def head(self, target: str, **options: Any) -> Response:
        """``HEAD``."""
        __tracebackhide__ = True
        return await self.request("HEAD", target, **options)

    async def post(self, target: str, **options: Any) -> Response:
        """``POST``."""
        __tracebackhide__ = True
        return await self.request("POST", target, **options)

    async def put(self, target: str, **options: Any) -> Response:
        """``PUT``."""
        __tracebackhide__ = True
        return await self.request("PUT", target, **options)

    async def delete(self, target: str, **options: Any) -> Response:
        """``DELETE``."""
        __tracebackhide__ = True
        return await self.request("DELETE", target, **options)

    async def raw(self, data: bytes | str) -> bytes:
        """Send bytes as they are, and return all that comes until the server closes the connection."""
        async with self.stream() as stream:
            await stream.send_all(data.encode() if isinstance(data, str) else data)
            received = b""
            while part := await stream.receive_some(_RECEIVE_SIZE):
                received += part
            return received

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[trio.abc.Stream]:
        """A connection to do with as one likes: pipelining, half a request, WebSocket."""
        async with _opened(self._connect) as stream:
            yield stream


@asynccontextmanager
async def _opened(
    connect: Callable[[], Awaitable[trio.abc.Stream]],
) -> AsyncIterator[trio.abc.Stream]:
    stream = await connect()
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


def _message(
    method: str,
    target: str,
    params: Mapping[str, str] | Iterable[tuple[str, str]] | None,
    pairs: list[tuple[str, str]],
    body: bytes | str | None,
    json: Any,
    http_version: str,
) -> tuple[bytes, bytes]:
    names = {name.lower() for name, _ in pairs}
    if json is not None:
        body = json_module.dumps(json)
        if "content-type" not in names:
            pairs.append(("Content-Type", "application/json"))
    data = body.encode() if isinstance(body, str) else body or b""
    if params is not None:
        items = params.items() if isinstance(params, Mapping) else params
        target += ("&" if "?" in target else "?") + urlencode(list(items))
    if "connection" not in names:
        pairs.append(("Connection", "close"))
    if (
        (data or method in ("POST", "PUT", "PATCH"))
        and "content-length" not in names
        and "transfer-encoding" not in names
    ):
        pairs.append(("Content-Length", str(len(data))))
    head_lines = [f"{method} {quote(target, safe=_ASCII)} HTTP/{http_version}"]
    head_lines += [f"{name}: {value}" for name, value in pairs]
    for line in head_lines:
        if "\r" in line or "\n" in line:
            raise ValueError(f"a line break inside of {line!r}")
    head = "\r\n".join([*head_lines, "", ""])
    return head.encode("latin-1"), data


async def _response(stream: trio.abc.Stream, method: str) -> Response:
    __tracebackhide__ = True
    connection = h11.Connection(h11.CLIENT)
    # h11 has to know the method to know where the body ends; what it would send went already
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    response: Response | None = None
    closed = False
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if closed:
                raise IncompleteResponse(response) from None
            raise h11.RemoteProtocolError(f"this is no HTTP response: {error}") from None
        if event is h11.NEED_DATA:
            try:
                received = await stream.receive_some(_RECEIVE_SIZE)
            except trio.BrokenResourceError:
                received = b""
            closed = not received
            connection.receive_data(bytes(received))
        elif isinstance(event, h11.Response):
            response = Response(
                event.status_code,
                bytes(event.reason).decode("latin-1"),
                Headers(
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in event.headers.raw_items()
                ),
                b"",
                event.http_version.decode(),
            )
        elif isinstance(event, h11.Data):
            assert response is not None
            response.body += bytes(event.data)
        elif isinstance(event, h11.InformationalResponse):
            continue
        elif isinstance(event, h11.EndOfMessage):
            assert response is not None
            return response
        else:
            raise IncompleteResponse(response)
