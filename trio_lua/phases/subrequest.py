"""Subrequests: requests that another request makes, run by the same engine inside the parent's task.

A subrequest takes the way of any request from the server's own steps on, but for the access phase, and its response
goes to a sink (:mod:`trio_lua.request.sink`). Nothing of it outlives the call that runs it: cancelling the parent
cancels it, and the parent's handler waits for it.

Several at once begin in their order, each in the parent's stack up to its first wait, as nginx posts them;
only those that wait become tasks. So the usual subrequest, which answers from memory, costs no task.

For handlers of other modules (``echo_location``, ``auth_request``)::

    sub = engine.subrequests.open(request, b"/path", b"a=b")            # into the parent's response
    await engine.subrequests.run(sub)

    async with request.subrequest(b"/path") as sub:                     # kept
        sub.response_status, sub.body

In Lua the same are ``rt.open_subrequest`` and ``rt.run_subrequests``.

Slots of the parent's response are made by :meth:`Subrequests.open`, so the order of those calls is the order of
the output, however the subrequests overlap; what the parent writes after the call follows it. The head of
the parent's response is sent by :meth:`Subrequests.open`, too.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import trio

from trio_lua.api.runtime import Runtime
from trio_lua.lua.driver import detach, resume_detached
from trio_lua.request.context import ClientConnection
from trio_lua.request.sink import Capture, Ordered, Pipe, Sink
from trio_lua.request.state import Request

if TYPE_CHECKING:
    from trio_lua.phases.engine import Engine

__all__ = ["Subrequest", "SubrequestCycle", "Subrequests"]


class SubrequestCycle(Exception):
    """Subrequests are nested too deeply; error.log has the line."""


class Subrequest(Request):
    """A request that a request has made.

    Attributes:
        parent: What made it.
        captured: Whether its response is kept for the parent instead of being part of the parent's.
        sink: Where its response goes (:attr:`connection`).
        terminated: Whether it, or one below it, has ended the client's connection.
        ended: Set at its end; not there unless it was started beside its parent.
    """

    __slots__ = ("captured", "ended", "parent", "sink", "terminated")

    ended: trio.Event

    def __init__(
        self, id: int, lua: Runtime, parent: Request, sink: Sink, *, captured: bool, length: int
    ) -> None:
        super().__init__(id, lua, sink, parent.host, length)
        self.parent = parent
        self.captured = captured
        self.terminated = False
        self.sink = sink
        self.server = parent.server
        self.plan = parent.plan
        sink.request = self

    @property
    def response_status(self) -> int:
        """The status of its response; 0 when there is none."""
        return self.lua.get(self.id, b"status")  # type: ignore[no-any-return]

    @property
    def body(self) -> bytes:
        """The body of a captured response."""
        assert isinstance(self.sink, Capture)
        return self.sink.data


class Subrequests:
    """Makes and runs subrequests.

    Args:
        engine: Runs requests.
        runtime: The VM.
    """

    def __init__(self, engine: Engine, runtime: Runtime) -> None:
        self._engine = engine
        self._lua = runtime
        self._open = runtime.vm.export("open_subrequest")
        self._frame_piece = runtime.vm.export("frame_piece")
        self._fail = runtime.vm.export("fail_subrequest")
        #: How many are open: they are among the VM's connections without being clients.
        self.count = 0

    # ------------------------------------------------------------------ making

    def open(
        self,
        parent: Request,
        uri: bytes,
        args: bytes | None = None,
        *,
        method: bytes = b"GET",
        body: bytes | None = None,
        forward_body: bool = False,
        variables: str = "share",
        capture: bool = False,
        sink: Sink | None = None,
    ) -> Subrequest:
        """Make a subrequest; :meth:`run` or :meth:`run_all` must follow, or :meth:`close`.

        Args:
            parent: The request that makes it; its handler is running.
            uri: The decoded path.
            args: The query string.
            method: The method.
            body: Its body; None for none, or for the parent's.
            forward_body: Whether it inherits the parent's body, which must have been read.
            variables: ``"share"`` those of the parent (as nginx's own subrequests do), ``"copy"`` them, or ``"new"``.
            capture: Keep the response in :attr:`Subrequest.body`. If not, it becomes part of the
                parent's response at this place; nginx's pages and ``error_page`` then apply to it.
            sink: Another sink for the response.

        Raises:
            SubrequestCycle: Nested too deeply.
        """
        number = self._open(parent.id, uri, args, method, body, forward_body, variables.encode())
        if number is None:
            raise SubrequestCycle
        client = _client(parent)
        captured = capture or sink is not None
        if captured:
            self._lua.put(number, b"captured", True)
            return self._adopt(parent, number, sink or Capture(client), captured=True)
        # the head, and what was printed before the slot
        parent.connection.write(self._lua.send(parent.id, b"", False))
        return self._adopt(parent, number, self._ordered(parent).slot(), captured=False)

    def _adopt(self, parent: Request, number: int, sink: Sink, *, captured: bool) -> Subrequest:
        lua = self._lua
        length = lua.get(number, b"clen")
        sub = Subrequest(number, lua, parent, sink, captured=captured, length=length)
        lua.connections[-number] = sink
        self.count += 1
        return sub

    def _ordered(self, parent: Request) -> Ordered:
        """The place of the parent's connection, in which slots can be made."""
        behind = parent.connection
        if isinstance(behind, Ordered):
            return behind
        key = -parent.id if isinstance(parent, Subrequest) else behind.id
        lua = self._lua

        def frame(data: bytes) -> bytes:
            return self._frame_piece(parent.id, data)  # type: ignore[no-any-return]

        def emptied() -> None:
            lua.connections[key] = parent.connection = behind

        ordered = Ordered(behind, frame, emptied)
        ordered.request = parent
        lua.connections[key] = parent.connection = ordered
        return ordered

    def close(self, sub: Subrequest) -> None:
        """Forget a subrequest, whether it has run or not; its status and headers go with it."""
        if self._lua.connections.pop(-sub.id, None) is not None:
            self.count -= 1
            sub.sink.finish()
            self._engine.release(sub)

    def abandon(self, parent: Request) -> None:
        """A request ends: close what has a place in its response and was not run."""
        connection = parent.connection
        if isinstance(connection, Ordered):
            for slot in connection.slots():
                self.close(slot.request)

    # ----------------------------------------------------------------- running

    async def run(self, sub: Subrequest) -> None:
        """Run a subrequest to its end and close it."""
        try:
            await self.run_all([sub])
        finally:
            self.close(sub)

    @contextlib.asynccontextmanager
    async def captured(
        self,
        parent: Request,
        uri: bytes,
        args: bytes | None = None,
        *,
        method: bytes = b"GET",
        body: bytes | None = None,
    ) -> AsyncIterator[Subrequest]:
        """Run a captured subrequest to its end, and close it after the block.

        Raises:
            SubrequestCycle: Nested too deeply.
        """
        sub = self.open(parent, uri, args, method=method, body=body, capture=True)
        try:
            await self.run_all([sub])
            yield sub
        finally:
            self.close(sub)

    async def run_all(self, subs: Sequence[Subrequest]) -> None:
        """Run several to their ends; each must be closed afterwards."""
        waiting = []
        for sub in subs:
            coroutine = self._serve(sub)
            try:
                coroutine.send(None)
            except StopIteration:
                continue
            waiting.append((sub, coroutine))
        terminated = [sub for sub in subs if sub.terminated]
        if waiting or terminated:
            await detach(subs[0].parent)
        if terminated:
            self.terminate(terminated[0])
        if len(waiting) == 1:
            await self._task(*waiting[0])
        elif waiting:
            async with trio.open_nursery() as nursery:
                for sub, coroutine in waiting:
                    nursery.start_soon(self._task, sub, coroutine)
        if any(sub.terminated for sub in subs):
            # the request is cancelled, so nothing of it goes on from here
            await trio.lowlevel.checkpoint()

    async def _task(self, sub: Subrequest, coroutine: Any) -> None:
        with trio.CancelScope() as sub.cancel_scope:
            await resume_detached(coroutine)

    async def _serve(self, sub: Subrequest) -> None:
        try:
            await self._engine.serve_subrequest(sub)
            if isinstance(sub.sink, Capture) and sub.sink.aborted:
                # a filter failed, which in nginx is an error of the connection
                self.terminate(sub)
        except Exception:
            sub.log(2, b"internal error: " + traceback.format_exc().encode())
            sub.connection.abort()
        finally:
            sub.sink.finish()

    async def capture_all(self, parent: Request, ids: tuple[int, ...]) -> tuple[bytes, ...]:
        """The operation of ``ngx.location.capture``: Lua has made the requests already."""
        client = _client(parent)
        subs = [self._adopt(parent, id, Capture(client), captured=True) for id in ids]
        try:
            await self.run_all(subs)
            return tuple(sub.body for sub in subs)
        finally:
            for sub in subs:
                self.close(sub)

    # ---------------------------------------------------------------- streaming

    async def stream_open(self, parent: Request, id: int) -> None:
        """Start a subrequest in the parent's nursery; returns when its head is known."""
        pipe = Pipe(_client(parent))
        sub = self._adopt(parent, id, pipe, captured=True)
        sub.inline = False
        assert parent.nursery is not None
        parent.nursery.start_soon(self._stream, sub, pipe)
        await pipe.begun.wait()

    async def _stream(self, sub: Subrequest, pipe: Pipe) -> None:
        with trio.CancelScope() as sub.cancel_scope:
            try:
                await self._serve(sub)
                # until all is read
                await pipe.drain()
            finally:
                self.close(sub)

    async def stream_read(self, id: int) -> bytes:
        """What a stream has written since the last call; b"" at its end."""
        pipe = self._lua.connections.get(-id)
        if pipe is None:
            return b""
        assert isinstance(pipe, Pipe)
        return await pipe.receive()

    def stream_close(self, id: int) -> None:
        """End a stream."""
        pipe = self._lua.connections.get(-id)
        if pipe is not None:
            pipe.request.cancel_scope.cancel()

    # ----------------------------------------------------- for Lua's own directives

    def place(self, parent: Request, id: int) -> None:
        """Give a subrequest that Lua has made a place in the parent's response, whose head is sent."""
        self._adopt(parent, id, self._ordered(parent).slot(), captured=False)

    async def run_placed(self, ids: tuple[int, ...]) -> None:
        """Run subrequests that have a place to their ends."""
        connections = self._lua.connections
        subs = [connections[-id].request for id in ids]
        try:
            await self.run_all(subs)
        finally:
            for sub in subs:
                self.close(sub)

    def start_placed(self, parent: Request, ids: tuple[int, ...]) -> None:
        """Start subrequests that have a place; those that wait go on in the parent's nursery."""
        assert parent.nursery is not None
        for id in ids:
            sub = self._lua.connections[-id].request
            coroutine = self._serve(sub)
            try:
                coroutine.send(None)
            except StopIteration:
                self.close(sub)
                continue
            sub.ended = trio.Event()
            parent.nursery.start_soon(self._rest, sub, coroutine)

    async def _rest(self, sub: Subrequest, coroutine: Any) -> None:
        try:
            await self._task(sub, coroutine)
        finally:
            self.close(sub)
            sub.ended.set()

    async def wait_placed(self, ids: tuple[int, ...]) -> None:
        """Wait until subrequests that were started have ended."""
        for id in ids:
            sink = self._lua.connections.get(-id)
            if sink is not None:
                await sink.request.ended.wait()

    # ----------------------------------------------------------------- failing

    def fail(self, sub: Subrequest, code: int) -> None:
        """A captured subrequest ends with a status only; what its handler had produced is kept."""
        data = self._fail(sub.id, code)
        if data:
            sub.connection.write(data)

    def terminate(self, sub: Subrequest) -> None:
        """A subrequest ends the client's connection, and with it the request it is part of."""
        main: Request = sub
        while isinstance(main, Subrequest):
            main.terminated = True
            main = main.parent
        main.connection.abort()
        # None while it runs inline: then whoever runs the subrequest goes on with this
        if main.cancel_scope is not None:
            main.cancel_scope.cancel()


def _client(request: Request) -> ClientConnection:
    connection = request.connection
    return connection.client if isinstance(connection, Sink) else connection
