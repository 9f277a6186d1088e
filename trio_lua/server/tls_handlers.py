"""``ssl_client_hello_by_lua*``, ``ssl_certificate_by_lua*`` and those of sessions: Lua code around a handshake."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import LuaCode
from trio_lua.log.error_log import ERROR
from trio_lua.lua.driver import Outcome
from trio_lua.net.tls_choice import Choice
from trio_lua.phases.plan import ServerPlan
from trio_lua.request.phase import Phase
from trio_lua.server.clientless import Clientless

if TYPE_CHECKING:
    from trio_lua.server.connection import Connection

__all__ = ["Handlers"]

_TLS_1_2 = 0x303


class Handlers:
    """Runs the handlers of one handshake; each answers whether the handshake may go on.

    Args:
        runtime: The VM.
        conn: The connection.
        choice: What they decide.
    """

    def __init__(self, runtime: Runtime, conn: Connection, choice: Choice) -> None:
        self._lua = runtime
        self._conn = conn
        self._choice = choice

    async def client_hello(self, plan: ServerPlan) -> bool:
        tls = plan.server.tls
        if tls is None or tls.ssl_client_hello_by_lua is None:
            return True
        return await self._run(plan, tls.ssl_client_hello_by_lua, Phase.SSL_CLIENT_HELLO)

    async def certificate(self, plan: ServerPlan) -> bool:
        tls = plan.server.tls
        assert tls is not None
        assert tls.ssl_certificate_by_lua is not None
        return await self._run(plan, tls.ssl_certificate_by_lua, Phase.SSL_CERT)

    async def session_fetch(self, plan: ServerPlan, *, tickets: bool) -> bool:
        """For clients that name a session which only a cache could know."""
        handler, hello = self._lua.config.http.ssl_session_fetch_by_lua, self._choice.hello
        if handler is None or hello is None or not hello.session_id:
            return True
        if hello.version > _TLS_1_2 or (tickets and hello.ticket):
            return True
        self._choice.session = hello.session_id
        return await self._run(plan, handler, Phase.SSL_SESS_FETCH)

    def session_store(self, plan: ServerPlan, session: bytes) -> None:
        """For clients that have got a new session, and no ticket."""
        handler = self._lua.config.http.ssl_session_store_by_lua
        if handler is None or not session:
            return
        self._choice.session = session
        with self._begun(plan) as owner:
            result = self._lua.run_sync(
                owner.id, self._lua.handler(handler), int(Phase.SSL_SESS_STORE), self._path(handler)
            )
            if result is not True and not result[0]:
                owner.log(ERROR, b"failed to run session_store_by_lua*: " + result[1])

    def _path(self, handler: LuaCode) -> bytes | None:
        if handler.path is None:
            return None
        return os.fsencode(os.path.join(self._lua.config.prefix, handler.path.raw))

    @contextmanager
    def _begun(self, plan: ServerPlan) -> Iterator[Clientless]:
        lua, conn = self._lua, self._conn
        with lua.handshakes.of(conn.id, self._choice):
            owner = Clientless(lua.begin_tls(conn.id, plan.outer.id), lua)
            owner.inline = False
            try:
                yield owner
            finally:
                lua.release(owner.id)

    async def _run(self, plan: ServerPlan, handler: LuaCode, phase: Phase) -> bool:
        lua = self._lua
        with self._begun(plan) as owner:
            started = lua.run(owner.id, lua.handler(handler), int(phase), self._path(handler))
            outcome = await lua.driver.finish(owner, started)
            if type(outcome) is tuple:
                return self._judge(owner, outcome)
            return True

    def _judge(self, owner: Clientless, outcome: tuple[Any, ...]) -> bool:
        kind, *values = outcome
        if kind == Outcome.FAILED:
            message, traceback = values
            owner.log(
                ERROR,
                b"lua entry thread aborted: runtime error: %b\nstack traceback:\n%b"
                % (message, traceback),
            )
            return False
        if kind == Outcome.LOAD_FAILED:
            owner.log(ERROR, values[0])
            return False
        if kind == Outcome.EXIT:
            # ngx.ERROR, or a status of HTTP, which there is no response for
            return bool(values[0] == 0)
        return True
