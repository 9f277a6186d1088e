"""The phase machine: takes a request from its location search to its log phase.

A request's way is a loop over *places* in the configuration. Each turn enters a location and runs its
steps in nginx's order (rewrite, access, precontent, content); the turn ends with a finished response, with a
status that still needs a response (:class:`Status`), or with another place to go (:class:`Goto`): an internal
redirect by ``rewrite``, ``ngx.exec``, ``error_page``, ``try_files`` or ``index``.

Handlers are run by :mod:`trio_lua.phases.handlers`, responses of the server itself are made by
:mod:`trio_lua.phases.responses`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Coroutine
from typing import Any

import trio

from trio_lua.api.runtime import Runtime
from trio_lua.lua.driver import Outcome, detach
from trio_lua.phases import rewrite, static
from trio_lua.phases.access import Decision, Gate
from trio_lua.phases.access_log import AccessLogs
from trio_lua.phases.handlers import Handlers
from trio_lua.phases.plan import Plan
from trio_lua.phases.responses import Responses
from trio_lua.phases.rewrite import InternalRedirect, Redirect
from trio_lua.phases.step import (
    DECLINED,
    DONE,
    NEXT,
    Goto,
    Later,
    Status,
    Step,
    change_uri,
    redirect,
)
from trio_lua.phases.subrequest import Subrequest, Subrequests
from trio_lua.request.phase import Phase
from trio_lua.request.sink import Ordered
from trio_lua.request.state import Request

__all__ = ["Engine"]

_ERROR, _INFO = 4, 7

_UNAUTHORIZED = Status(401)


class Engine:
    """Runs requests through the phases.

    Args:
        runtime: The VM.
        logs: Where access log lines go.
    """

    def __init__(self, runtime: Runtime, logs: AccessLogs) -> None:
        self._lua = runtime
        self._content = runtime.content
        self._logs = logs
        #: Makes and runs the requests that requests make.
        self.subrequests = Subrequests(self, runtime)
        self._responses = Responses(runtime, self.subrequests)
        self._handlers = Handlers(runtime, self._responses)
        #: Set when the worker stops: responses announce the end of their connection.
        self.quitting = False

    async def handle(self, request: Request) -> bool:
        """Serve a request whose server is chosen; its response is then with the connection.

        Returns:
            Whether Lua has released the request already.
        """
        if request.started is not None:
            step = await self._chain(request, *request.started)
        else:
            plan = request.server.known.get(request.target_uri)
            if (
                plan is not None
                and len(plan.chain) == 1
                and 0 < request.length <= plan.max_body
                and request.connection.requests < plan.max_requests
                and not self.quitting
            ):
                request.plan = plan
                result = self._content(request.id, plan.content.number, 8, None, plan.id)
                if result.__class__ is tuple and result[0] == 7 and not plan.has_log:
                    data = result[1]
                    if data:
                        request.connection.write(data)
                    request.keepalive = result[2]
                    return True
                step = await self._handlers.after_content(request, result)
            else:
                step = await self._before_location(request)
        try:
            await self._walk(request, step)
        finally:
            rest = self._log(request)
            if rest is not None:
                await rest
        return False

    def quit(self) -> None:
        """From now on responses announce the end of their connection."""
        self.quitting = True
        self._lua.forget(None)

    def release(self, request: Request) -> None:
        """Forget a request: its Lua state, its temporary files, places in its response."""
        if type(request.connection) is Ordered:
            self.subrequests.abandon(request)
        self._lua.release(request.id)
        if request.files is not None:
            for path in request.files:
                with contextlib.suppress(OSError):
                    os.unlink(path)

    async def serve_subrequest(self, request: Subrequest) -> None:
        """Serve a request that another request has made (:mod:`trio_lua.phases.subrequest`)."""
        try:
            await self._walk(request, await self._before_location(request))
        finally:
            if request.plan.settings.log_subrequest:
                rest = self._log(request)
                if rest is not None:
                    await rest

    async def refuse(self, request: Request, status: int, why: bytes, level: int) -> None:
        """Answer a request that could not be read; ``why`` is logged at ``level``."""
        request.plan = request.server.outer
        self._lua.enter(request.id, request.plan.id)
        request.log(level, why)
        try:
            await self._walk(request, Status(status))
        finally:
            rest = self._log(request)
            if rest is not None:
                await rest

    async def _walk(self, request: Request, step: Step) -> None:
        """Go from place to place until the response is complete."""
        while step is not DONE:
            if isinstance(step, Status):
                step = self._responses.of_status(request, step.code)
            elif isinstance(step, Goto):
                if step.server and not request.server.plain:
                    step = await self._before_location(request)
                else:
                    step = await self._goto(request, step.name)
            elif isinstance(step, Later):
                step = step.step(request, await step.result)
            else:
                step = await self._goto(request, None)

    # ------------------------------------------------------------ places

    async def _before_location(self, request: Request) -> Step:
        """The server's own steps."""
        server = request.server
        request.plan = server.outer
        self._lua.enter(request.id, server.outer.id)
        if server.rewrite is not None:
            step = await self._handlers.run(request, server.rewrite, Phase.SERVER_REWRITE)
            if step is not NEXT:
                return step
        if server.program is not None:
            outcome = rewrite.run(server.program, request)
            if isinstance(outcome, rewrite.WaitForLua):
                outcome = await self._set_by_lua(request, outcome)
            step = self._rewrite(request, outcome, at_server=True)
            if step is not NEXT:
                return step
        return NEXT

    async def _goto(self, request: Request, name: bytes | None) -> Step:
        server, lua = request.server, self._lua
        if name is not None:
            location = server.table.named(name)
            if location is None:
                request.log(_ERROR, b'could not find named location "@%b"' % name.lstrip(b"@"))
                return Status(500)
            plan = server.plans[id(location)]
            captures = None
        else:
            uri = request.uri
            try:
                match = server.table.find(uri)
            except ValueError as error:
                request.log(_ERROR, str(error).encode())
                return Status(500)
            location, captures = match.location, match.captures
            plan = server.outer if location is None else server.plans[id(location)]
            if captures is not None:
                request.set_captures(captures)
            for variable, value in match.variables:
                request.set_variable(variable, value)
            if (
                plan.chain
                and captures is None
                and server.plain
                and not request.uri_changes
                and not self.quitting
            ):
                server.remember(uri, plan)
        if plan.limited is not None and request.method not in plan.methods:
            plan = plan.limited
        request.plan = plan
        lua.enter(request.id, plan.id)
        if request.connection.requests >= plan.max_requests or self.quitting:
            lua.put(request.id, b"keepalive", False)
        if location is not None and location.internal and not lua.get(request.id, b"internal"):
            return Status(404)
        limit = plan.settings.client_max_body_size
        if limit and request.length > limit and not request.error_page:
            request.log(
                _ERROR,
                b"client intended to send too large body: %d bytes" % request.length,
            )
            return Status(413)
        return await self._location(request, named=name is not None)

    async def _location(self, request: Request, *, named: bool = False) -> Step:
        plan: Plan = request.plan
        lua = self._lua
        if plan.rewrite_first:
            step = await self._handlers.run_with_body(request, plan.rewrite, Phase.REWRITE)
            if step is not NEXT:
                return step
        if plan.program is not None:
            outcome = rewrite.run(plan.program, request)
            if isinstance(outcome, rewrite.WaitForLua):
                outcome = await self._set_by_lua(request, outcome)
            step = self._rewrite(request, outcome, at_server=False)
            plan = request.plan
            if step is not NEXT:
                return step
        if plan.rewrite_hooks:
            step = await self._handlers.run_hooks(request, plan.rewrite_hooks, Phase.REWRITE)
            if step is not NEXT:
                return step
        if plan.rewrite is not None and not plan.rewrite_first:
            step = await self._handlers.run_with_body(request, plan.rewrite, Phase.REWRITE)
            if step is not NEXT:
                return step
        step = await self._access(request, plan)
        if step is not NEXT:
            if plan.settings.auth_delay and step == _UNAUTHORIZED:
                request.log(_INFO, b"delaying unauthorized request")
                await detach(request)
                await trio.sleep(plan.settings.auth_delay)
            return step
        if plan.location.try_files is not None:
            step = await self._try_files(request, plan)
            if step is not NEXT:
                return step
        if plan.precontent is not None:
            step = await self._handlers.run(request, plan.precontent, Phase.PRECONTENT)
            if step is not NEXT:
                return step
        content = plan.content
        if content is None:
            if plan.module_content is not None:
                return await self._handlers.run_content_hook(request, plan.module_content)
            for hook in plan.files_hooks:
                status = await self._handlers.run_python_hook(request, hook)
                if status != DECLINED:
                    return self._responses.conclude(request) if status is None else Status(status)
            return await self._static(request, plan)
        if plan.settings.lua_need_request_body:
            status = await self._handlers.need_body(request)
            if status:
                return Status(status)
        path = None if content.code.path is None else lua.handler_path(request, content.code)
        # where filters wait the response is not ended with the handler
        run = lua.run if plan.filters_wait else lua.content
        return await self._handlers.after_content(
            request, run(request.id, content.number, int(Phase.CONTENT), path, None)
        )

    async def _chain(self, request: Request, index: int, result: object) -> Step:
        """Go on with the handlers of a plan that has nothing else, behind one that has run."""
        lua, chain = self._lua, request.plan.chain
        while True:
            _, phase = chain[index]
            if phase is Phase.CONTENT or (
                isinstance(result, tuple) and result[0] == Outcome.CONCLUDED
            ):
                return await self._handlers.after_content(request, result)
            step = await self._handlers.after(request, result, phase)
            if phase is Phase.ACCESS:
                satisfy = request.plan.settings.satisfy
                if self._judge(Gate(satisfy), step) is not Decision.FINISH:
                    step = NEXT
            if step is not NEXT:
                return step
            index += 1
            handler, phase = chain[index]
            if phase is Phase.CONTENT:
                result = lua.content(request.id, handler.number, int(phase), None, None)
            else:
                result = lua.run(request.id, handler.number, int(phase), None)

    # ------------------------------------------------------------- steps

    async def _set_by_lua(self, request: Request, outcome: rewrite.Outcome) -> rewrite.Outcome:
        """Run a rewrite program to its end, with handlers that may wait."""
        while isinstance(outcome, rewrite.WaitForLua):
            value = await self._lua.waiting.value(request, outcome.handler)
            outcome = rewrite.go_on(outcome, value)
        return outcome

    def _rewrite(self, request: Request, outcome: rewrite.Outcome, *, at_server: bool) -> Step:
        """What follows from the outcome of a rewrite program."""
        assert not isinstance(outcome, rewrite.WaitForLua)
        lua = self._lua
        location = outcome.location
        if location is not None:
            plan = request.server.plans[id(location)]
            request.plan = plan
            lua.enter(request.id, plan.id)
        if isinstance(outcome, rewrite.Continue):
            return NEXT
        if isinstance(outcome, rewrite.Broke):
            if outcome.rewritten:
                request.rewritten = True
                lua.put(request.id, b"internal", True)
            return NEXT
        if isinstance(outcome, rewrite.Restart):
            lua.put(request.id, b"internal", True)
            if at_server:
                return NEXT
            failed = change_uri(request, b'processing "' + request.uri + b'"')
            return failed or Goto()
        if isinstance(outcome, rewrite.Redirect):
            return self._responses.redirect(request, outcome.status, outcome.target)
        if isinstance(outcome, rewrite.Finish):
            if outcome.text is None:
                return Status(outcome.status)
            return self._responses.text(request, outcome.status, outcome.text)
        return Status(500)

    async def _access(self, request: Request, plan: Plan) -> Step:
        settings = plan.settings
        rules = plan.rules
        if isinstance(request, Subrequest) or (
            plan.access is None and not rules and not plan.access_hooks
        ):
            return NEXT
        gate = Gate(settings.satisfy)
        if plan.access_first:
            step = await self._handlers.run_with_body(request, plan.access, Phase.ACCESS)
            decision = self._judge(gate, step)
            if decision is Decision.FINISH:
                return step
            if decision is Decision.DONE:
                return NEXT
        if rules:
            peer = request.connection.addresses()[0].decode()
            decision = gate.rules(rules, peer, request)
            if decision is Decision.DONE:
                return NEXT
            if decision is Decision.FINISH:
                return Status(403)
        for hook in plan.access_hooks:
            step = await self._handlers.run_hooks(request, (hook,), Phase.ACCESS)
            decision = self._judge(gate, step)
            if decision is Decision.FINISH:
                return step
            if decision is Decision.DONE:
                return NEXT
        if plan.access is not None and not plan.access_first:
            step = await self._handlers.run_with_body(request, plan.access, Phase.ACCESS)
            decision = self._judge(gate, step)
            if decision is Decision.FINISH:
                return step
            if decision is Decision.DONE:
                return NEXT
        refusal = gate.finish(request)
        return NEXT if refusal is None else Status(refusal)

    @staticmethod
    def _judge(gate: Gate, step: Step) -> Decision:
        """What the end of a handler says about access."""
        if step is NEXT:
            return gate.take(0)
        if isinstance(step, Status):
            return gate.take(None if step.code == DECLINED else step.code)
        return Decision.FINISH

    async def _try_files(self, request: Request, plan: Plan) -> Step:
        outcome = await static.try_files(request, plan.files, rewritten=request.rewritten)
        if isinstance(outcome, InternalRedirect):
            return redirect(self._lua, request, outcome.uri, outcome.args)
        if isinstance(outcome, int):
            return Status(outcome)
        request.below_alias = outcome.below_alias
        return NEXT

    async def _static(self, request: Request, plan: Plan) -> Step:
        lua = self._lua
        status = lua.get(request.id, b"err_status") or 200
        lua.put(request.id, b"conditional_done", True)
        outcome = await static.serve(
            request,
            plan.files,
            status=status,
            is_main=not isinstance(request, Subrequest),
            rewritten=request.rewritten,
            below_alias=request.below_alias,
        )
        if outcome is None:
            return self._responses.conclude(request)
        if isinstance(outcome, InternalRedirect):
            return redirect(self._lua, request, outcome.uri, outcome.args)
        if isinstance(outcome, Redirect):
            return self._responses.redirect(request, outcome.status, outcome.target)
        return Status(outcome)

    def document_root(self, request: Request) -> bytes:
        """``$document_root``."""
        return request.plan.files.base(request) or b""

    def request_filename(self, request: Request) -> bytes:
        """``$request_filename``."""
        return request.plan.files.path(request) or b""

    def invalid_referer(self, request: Request) -> bytes:
        """``$invalid_referer``: "1" or nothing."""
        referers = request.plan.referers
        if referers is None:
            return b""
        try:
            return b"" if referers.allow(request.header(b"referer")) else b"1"
        except ValueError as error:
            request.log(_ERROR, str(error).encode())
            return b"1"

    # ------------------------------------------------------------------ log

    def _log(self, request: Request) -> Coroutine[Any, Any, None] | None:
        """The log phase; what is returned is the rest of it, to be awaited."""
        plan: Plan = request.plan
        if not plan.has_log:
            return None
        if plan.log_waits:
            return self._log_waiting(request)
        lua = self._lua
        if plan.log is not None:
            path = lua.handler_path(request, plan.log.code)
            self._logged(request, lua.run_sync(request.id, plan.log.number, int(Phase.LOG), path))
        if plan.access_logs:
            self._logs.write(request, plan.access_logs)
        return None

    async def _log_waiting(self, request: Request) -> None:
        plan: Plan = request.plan
        assert plan.log is not None
        try:
            self._logged(request, await self._lua.waiting.log(request, plan.log.code))
        finally:
            if plan.access_logs:
                self._logs.write(request, plan.access_logs)

    def _logged(self, request: Request, result: Any) -> None:
        if result is not True and result[0] is not True:
            self._lua.put(request.id, b"phase", int(Phase.LOG))
            request.log(_ERROR, b"failed to run log_by_lua*: " + result[1])
