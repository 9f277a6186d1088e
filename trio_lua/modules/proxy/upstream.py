"""One request to an upstream server, and its response.

The request is sent while the response is awaited, because a server may answer before it has read all. The response is
parsed by h11 and goes through the filters as it comes; a client that reads slowly makes the upstream wait, so nothing
is buffered beyond a piece.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, BinaryIO

import h11
import trio

from trio_lua.net.errors import CRIT, ERR, SocketError
from trio_lua.net.tcp import TcpSocket, parse_destination
from trio_lua.request.state import Request

__all__ = ["Transfer"]

_INFO = 7
#: Bytes that are received, or read from a file, at once.
_PIECE = 65536
_BAD_GATEWAY, _TIMED_OUT = 502, 504

_CONNECTING = b" while connecting to upstream"
_SENDING = b" while sending request to upstream"
_READING_HEAD = b" while reading response header from upstream"
_READING = b" while reading upstream"
_ANSWERING = b" while sending to client"

_PREMATURE = b"upstream prematurely closed connection"


class Failed(Exception):
    """There is no response, or not all of it.

    Attributes:
        status: What the client gets instead.
        message: For the log.
        level: nginx's number for its level.
    """

    def __init__(self, status: int, message: bytes, level: int = ERR) -> None:
        self.status, self.message, self.level = status, message, level
        super().__init__(message)


def _failed(error: SocketError) -> Failed:
    if error.text == "timeout":
        return Failed(_TIMED_OUT, b"upstream timed out (110: Connection timed out)")
    message = error.log or error.text
    return Failed(_BAD_GATEWAY, message.encode("utf-8", "surrogateescape"), error.level)


class Transfer:
    """Sends a request to an upstream server and hands its response on.

    Args:
        request: The client's request.
        host: Name, address or ``unix:`` path of the server.
        port: Its port.
        url: The path and query string asked for, for log lines.
        begin: Called with the head of the response before it is sent; a status that it returns takes
            the response's place.
    """

    def __init__(
        self,
        request: Request,
        host: str,
        port: int,
        url: bytes,
        begin: Callable[[Transfer, h11.Response], int | None],
    ) -> None:
        self._request = request
        self._host, self._port, self._url = host, port, url
        self._begin = begin
        export = request.lua.vm.export
        self._export_note, self._export_stage = export("proxy_note"), export("proxy_stage")
        sockets = request.lua.sockets
        self._link = TcpSocket(sockets.network, sockets.watcher, None)
        self._sending = self._begun = False
        self._failure: Failed | None = None
        self._waiting = trio.CancelScope()
        self._started = 0.0
        self._length = 0

    def note(self, name: bytes, value: bytes) -> None:
        """Make something known to variables and log lines."""
        self._export_note(self._request.id, name, value)

    def _stage(self, text: bytes) -> None:
        self._export_stage(self._request.id, text)

    def _setting(self, name: str, default: float = 60) -> float:
        value = self._request.setting(name)
        return default if value is None else value

    def _elapsed(self) -> bytes:
        return b"%.3f" % max(self._request.now() - self._started, 0)

    # -------------------------------------------------------------------- run

    async def run(self, method: bytes, data: bytes, file: str | None) -> int | None:
        """Do it; a status when there is nothing to send to the client.

        Args:
            method: Of the request.
            data: Its head and body.
            file: Where the rest of its body lies.
        """
        self._started = self._request.now()
        try:
            async with self._watched():
                return await self._try(method, data, file)
        finally:
            self._link.close()
            self.note(b"upstream_response_time", self._elapsed())
            self.note(b"upstream_response_length", b"%d" % self._length)
            self._stage(_ANSWERING)

    async def _try(self, method: bytes, data: bytes, file: str | None) -> int | None:
        # nothing may be raised out of this: watching may be a nursery, which would wrap it
        try:
            await self._connect()
            return await self._converse(method, data, file)
        except Failed as failed:
            self.note(b"upstream_status", b"%d" % failed.status)
            self._request.log(failed.level, failed.message)
            if self._begun:
                # the connection is going to be dropped: let the client have what there is
                await self._request.connection.drain()
            return failed.status

    def _watched(self) -> AbstractAsyncContextManager[None]:
        """End with the client's connection, unless that is to be ignored."""
        request = self._request
        if self._setting("proxy_ignore_client_abort", False):
            return nullcontext()

        def gone() -> None:
            request.log(
                _INFO,
                b"client prematurely closed connection, so upstream connection is closed too",
            )
            request.lua.client_gone(request.id)
            request.connection.abort()
            assert request.cancel_scope is not None
            request.cancel_scope.cancel()

        return request.connection.watched(gone)

    async def _connect(self) -> None:
        request, link = self._request, self._link
        settings = request.plan.settings
        self._stage(_CONNECTING)
        try:
            link.destination = where = parse_destination(self._host, self._port)
            self._name(where.text)
            if not link.connect_nowait():
                await link.connect(
                    self._setting("proxy_connect_timeout"),
                    request.lua.sockets.resolver_of(settings),
                    settings.resolver_timeout,
                )
        except SocketError as error:
            raise _failed(error) from None
        if where.address is None:
            assert link.sock is not None
            self._name(_peer(link.sock) or where.text)
        self.note(b"upstream_connect_time", self._elapsed())

    def _name(self, address: str) -> None:
        name = address.encode("utf-8", "surrogateescape")
        self.note(b"upstream_addr", name)
        between = b":" if name.startswith(b"unix:") else b""
        self.note(b"url", b"http://" + name + between + self._url)

    async def _converse(self, method: bytes, data: bytes, file: str | None) -> int | None:
        self._stage(_SENDING)
        try:
            pending = not self._link.send_nowait(data)
        except SocketError as error:
            raise _failed(error) from None
        if not pending and file is None:
            return await self._respond(method)
        failure: Failed | None = None
        status: int | None = None
        async with trio.open_nursery() as nursery:
            self._sending = True
            nursery.start_soon(self._send, pending, file)
            try:
                status = await self._respond(method)
            except Failed as failed:
                # raised outside: a nursery would wrap it
                failure = failed
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return status

    # ------------------------------------------------------------------- send

    async def _send(self, pending: bool, file: str | None) -> None:
        link, seconds = self._link, self._setting("proxy_send_timeout")
        try:
            if pending:
                await link.send(seconds)
            if file is not None:
                with await trio.to_thread.run_sync(open, file, "rb") as source:
                    await self._send_file(source, seconds)
        except SocketError as error:
            # a server that has closed may have answered before
            if error.text == "timeout":
                self._failure = _failed(error)
        except OSError as error:
            message = f'open() "{file}" failed ({error.errno}: {error.strerror})'
            self._failure = Failed(500, message.encode("utf-8", "surrogateescape"), CRIT)
        self._sending = False
        if not self._begun:
            self._stage(_READING_HEAD)
        self._waiting.cancel()

    async def _send_file(self, source: BinaryIO, seconds: float) -> None:
        while True:
            piece = await trio.to_thread.run_sync(source.read, _PIECE)
            if not piece:
                return
            if not self._link.send_nowait(piece):
                await self._link.send(seconds)

    # ---------------------------------------------------------------- receive

    async def _receive(self) -> bytes:
        seconds = self._setting("proxy_read_timeout")
        while True:
            with trio.CancelScope() as self._waiting:
                try:
                    return await self._link.receive(_PIECE, math.inf if self._sending else seconds)
                except SocketError as error:
                    raise _failed(error) from None
            # the request has been sent, so the time for the answer begins
            if self._failure is not None:
                raise self._failure

    async def _respond(self, method: bytes) -> int | None:
        request = self._request
        limit = int(self._setting("proxy_buffer_size", 4096))
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=limit)
        # what the parser has to know of the request: how to tell where the response ends
        parser.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"-")]))
        parser.send(h11.EndOfMessage())
        if not self._sending:
            self._stage(_READING_HEAD)
        ended = shown = False
        while True:
            try:
                event: Any = parser.next_event()
            except h11.RemoteProtocolError as error:
                raise _malformed(error, self._begun, ended) from None
            if event is h11.NEED_DATA:
                if self._begun and not shown:
                    shown = True
                    await request.send(b"")
                data = await self._receive()
                ended = not data
                if ended and not self._begun:
                    self._stage(_READING_HEAD)
                    raise Failed(_BAD_GATEWAY, _PREMATURE)
                parser.receive_data(data)
            elif isinstance(event, h11.Response):
                _check_framing(event)
                self._begun = True
                self.note(b"upstream_status", b"%d" % event.status_code)
                self.note(b"upstream_header_time", self._elapsed())
                status = self._begin(self, event)
                if status is not None:
                    return status
                # nginx's words for the two ways of doing it
                self._stage(_READING if self._setting("proxy_buffering", True) else _ANSWERING)
            elif isinstance(event, h11.Data):
                shown = True
                self._length += len(event.data)
                await request.send(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                if not shown:
                    await request.send(b"")
                return None


def _check_framing(response: h11.Response) -> None:
    names = {name for name, _ in response.headers}
    if b"content-length" in names and b"transfer-encoding" in names:
        # one of the two lengths would be handed on, and the other believed
        message = b'upstream sent "Content-Length" and "Transfer-Encoding" headers at the same time'
        raise Failed(_BAD_GATEWAY, message)


def _malformed(error: h11.RemoteProtocolError, begun: bool, ended: bool) -> Failed:
    if ended:
        message = _PREMATURE
    elif begun:
        message = b"upstream sent invalid chunked response"
    elif error.error_status_hint == 431:
        message = b"upstream sent too big header"
    else:
        message = b"upstream sent invalid header"
    return Failed(_BAD_GATEWAY, message)


def _peer(sock: socket.socket) -> str | None:
    """The address a name has led to."""
    name = sock.getpeername()
    if not isinstance(name, tuple):
        return None
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
