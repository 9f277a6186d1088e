"""A worker: one VM, the connections it serves, and the two nurseries that own everything.

The outer nursery is the worker's (the clock, timers, the sweeper), the inner one the connections'. Stopping gracefully
closes what is idle, fires the timers that wait, and waits for the requests and then the timers; being cancelled ends
both nurseries at once.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from trio_lua.about import NGINX_VERSION
from trio_lua.api.guard import Guard
from trio_lua.api.place import Place
from trio_lua.api.runtime import Runtime
from trio_lua.config.model import Config, Listen, LuaCode, Source, Template
from trio_lua.config.variables import Variables
from trio_lua.debug import threads
from trio_lua.errors import LuaError, ProtocolError
from trio_lua.ipc.endpoint import Endpoint as MessageEndpoint
from trio_lua.log.capture import LogBuffer
from trio_lua.log.error_log import ALERT, ERROR, Log
from trio_lua.log.files import LogFiles
from trio_lua.lua.driver import detach
from trio_lua.net.network import Network
from trio_lua.net.poller import supported
from trio_lua.net.tls_server import check_certificates
from trio_lua.phases.access_log import AccessLogs
from trio_lua.phases.engine import Engine
from trio_lua.phases.plan import Plans
from trio_lua.request.phase import Phase
from trio_lua.request.state import Request
from trio_lua.server.alerts import AlertHandlers
from trio_lua.server.clientless import Clientless
from trio_lua.server.connection import ANSWERED, Connection
from trio_lua.server.endpoints import Endpoints
from trio_lua.server.listener import Endpoint
from trio_lua.server.logs import ErrorLogs
from trio_lua.server.observe import Audience, ObservedEngine, Observer
from trio_lua.server.parked import ACCEPT_BATCH, Balance, ParkedDriver
from trio_lua.server.task import serve_stream
from trio_lua.server.timers import Timers
from trio_lua.server.tls import TlsAddress
from trio_lua.server.transport import Broken, Transport
from trio_lua.shm.zone import Zone

__all__ = ["Worker", "run_worker"]

#: Seconds for which connections that were just used stay open when a worker stops gracefully. A client that sends one
#: request after the other then gets a response that says it is the last, and not a closed connection.
_GRACE = 0.5

#: The sweeper's step, in seconds.
_SWEEP = 0.5


class Worker:
    """One worker of a configuration.

    Args:
        config: What to serve.
        error_log: The main error log.
        product: What ``Server`` names.
        recognise: Whether plain heads take the short way past h11.
        parked: Whether plain sockets are served without a task each.
        epoch: What the run's clock counts from, in seconds since 1970; by default so that it agrees with the
            machine's. A worker may also be made, and :meth:`init` called, where no run has begun yet.
        zones: The memory of the shared dictionaries; by default the worker makes its own.
        network: Where the sockets of Lua code lead; by default to the system's network.
        guarded: Whether the bounds on processor time and memory count, which need a thread.
        observers: Who is told what happens.
        files: Opens the log files of the configuration.
        ipc: Leads to the other workers, and is closed at the end; by default there are none. May also be set, as an
            attribute, before :meth:`run`.

    Attributes:
        now: Seconds since the epoch, of the present turn.
        time: The same on the run's clock.
        place: Which process this is.
        balance: How connections are shared with other workers; to be set before :meth:`run`.
        quitting: Whether a graceful stop has begun.
        closed: Whether it has ended, and its VM with it.
        addresses: What the listening sockets are bound to.
        schemes: "http" or "https", for each of them.
        endpoints: The servers behind each address.

    Raises:
        ConfigError: A name, location or pattern of the configuration is not valid.
        LuaError: ``init_by_lua*`` failed.
    """

    def __init__(
        self,
        config: Config,
        *,
        error_log: Log,
        product: str = f"nginx/{NGINX_VERSION}",
        recognise: bool = True,
        parked: bool = True,
        epoch: float | None = None,
        zones: Mapping[str, Zone] | None = None,
        network: Network | None = None,
        guarded: bool = True,
        ipc: MessageEndpoint | None = None,
        observers: Sequence[Observer] = (),
        files: LogFiles | None = None,
    ) -> None:
        self.config = config
        self._audience = Audience(observers, self.log) if observers else None
        self.ipc = ipc
        self.balance: Balance | None = None
        http = config.http
        captured = (
            None
            if http.lua_capture_error_log is None
            else LogBuffer(http.lua_capture_error_log, lambda: math.floor(self.now * 1000) / 1000)
        )
        self._use_parked = parked and supported()
        self._epoch = epoch
        self._offset = 0.0
        self._clock_runs = False
        self._initialised = False
        self.time = 0.0
        self.now = time.time()
        with contextlib.suppress(RuntimeError):  # in a master there is no run
            self._start_clock()
        self.place = Place()
        self.quitting = False
        self.closed = False
        self.addresses: list[Any] = []
        self.schemes: list[str] = []
        self.streams: dict[Connection, trio.CancelScope] = {}
        self._last_connection = 0
        self._parked: ParkedDriver | None = None
        self._nursery: trio.Nursery | None = None
        self._timers: Timers | None = None
        self._outer: trio.Nursery | None = None
        self._accepting: list[trio.CancelScope] = []
        self._drained = trio.Event()
        self._arrival = trio.Event()
        self._files = LogFiles() if files is None else files
        logs = ErrorLogs(
            config,
            error_log,
            files=self._files,
            clock=self.clock,
            captured=captured,
            audience=self._audience,
        )
        self._error_log = logs.main
        self.runtime = Runtime(
            config,
            clock=self.clock,
            sinks=logs.sinks,
            product=product,
            document_root=lambda request: self.engine.document_root(request),
            request_filename=lambda request: self.engine.request_filename(request),
            invalid_referer=lambda request: self.engine.invalid_referer(request),
            graceful_exit=self.quit,
            subrequests=lambda: self.engine.subrequests,
            captured=captured,
            zones=zones,
            network=network,
        )
        self._guarded = guarded
        self._guard = Guard(self.runtime.vm, http.lua_memory_limit)
        self.connections = self.runtime.connections
        plans = Plans(
            config,
            self.runtime,
            sink_of=logs.sink_of,
            access_log=True,
            chains=self._audience is None,
        )
        access_logs = AccessLogs(
            self.runtime,
            http.log_formats,
            prefix=config.prefix,
            files=self._files,
            compile_template=_template,
        )
        for server in plans.servers.values():
            for plan in server.plans.values():
                access_logs.open(plan.access_logs)
        if self._audience is None:
            self.engine = Engine(self.runtime, access_logs)
        else:
            self.engine = ObservedEngine(self.runtime, access_logs, self._audience)
        self.plans = plans
        self.endpoints = Endpoints(
            config,
            plans,
            self.runtime,
            recognise=recognise,
            tls=lambda table: TlsAddress(self, table),
        )
        check_certificates(config)

    # --------------------------------------------------------------- the clock

    def _start_clock(self) -> None:
        now = trio.current_time()
        if not self._clock_runs:
            self._offset = time.time() - now if self._epoch is None else self._epoch
            self._clock_runs = True
        self.tick()

    def clock(self) -> float:
        """Seconds since the epoch: on the run's clock, and on the machine's before the run."""
        if not self._clock_runs:
            return time.time()
        return trio.current_time() + self._offset

    def tick(self) -> None:
        """A new turn of the event loop: read the clock."""
        self.time = trio.current_time()
        self.now = self.time + self._offset

    # ----------------------------------------------------------------- logging

    def log(self, level: int, message: bytes, conn: Connection | None = None) -> None:
        """Write an error.log line that is not about a request."""
        if level <= self._error_log.level:
            self._error_log.log(level, message, conn.id if conn is not None else 0)

    def reopen_logs(self) -> None:
        """Open the log files of this worker again by name."""
        self._files.reopen(lambda message: self.log(1, message.encode()))

    @property
    def log_paths(self) -> list[str]:
        """The log files that this worker has opened itself."""
        return self._files.paths

    # ------------------------------------------------------------- connections

    def has_room(self) -> bool:
        """Whether ``worker_connections`` allows one more; logs when not."""
        if len(self.connections) - self.engine.subrequests.count < self.config.worker_connections:
            return True
        self.log(2, b"%d worker_connections are not enough" % self.config.worker_connections)
        return False

    def connect(self, endpoint: Endpoint, transport: Transport) -> Connection:
        """Take a new connection into the books."""
        self._last_connection += 1
        conn = Connection(self._last_connection, self.runtime, endpoint, transport)
        self.connections[conn.id] = conn
        self._arrival.set()
        return conn

    def disconnect(self, conn: Connection) -> None:
        """Take a connection out of the books."""
        self.connections.pop(conn.id, None)
        if self.quitting and not self.connections:
            self._drained.set()

    def rest(self, conn: Connection) -> None:
        """A request has ended and the next one has not begun."""
        conn.reading_head = False
        request = conn.end_request()
        if request is not None:
            conn.keepalive_timeout = request.plan.settings.keepalive_timeout
        if conn.requests:
            conn.deadline = self.time + conn.keepalive_timeout

    def expired(self, conn: Connection) -> None:
        """A connection is closed because it was silent for too long."""
        if self._error_log.level >= 7 and (not conn.idle or conn.requests == 0):
            line = b"client timed out (110: Connection timed out)" + conn.context()
            self._error_log.log(7, line, conn.id)

    def left(self, conn: Connection, why: str = "") -> None:
        """The peer has closed a connection that has no request; ``why`` is the system's error, if any."""
        if self._error_log.level < 7:
            return
        if not conn.idle:
            line = b"client prematurely closed connection" + conn.context()
        elif conn.requests:
            line = b"client %b closed keepalive connection%b" % (conn.addresses()[0], why.encode())
        else:
            line = b"client closed connection" + conn.context()
        self._error_log.log(7, line, conn.id)

    # ---------------------------------------------------------------- requests

    async def serve_request(self, conn: Connection, request: Request) -> None:
        """Serve a request and what it leaves to do on its connection.

        The coroutine may run inline up to its first wait (:mod:`trio_lua.lua.driver`).
        """
        if request.id == ANSWERED:
            await self._finish(conn, request)
            return
        released = False
        try:
            released = await self.engine.handle(request)
        except Exception:
            self._crashed(conn, request)
        except BaseException:  # Cancelled, alone or in a group
            conn.abort()
            raise
        finally:
            if not released:
                self.engine.release(request)
        if released and request.keepalive and conn.settled:
            return
        await self._finish(conn, request)

    async def refuse(self, conn: Connection, error: ProtocolError, *, inline: bool = True) -> None:
        """Answer what is not a request, and close."""
        request, doing = conn.bad_request(self.now, error)
        request.inline = inline
        message = f"{error} while {doing}" if doing else str(error)
        try:
            await self.engine.refuse(request, error.status, message.encode(), 7 if doing else 4)
        except Exception:
            self._crashed(conn, request)
        except BaseException:  # Cancelled, alone or in a group
            conn.abort()
            raise
        finally:
            self.engine.release(request)
        await self._close(conn, request)

    async def _finish(self, conn: Connection, request: Request) -> None:
        if conn.closed:
            return
        if not await conn.drain():
            conn.close()
            return
        if (
            request.keepalive
            and not self.quitting
            and not conn.raw
            and (conn.body_complete or await conn.discard_body())
        ):
            return
        await self._close(conn, request)

    async def _close(self, conn: Connection, request: Request) -> None:
        """Close so that the client sees the response: linger while it is still sending."""
        if conn.closed:
            return
        if not await conn.drain():
            conn.close()
            return
        settings = request.plan.settings
        if settings.lingering_close == "off" or (
            conn.body_complete
            and not conn.pending
            and not conn.raw
            and settings.lingering_close != "always"
        ):
            conn.close()
            return
        await detach(request)
        with trio.move_on_after(settings.lingering_time):
            await conn.transport.send_eof()
            while True:
                with trio.move_on_after(settings.lingering_timeout) as waiting:
                    try:
                        if not await conn.transport.receive():
                            break
                    except Broken:
                        break
                if waiting.cancelled_caught:
                    break
        conn.close()

    def _crashed(self, conn: Connection, request: Request) -> None:
        """A defect of this package: the connection ends, the worker goes on."""
        request.log(2, b"internal error: " + traceback.format_exc().encode())
        conn.abort()

    # ------------------------------------------------------------------- running

    def set_place(self, place: Place) -> None:
        """Say which process this is among those of a master."""
        self.place = place
        self.runtime.set_place(place)

    def init(self) -> None:
        """Run ``init_by_lua*``, once: in a master before it forks, otherwise at the beginning of :meth:`run`.

        Raises:
            LuaError: It failed.
        """
        if self._initialised:
            return
        http = self.config.http
        if http.init_by_lua is not None:
            try:
                self.runtime.run_init(http.init_by_lua, Phase.INIT)
            except LuaError as error:
                name = _name(http.init_by_lua)
                raise LuaError(f"{name} error: {error.message}") from None
        if http.lua_shared_globals:
            self.runtime.vm.export("share_globals")()
        self._initialised = True

    async def run(
        self,
        listeners: Sequence[tuple[Listen | None, Any]],
        *,
        task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, or until :meth:`quit` and the end of the last request.

        Args:
            listeners: Listening sockets or Trio listeners, each with the ``listen``
                it stands for; None means the configuration's first. They are closed at the end.
            task_status: Receives the worker when it serves.
        """
        http = self.config.http
        ready = False
        alerts: AlertHandlers | None = None
        self._start_clock()
        try:
            self.init()
            ready = True
            async with (
                self.runtime.modules.open(),
                self.runtime.running(),
                trio.open_nursery() as outer,
            ):
                self._outer = outer
                self._timers = Timers(self.runtime, outer)
                alerts = AlertHandlers(self.runtime, outer, self.ipc)
                if http.lua_strict_phases:
                    self._run_hook(http.init_worker_by_lua, Phase.INIT_WORKER)
                    outer.start_soon(self._timers.run)
                    outer.start_soon(alerts.run)
                else:
                    outer.start_soon(self._timers.run)
                    outer.start_soon(alerts.run)
                    await self._init_worker(http.init_worker_by_lua)
                self._watch()
                async with trio.open_nursery() as inner:
                    self._nursery = inner
                    self._start(outer, inner, listeners)
                    task_status.started(self)
                    await self._drained.wait()
                await self._timers.drained()
                await alerts.drained()
                # those that the last handlers have made
                await self._timers.drained()
                outer.cancel_scope.cancel()
        finally:
            self._guard.stop()
            if ready:
                self._run_hook(http.exit_worker_by_lua, Phase.EXIT_WORKER)
            if alerts is not None:
                alerts.close()
            self._report_leaks()
            self.close(listeners)

    def _watch(self) -> None:
        """Let the guard end Lua code that takes too much, if there are bounds."""
        if self._guarded and (self.plans.bounded or self.config.http.lua_memory_limit):
            problem = self._guard.start()
            if problem is not None:
                self.log(6, f"lua_cpu_budget has no effect: {problem}".encode())

    def _report_leaks(self) -> None:
        """Log what is left behind, which is always a defect of this package."""
        requests, threads = self.runtime.vm.export("live")()
        if requests or threads or self.connections:
            left = (requests, threads, len(self.connections))
            self.log(ALERT, b"%d requests, %d light threads and %d connections left" % left)

    def _run_hook(self, handler: LuaCode | None, phase: Phase) -> None:
        """Run a handler of a phase without requests; that it failed is a line in the log."""
        if handler is not None:
            try:
                self.runtime.run_init(handler, phase)
            except LuaError as error:
                self.log(4, f"{_name(handler)} error: {error.message}".encode())

    async def _init_worker(self, handler: LuaCode | None) -> None:
        """The same for ``init_worker_by_lua*`` where it may wait."""
        if handler is not None:
            owner = Clientless(0, self.runtime)
            owner.inline = False
            try:
                await self.runtime.waiting.main(owner, handler, Phase.INIT_WORKER)
            except LuaError as error:
                self.log(4, f"{_name(handler)} error: {error.message}".encode())

    def close(self, listeners: Sequence[tuple[Listen | None, Any]] = ()) -> None:
        """Close the files and the VM of a worker that has stopped, or never ran."""
        self.closed = True
        _close(listeners)
        self._files.close()
        self.runtime.datagrams.close()
        self.runtime.vm.close()

    def _start(
        self,
        outer: trio.Nursery,
        inner: trio.Nursery,
        listeners: Sequence[tuple[Listen | None, Any]],
    ) -> None:
        if self._use_parked:
            # where others accept, too, one worker must not take all that wait
            alone = self.place.total == 1 or self.config.multi_accept
            self._parked = ParkedDriver(
                self, inner, accept_batch=ACCEPT_BATCH if alone else 1, balance=self.balance
            )
        for listen, listener in listeners:
            endpoint = self.endpoints.get(listen)
            scheme = "http" if endpoint.tls is None else "https"
            if isinstance(listener, socket.socket):
                listener.setblocking(False)
                self.schemes.append(scheme)
                self.addresses.append(listener.getsockname())
                if self._parked is not None:
                    self._parked.listen(listener, endpoint)
                    continue
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            elif isinstance(listener, trio.SocketListener):
                self.schemes.append(scheme)
                self.addresses.append(listener.socket.getsockname())
            outer.start_soon(self._serve_listener, listener, endpoint, inner)
        if self._parked is not None:
            outer.start_soon(self._parked.run)
            outer.start_soon(self._sweep)

    async def _serve_listener(
        self, listener: Any, endpoint: Endpoint, nursery: trio.Nursery
    ) -> None:
        async def handler(stream: trio.abc.Stream) -> None:
            if self.has_room():
                own = endpoint
                if isinstance(stream, trio.SocketStream):
                    own = endpoint.local(stream.socket)
                await serve_stream(self, stream, own)

        with trio.CancelScope() as scope:
            self._accepting.append(scope)
            await trio.serve_listeners(handler, [listener], handler_nursery=nursery)

    async def serve_stream(self, stream: trio.abc.Stream, listen: Listen | None = None) -> None:
        """Serve one connection over any stream; returns when it has ended."""
        await serve_stream(self, stream, self.endpoints.get(listen))

    def serve_socket(self, sock: socket.socket, listen: Listen | None = None) -> None:
        """Serve a connected stream socket, which is the worker's own from now on."""
        if self._parked is not None:
            self._parked.adopt(sock, self.endpoints.get(listen))
            return
        assert self._nursery is not None
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._nursery.start_soon(serve_stream, self, stream, self.endpoints.get(listen))

    def adopt_stream(self, stream: trio.abc.Stream, listen: Listen) -> None:
        """Serve a connection over any stream in a task of the worker.

        Raises:
            trio.ClosedResourceError: The worker stops, or has stopped.
        """
        if self.quitting or self.closed or self._nursery is None:
            raise trio.ClosedResourceError("the server has stopped")
        self._nursery.start_soon(serve_stream, self, stream, self.endpoints.get(listen))

    async def _sweep(self) -> None:
        assert self._parked is not None
        while True:
            if not self.connections:
                # an idle server wakes nobody, and virtual time can jump
                self._arrival = trio.Event()
                await self._arrival.wait()
            await trio.sleep(_SWEEP)
            self._parked.sweep(trio.current_time())

    def quit(self) -> None:
        """Stop gracefully: accept nothing, close what is idle, let running requests and timers end.

        Connections that were used a moment ago may have one more request.

        After ``worker_shutdown_timeout`` what has not ended is cancelled.
        """
        if self.quitting:
            return
        self.quitting = True
        limit = self.config.worker_shutdown_timeout
        if limit and self._outer is not None:
            self._outer.start_soon(self._stop_after, limit)
        self.engine.quit()
        self.runtime.set_exiting()
        if self._timers is not None:
            self._timers.expire()
        for scope in self._accepting:
            scope.cancel()
        if self._parked is not None:
            self._parked.stop_listening()
        self._close_idle(keep=self._was_just_used)
        if not self.connections:
            self._drained.set()
        elif self._outer is not None:
            self._outer.start_soon(self._close_idle_later)

    def _was_just_used(self, conn: Connection) -> bool:
        """Whether a client is likely to be sending the next request at this moment."""
        rest = conn.keepalive_timeout
        if not conn.requests:
            rest = conn.endpoint.default.server.client_header_timeout
        return conn.deadline - rest > trio.current_time() - _GRACE

    async def _close_idle_later(self) -> None:
        await trio.sleep(_GRACE)
        self._close_idle(keep=lambda _conn: False)

    def _close_idle(self, keep: Callable[[Connection], bool]) -> None:
        """Close the connections between two requests, but for some."""
        if self._parked is not None:
            self._parked.close_idle(keep)
        for conn, scope in list(self.streams.items()):
            if conn.idle and conn.request is None and not keep(conn):
                scope.cancel()

    async def _stop_after(self, seconds: float) -> None:
        """Cancel after a time what runs then, and name it."""
        await trio.sleep(seconds)
        assert self._outer is not None
        for thread in threads(self.runtime):
            message = f"cancelled {thread}: the time to shut down is over"
            self.runtime.log_thread(thread.number, ERROR, message.encode())
        self._outer.cancel_scope.cancel()


def _name(handler: LuaCode) -> str:
    """What OpenResty calls a handler of a phase without requests in its errors."""
    return handler.directive.removesuffix("_block")


def _close(listeners: Sequence[tuple[Listen | None, Any]]) -> None:
    for _, listener in listeners:
        if isinstance(listener, socket.socket):
            listener.close()
        elif isinstance(listener, trio.SocketListener):
            listener.socket.close()


def _template(text: str) -> Template:
    return Variables().template(text, Source("", 0))


async def run_worker(
    config: Config,
    *,
    listeners: Sequence[tuple[Listen | None, Any]],
    error_log: Log,
    task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED,
    product: str = f"nginx/{NGINX_VERSION}",
    zones: Mapping[str, Zone] | None = None,
    ipc: MessageEndpoint | None = None,
    observers: Sequence[Observer] = (),
) -> None:
    """Run a worker on listening sockets or Trio listeners, which are its own to close.

    Raises:
        ConfigError: The configuration cannot be used.
        LuaError: ``init_by_lua*`` failed.
    """
    try:
        worker = Worker(
            config,
            error_log=error_log,
            product=product,
            zones=zones,
            ipc=ipc,
            observers=observers,
        )
    except BaseException:
        _close(listeners)
        raise
    await worker.run(listeners, task_status=task_status)
