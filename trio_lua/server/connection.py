"""A client's connection as a state machine: bytes in; requests and bytes out.

It knows no scheduler: :mod:`trio_lua.server.parked` and :mod:`trio_lua.server.task` feed it with what they receive
and run the requests it yields. Only what a request itself waits for (its body, an unsent response) is a wait here,
and those waits go through the request's own task.

A head goes to the recogniser first; whatever that does not know goes to h11's side with the same bytes, and
that side keeps the request to the end of its body.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from trio_lua.api.runtime import Runtime
from trio_lua.errors import ClientGone, ProtocolError
from trio_lua.http.events import Data, End, Head
from trio_lua.http.h11_protocol import H11Request
from trio_lua.http.uri import normalize, split_target
from trio_lua.lua.driver import Outcome, detach
from trio_lua.net.poller import CLOSE, READ
from trio_lua.net.tls_facts import TlsFacts
from trio_lua.phases.plan import ServerPlan
from trio_lua.phases.special import server_name
from trio_lua.request.state import Request
from trio_lua.server.listener import Endpoint, RefusedError
from trio_lua.server.pace import Paced
from trio_lua.server.transport import Broken, Transport

__all__ = ["ANSWERED", "SERVED", "Connection", "Served"]


class Served:
    """A request came, was answered, and left nothing to do."""


SERVED = Served()

#: Stands for the number of a request that Lua has answered and released.
ANSWERED = 0

#: Stands for a request that runs in Lua and that nobody here has asked for yet.
_UNNAMED = Served()

_CONCLUDED, _READ = int(Outcome.CONCLUDED), int(Outcome.READ)

#: Bytes given to the system in one call when a peer is slow.
_SEND_SIZE = 262144

#: Bytes kept of what a client sends while its request is served.
_AHEAD = 65536

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection:
    """One connection.

    Attributes:
        id: Its number in error.log and ``$connection``.
        requests: How many requests it has carried.
        keepalive_timeout: How long it may rest after the last request, in seconds.
        deadline: When the sweeper may close it while it is idle or a head is incomplete
            (the worker's clock).
        closed: Nothing more can be received or sent.
        raw: Lua code speaks to the client without HTTP.
        reading_head: A part of a head has been received.
    """

    __slots__ = (
        "_arrived",
        "_backlog",
        "_body_left",
        "_continue",
        "_continuing",
        "_events",
        "_inbuf",
        "_reader",
        "_receiving",
        "_request",
        "_send_timeout",
        "_sending",
        "_waiting",
        "closed",
        "deadline",
        "endpoint",
        "fd",
        "id",
        "keepalive_timeout",
        "raw",
        "reading_head",
        "requests",
        "runtime",
        "transport",
    )

    def __init__(self, id: int, runtime: Runtime, endpoint: Endpoint, transport: Transport) -> None:
        self.id = id
        self.runtime = runtime
        self.endpoint = endpoint
        self.transport = transport
        self.requests = 0
        self._request: Any = None
        self.keepalive_timeout = 0.0
        self.deadline = math.inf
        self.closed = False
        self.reading_head = False
        self.fd = -1
        self._inbuf = b""
        self._backlog: list[bytes | memoryview] | None = None
        self._waiting = 0
        self._reader: H11Request | None = None
        self._events: list[Any] | None = None
        self._body_left = 0
        self._continue = False
        self._continuing = False
        self._send_timeout = 60.0
        self._sending: trio.Event | None = None
        self._arrived: trio.Event | None = None
        self._receiving = False
        self.raw = False

    # ------------------------------------------------------------- receiving

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer."""
        self._inbuf = self._inbuf + data if self._inbuf else data

    @property
    def idle(self) -> bool:
        """Whether it waits between two requests, with nothing of the next one received."""
        return not self._inbuf and (self._reader is None or not self._reader.started)

    def context(self) -> bytes:
        """What a log line says at its end about a connection that has no request (nginx's words)."""
        client = b", client: " + self.addresses()[0]
        if self.idle or self._reader is None:
            return b" while waiting for request" + client + b", server: " + self.endpoint.address
        doing, line, host = self._reader.progress
        server = server_name(self.endpoint.default.server)
        text = b" while %b%b, server: %b" % (doing.encode(), client, server)
        if line:
            text += b', request: "%b"' % line
        if host:
            text += b', host: "%b"' % host.partition(b":")[2].strip()
        return text

    @property
    def pending(self) -> bool:
        """Whether received bytes wait to be looked at."""
        return bool(self._inbuf)

    @property
    def request(self) -> Any:
        """The request that is being served, or None."""
        request = self._request
        if request is _UNNAMED:
            number, host, location = self.runtime.current()
            request = self._request = self._begun(number, host, location)
        return request

    @request.setter
    def request(self, request: Request | None) -> None:
        self._request = request

    def end_request(self) -> Request | None:
        """Forget the request that was served and return it; None when it never had a name here."""
        request, self._request = self._request, None
        return None if request is _UNNAMED else request

    def next_request(self, now: float) -> Request | Served | None:
        """The next request, when its head is complete, or :data:`SERVED` when that is answered already.

        Args:
            now: Seconds since the epoch.

        Raises:
            ProtocolError: The client must be answered with its status, and the connection closed.
        """
        data = self._inbuf
        if not data:
            return None
        endpoint = self.endpoint
        if self._reader is not None or not endpoint.recognise:
            return self._read_head(data, now)
        runtime = self.runtime
        self._request = _UNNAMED
        self.requests += 1
        result = runtime.serve(data, self.id, now, endpoint.number, self.requests)
        if result.__class__ is not tuple:
            self._request = None
            self.requests -= 1
            return self._read_head(data, now)
        kind = result[0]
        if kind == _CONCLUDED:
            _, response, keepalive, head_length, location = result
            self._inbuf = data[head_length:] if len(data) > head_length else b""
            if response:
                self.write(response)
            if keepalive and not self._waiting:
                self.keepalive_timeout = endpoint.plans[location].settings.keepalive_timeout
                return SERVED
            request = self._begun(ANSWERED, b"", location)
            request.keepalive = keepalive
        elif kind == _READ:
            _, number, head_length, length, host, uri = result
            self._inbuf = data[head_length:] if len(data) > head_length else b""
            self._body_left = length
            request = self._request = Request(number, runtime, self, host, length)
            request.server = endpoint.server(host, request)
            if uri is None:
                uri = self._normalise(request, runtime.target(number), request.server)
            request.target_uri = uri
        else:
            _, number, head_length, host, location = result[:5]
            if not self.raw:
                self._inbuf = data[head_length:] if len(data) > head_length else b""
            request = self._request
            if request is _UNNAMED:
                request = self._begun(number, host, location)
            outcome = result[6:] if len(result) > 7 else result[6]
            request.started = (result[5] // 2, outcome)
        self._request = request
        return request

    def _begun(self, number: int, host: bytes, location: int) -> Request:
        """The Python side of a request whose handler began on the short way."""
        request = Request(number, self.runtime, self, host, 0)
        request.plan = self.endpoint.plans[location]
        request.server = request.plan.server
        return request

    def _read_head(self, data: bytes, now: float) -> Request | None:
        """A head that the recogniser did not know."""
        reader = self._reader
        if reader is None:
            reader = self._reader = H11Request(self.endpoint.limits)
        self._inbuf = b""
        events = reader.feed(data)
        if not events:
            return None
        head = events[0]
        assert type(head) is Head
        self._events = events[1:]
        length = -1 if head.chunked else head.content_length or 0
        number = self.runtime.begin(
            self.id,
            head.method,
            head.target,
            None,
            None,
            head.host,
            head.minor,
            head.keep_alive,
            head.raw,
            length,
            now,
        )
        request = Request(number, self.runtime, self, head.host, length)
        self.requests += 1
        self.request = request
        self._continue = head.expect_continue
        request.server = self.endpoint.server(head.host, request)
        if length == 0:
            self._end_of_events()
        request.target_uri = self._normalise(request, head.target, request.server)
        return request

    def _normalise(self, request: Request, target: bytes, server: ServerPlan) -> bytes:
        parts = split_target(target)
        uri = normalize(parts.path, server.server.merge_slashes)
        self.runtime.set_target(request.id, uri, parts.args, None)
        if parts.authority is not None:
            self.runtime.put(request.id, b"unparsed_uri", parts.unparsed)
        return uri

    def bad_request(self, now: float, error: ProtocolError) -> tuple[Request, str]:
        """A stand-in for a request that could not be read, to answer it with an error page.

        Args:
            now: Seconds since the epoch.
            error: What is wrong with it.

        Returns:
            The request, and what was being read, in the words of the log ("" for a body).
        """
        request, reader = self.request, self._reader
        doing = "reading client request line"
        if request is None:
            assert reader is not None
            raw = reader.request_line + b"\r\n" + reader.host_line + b"\r\n"
            minor = reader.minor if reader.minor < 0 else 1
            number = self.runtime.begin(
                self.id, b"GET", b"", b"", None, b"", minor, False, raw, 0, now
            )
            request = Request(number, self.runtime, self, b"", 0)
            request.server = self.endpoint.default
            self.request = request
            doing = reader.failed
        elif isinstance(error, RefusedError):
            doing = "reading client request headers"
        else:
            # nginx judges the target before it reads any header
            raw = self.runtime.get(request.id, b"raw").partition(b"\n")[0] + b"\n"
            self.runtime.put(request.id, b"raw", raw)
            self.runtime.put(request.id, b"head_len", len(raw))
        self.runtime.put(request.id, b"keepalive", False)
        self._inbuf = b""
        self._reader = None
        return request, doing

    # ------------------------------------------------------------------ body

    def body_whole(self) -> bytes | None:
        left = self._body_left
        if self._reader is None and left and len(self._inbuf) >= left:
            data, self._inbuf = self._inbuf[:left], self._inbuf[left:]
            self._body_left = 0
            return data
        return None

    def body_nowait(self) -> bytes | None:
        if self._reader is not None:
            return self._event_nowait()
        left = self._body_left
        if not left:
            return b""
        data = self._inbuf
        if not data:
            return None
        if len(data) > left:
            data, self._inbuf = data[:left], data[left:]
        else:
            self._inbuf = b""
        self._body_left = left - len(data)
        return data

    def _event_nowait(self) -> bytes | None:
        while True:
            events = self._events
            if not events:
                if self._reader is None:
                    return b""
                data, self._inbuf = self._inbuf, b""
                if not data:
                    return None
                self._events = self._reader.feed(data)
                continue
            event = events.pop(0)
            if type(event) is Data:
                return event.data
            assert type(event) is End
            events.insert(0, event)
            self._end_of_events()
            return b""

    def _end_of_events(self) -> None:
        """The request is read to its end: what was received behind it is the next one's."""
        events = self._events or []
        for event in events:
            if type(event) is End:
                self._inbuf = event.trailing + self._inbuf
        self._events = None
        self._reader = None
        self._body_left = 0

    @property
    def body_complete(self) -> bool:
        """Whether the body of the present request has been read to its end."""
        if self._reader is not None:
            return False
        return self._body_left == 0

    @property
    def settled(self) -> bool:
        """Whether nothing of the present request is left to read or to send."""
        return not self._waiting and self._reader is None and self._body_left == 0 and not self.raw

    async def body_some(self) -> bytes:
        request = self.request
        await detach(request)
        while True:
            data = self.body_nowait()
            if data is not None:
                return data
            timeout = request.plan.settings.client_body_timeout
            with trio.move_on_after(timeout) as scope:
                more = await self.receive_more()
            if scope.cancelled_caught:
                raise ProtocolError("client timed out", 408)
            if not more:
                self.closed = True
                raise ClientGone

    def continue_body(self) -> None:
        if self._continue:
            self._continue = False
            self._continuing = self.write(_CONTINUE) > 0

    async def receive_more(self) -> bool:
        self.continue_body()
        if self._continuing:
            self._continuing = False
            await self.drain()
        arrived = self._arrived
        if arrived is not None:
            # the watcher receives; a stream has one reader at a time
            await arrived.wait()
            return bool(self._inbuf)
        self._receiving = True
        try:
            data = await self.transport.receive()
        except Broken:
            return False
        finally:
            self._receiving = False
        if data:
            self.receive(data)
        return bool(data)

    # ------------------------------------------------------------ client abort

    @contextlib.asynccontextmanager
    async def watched(self, gone: Callable[[], None]) -> AsyncIterator[None]:
        def look(_events: int) -> None:
            watcher.unwatch(fd)
            # who receives sees the end of the stream, and says so to its caller
            if not self._receiving and not self.transport.peek():
                gone()

        fd = self.transport.fileno()
        if fd >= 0:
            watcher = self.runtime.sockets.watcher
            watcher.watch(fd, look, CLOSE or READ)
            try:
                yield
            finally:
                watcher.unwatch(fd)
            return
        self._arrived = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive_ahead, gone)
            try:
                yield
            finally:
                self._arrived = None
                nursery.cancel_scope.cancel()

    async def _receive_ahead(self, gone: Callable[[], None]) -> None:
        """Receive from a stream, which tells in no other way that its peer has left."""
        while len(self._inbuf) < _AHEAD:
            try:
                data = await self.transport.receive()
            except Broken:
                data = b""
            self.receive(data)
            arrived = self._arrived
            assert arrived is not None
            awaited = arrived.statistics().tasks_waiting
            self._arrived = trio.Event() if data else None
            arrived.set()
            if not data:
                if not awaited:
                    gone()
                return
        self._arrived = None

    # ------------------------------------------------------------- raw sockets

    def take_raw(self) -> bool:
        if self._waiting:
            return False
        if self._request is _UNNAMED:
            # the handler runs while its head is still in the buffer
            self._inbuf = self._inbuf[self.runtime.get(self.request.id, b"head_len") :]
        self.raw = True
        if self._reader is not None:
            # what has come behind the head, as it came
            self._inbuf = self._reader.rest + self._inbuf
            self._reader = self._events = None
        self._body_left = 0
        self._continue = False
        return True

    def raw_nowait(self) -> bytes | None:
        data, self._inbuf = self._inbuf, b""
        return data or self.transport.receive_nowait()

    def drop_output(self) -> None:
        self._backlog = None
        self._waiting = 0
        self.transport.forget_unsent()

    async def discard_body(self) -> bool:
        """Read and drop what is left of the body; False when the connection cannot go on."""
        self._continue = False
        limit = 16
        while not self.body_complete:
            data = self.body_nowait()
            if data is None:
                if limit == 0:
                    return False
                limit -= 1
                try:
                    data = await self.body_some()
                except ProtocolError:
                    return False
            if not data:
                break
        return True

    # --------------------------------------------------------------- sending

    def write(self, data: bytes) -> int:
        if self.closed:
            return -1
        backlog = self._backlog
        if backlog:
            if data:
                backlog.append(data)
                self._waiting += len(data)
            return self._waiting
        if not data:
            return 0
        try:
            sent = self.transport.send_nowait(data)
        except Broken:
            self.abort()
            return -1
        if sent == len(data):
            return 0
        self._backlog = [data[sent:]]
        self._waiting = len(data) - sent
        return self._waiting

    async def drain(self, low_water: int = 0) -> bool:
        if self.closed:
            return False
        if self._waiting <= low_water:
            return True
        request = self.request
        if request is not None:
            await detach(request)
            if request.plan is not None:
                self._send_timeout = request.plan.settings.send_timeout
        while self._waiting > low_water:
            if self._sending is not None:
                # another thread of the request does it; a stream has one sender at a time
                await self._sending.wait()
                if self.closed:
                    return False
                continue
            backlog = self._backlog
            assert backlog is not None
            if len(backlog) > 1:
                # in place: what is written while this waits is appended to the same list
                backlog[:] = [memoryview(b"".join(backlog))]
            data = memoryview(backlog[0])
            over = self._sending = trio.Event()
            try:
                with trio.move_on_after(self._send_timeout) as scope:
                    sent = await self.transport.send(data[:_SEND_SIZE])
            except Broken:
                self.abort()
                return False
            finally:
                self._sending = None
                over.set()
            if scope.cancelled_caught:
                self.abort()
            if self.closed:
                return False
            self._waiting -= sent
            if sent < len(data):
                backlog[0] = data[sent:]
            else:
                del backlog[0]
        if not self._waiting:
            self._backlog = None
        return not self.closed

    def pace(self, rate: int, after: int) -> None:
        transport = self.transport
        if type(transport) is Paced:
            if not transport.ended:
                transport.limit(rate, after)
                return
            self.transport = transport.inner
        if rate:
            self.transport = Paced(self, rate, after)

    def abort(self) -> None:
        """Close without sending what waits."""
        self._backlog = None
        self._waiting = 0
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self.closed = True
        self.transport.close()

    # --------------------------------------------------------------- facts

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        return self.transport.addresses()

    @property
    def listen(self) -> bytes:
        return self.endpoint.address

    @property
    def tls(self) -> bool:
        return self.transport.tls

    @property
    def facts(self) -> TlsFacts | None:
        return self.transport.facts
