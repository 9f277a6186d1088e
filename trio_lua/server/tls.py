"""TLS of listening sockets: the handshake, and what it means for the requests behind it.

The client's first message is read before OpenSSL sees it. The name in it chooses the server, and that server's
context does the handshake; so each server has versions and ciphers of its own, which nginx takes from the default
server. A handshake is a task, whichever driver serves the connection afterwards: it waits for the peer, computes
for longer than most requests, and may run Lua code.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import trio

from trio_lua.errors import ConfigError
from trio_lua.net.client_hello import BadHello, ClientHello, is_tls, parse
from trio_lua.net.tls import chain_length, reason_of
from trio_lua.net.tls_choice import Choice, ChosenContexts
from trio_lua.net.tls_facts import TlsFacts
from trio_lua.net.tls_stream import TlsState
from trio_lua.server.listener import Endpoint, RefusedError
from trio_lua.server.tls_handlers import Handlers
from trio_lua.server.tls_transport import TlsTransport
from trio_lua.server.transport import Broken, Transport

if TYPE_CHECKING:
    from trio_lua.config.tls import TlsOptions
    from trio_lua.phases.matcher import ServerTable
    from trio_lua.phases.plan import ServerPlan
    from trio_lua.request.state import Request
    from trio_lua.server.connection import Connection
    from trio_lua.server.worker import Worker

__all__ = ["TlsAddress", "shake_hands"]

_ALERT, _INFO = 2, 7

#: Alerts (RFC 8446, 6).
_INTERNAL_ERROR, _UNRECOGNIZED_NAME = 80, 112

#: Writes a line about the handshake.
_Log = Callable[[int, str], None]


class _PlainEndpoint(Endpoint):
    """For clients that speak HTTP where TLS is spoken."""

    __slots__ = ()

    def server(self, host: bytes, request: Request) -> ServerPlan:
        request.server = super().server(host, request)
        raise RefusedError("client sent plain HTTP request to HTTPS port", 497)


class _VerifyingEndpoint(Endpoint):
    """For connections whose server asks clients for certificates, or that shares its address with such a one.

    A certificate counts for the server that has asked for it, so requests for another one that asks are refused.
    """

    __slots__ = ("chosen", "verify")

    chosen: ServerPlan
    verify: str

    def server(self, host: bytes, request: Request) -> ServerPlan:
        request.server = plan = self.plan_of(host)
        tls = plan.server.tls
        wanted = "off" if tls is None else tls.ssl_verify_client
        if wanted != "off":
            if plan is not self.chosen:
                raise RefusedError(
                    "client attempted to request the server name different from the one that was negotiated",
                    421,
                )
            if self.verify.startswith("FAILED"):
                reason = self.verify.partition(":")[2]
                raise RefusedError(f"client SSL certificate verify error: ({reason})", 495)
            if wanted == "on" and self.verify == "NONE":
                raise RefusedError("client sent no required SSL certificate", 496)
        return super().server(host, request)


class TlsAddress:
    """A listening address with ``ssl``.

    Args:
        worker: Whose it is.
        table: Its servers.

    Attributes:
        contexts: For its handshakes.
    """

    def __init__(self, worker: Worker, table: ServerTable) -> None:
        self._worker = worker
        self._table = table
        self._plans = worker.plans.servers
        self._plain: Endpoint | None = None
        self.contexts = ChosenContexts()
        self._verifying: dict[tuple[int, str], Endpoint] = {}
        self._asks = any(
            server.tls is not None and server.tls.ssl_verify_client != "off"
            for server in table.servers
        )

    @property
    def plain(self) -> Endpoint:
        """Where connections belong that are not encrypted."""
        if self._plain is None:
            self._plain = self._worker.endpoints.new(self._table, _PlainEndpoint, recognise=False)
        return self._plain

    def choose(self, name: bytes | None) -> ServerPlan:
        """The server for the name in a handshake."""
        match = self._table.find(b"" if name is None else name.lower().rstrip(b"."))
        return self._plans[id(match.server)]

    def options(self, plan: ServerPlan) -> TlsOptions:
        """Those of a server; one without a certificate uses those of the default server."""
        tls = plan.server.tls
        if tls is None or not tls.ssl_certificate:
            tls = self._table.default.tls
        assert tls is not None
        return tls

    def endpoint(self, endpoint: Endpoint, plan: ServerPlan, verify: str) -> Endpoint:
        """Where a connection belongs after its handshake."""
        if not self._asks:
            return endpoint
        key = (plan.number, verify)
        bound = self._verifying.get(key)
        if bound is None:
            bound = self._worker.endpoints.new(
                self._table, _VerifyingEndpoint, recognise=verify == "SUCCESS"
            )
            assert isinstance(bound, _VerifyingEndpoint)
            bound.chosen, bound.verify = plan, verify
            self._verifying[key] = bound
        return bound


class _Closed(Exception):
    """The peer has closed in the middle of the handshake."""


async def shake_hands(worker: Worker, conn: Connection) -> bool:
    """Do the handshake of a new connection; whether it can be served then, and is not closed."""

    def log(level: int, message: str) -> None:
        where = f" while SSL handshaking, client: {conn.addresses()[0].decode()}"
        where += f", server: {conn.listen.decode()}"
        worker.log(level, (message + where).encode("utf-8", "surrogateescape"), conn)

    with trio.move_on_after(conn.endpoint.default.server.client_header_timeout):
        try:
            await _shake_hands(worker, conn, log)
        except (_Closed, Broken):
            log(_INFO, "peer closed connection in SSL handshake")
        except (ssl.SSLError, ConfigError) as error:
            log(_INFO, f"SSL_do_handshake() failed ({reason_of(error)})")
        else:
            return True
        conn.abort()
        return False
    log(_INFO, "client timed out (110: Connection timed out)")
    conn.abort()
    return False


async def _shake_hands(worker: Worker, conn: Connection, log: _Log) -> None:
    transport = conn.transport
    endpoint = conn.endpoint
    address = endpoint.tls
    assert address is not None
    data = await _receive(transport)
    if not is_tls(data):
        conn.endpoint = address.plain
        conn.receive(data)
        return
    hello: ClientHello | None = None
    try:
        while (hello := parse(data)) is None:
            data += await _receive(transport)
    except BadHello:
        # OpenSSL tells the client what is wrong
        pass
    choice = Choice(hello)
    handlers = Handlers(worker.runtime, conn, choice)
    if not await handlers.client_hello(endpoint.default):
        await _refuse(transport, _INTERNAL_ERROR, "callback failed")
    plan = address.choose(None if hello is None else hello.server_name)
    tls = plan.server.tls
    if tls is not None and tls.ssl_reject_handshake:
        await _refuse(transport, _UNRECOGNIZED_NAME, "ssl_reject_handshake is on")
    options = address.options(plan)
    if options.ssl_certificate_by_lua is not None:
        if tls is None or tls.ssl_certificate_by_lua is None:
            name = (*plan.server.names, "")[0]
            log(_ALERT, f"no ssl_certificate_by_lua* defined in server {name}")
            await _refuse(transport, _INTERNAL_ERROR, "cert cb error")
        elif not await handlers.certificate(plan):
            await _refuse(transport, _INTERNAL_ERROR, "cert cb error")
    await handlers.session_fetch(plan, tickets=options.ssl_session_tickets)
    state = TlsState(address.contexts.get(options, choice))
    await _handshake(transport, state, data)
    _store_session(handlers, plan, state, tickets=options.ssl_session_tickets)
    verify = _verify(state, options.ssl_verify_depth if choice.depth < 0 else choice.depth)
    conn.endpoint = address.endpoint(endpoint, plan, verify)
    conn.transport = TlsTransport(transport, state, TlsFacts(state.object, hello, verify))


def _store_session(handlers: Handlers, plan: ServerPlan, state: TlsState, *, tickets: bool) -> None:
    # with TLS 1.3 there is a number even where the client gets a ticket
    if state.object.version() != "TLSv1.3" or not tickets:
        session = state.object.session
        if session is not None and not state.object.session_reused:
            handlers.session_store(plan, session.id)


async def _refuse(transport: Transport, alert: int, reason: str) -> NoReturn:
    """End a handshake that OpenSSL does not know of."""
    # a record of one fatal alert (RFC 8446, 6)
    await _send(transport, bytes((21, 3, 3, 0, 2, 2, alert)))
    raise ssl.SSLError(ssl.SSL_ERROR_SSL, reason)


async def _handshake(transport: Transport, state: TlsState, data: bytes) -> None:
    while True:
        state.feed(data)
        try:
            complete = state.handshake()
        except ssl.SSLError:
            await _send(transport, state.output())
            raise
        if complete:
            # one that has left already is noticed where its requests are waited for
            with contextlib.suppress(Broken):
                await _send(transport, state.output())
            return
        await _send(transport, state.output())
        data = await _receive(transport)


def _verify(state: TlsState, depth: int) -> str:
    """What became of the client's certificate; OpenSSL has refused what it could not verify."""
    if state.object.getpeercert(binary_form=True) is None:
        return "NONE"
    if chain_length(state.object) - 2 > depth:
        return "FAILED:certificate chain too long"
    return "SUCCESS"


async def _receive(transport: Transport) -> bytes:
    data = await transport.receive()
    if not data:
        raise _Closed
    return data


async def _send(transport: Transport, data: bytes) -> None:
    view = memoryview(data)
    while view:
        sent = transport.send_nowait(view) or await transport.send(view)
        view = view[sent:]
