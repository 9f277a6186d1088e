"""The phase machine: takes a request from its location search to its log phase.

A request's way is a loop over *places* in the configuration. Each turn enters a location and runs its
steps in nginx's order (rewrite, access, precontent, content); the turn ends with a finished response, with a
status that still needs a response (:class:`Status`), or with another place to go (:class:`Goto`): an internal
redirect by ``rewrite``, ``ngx.exec``, ``error_page``, ``try_files`` or ``index``.

What each outcome of a Lua handler means in each phase is the table of ``ngx.exit`` in OpenResty: 0 and -5 go on
with the next phase, 2xx ends the response with that status, 3xx to 5xx ask for the status's page, -1
and 444 drop the connection.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Union

import trio

from trio_lua.api.body import FAILED, read_body
from trio_lua.api.modules import Hook
from trio_lua.api.runtime import Runtime
from trio_lua.config.model import ErrorPage
from trio_lua.lua.driver import Outcome, detach
from trio_lua.phases import rewrite, special, static
from trio_lua.phases.access import Decision, Gate
from trio_lua.phases.access_log import AccessLogs
from trio_lua.phases.plan import Handler, Plan
from trio_lua.phases.rewrite import InternalRedirect, Redirect
from trio_lua.phases.subrequest import Subrequest, Subrequests
from trio_lua.request.phase import Phase
from trio_lua.request.sink import Ordered
from trio_lua.request.state import Request

__all__ = ["Engine"]

_ERROR, _INFO = 4, 7

#: Statuses that nginx records without sending them: request time-out, 444, client closed request.
_TERMINATED = frozenset((408, 444, 499))

#: ``ngx.DECLINED``: the handler has no opinion.
_DECLINED = -5

#: nginx gives up after this many changes of the path in one request.
_MAX_URI_CHANGES = 10


@dataclass(frozen=True, slots=True)
class Goto:
    """Search the location again.

    Attributes:
        name: Of a named location, which is not searched.
        server: The server's own steps run again before, as they do after an internal redirect.
    """

    name: bytes | None = None
    server: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """The request ends with a status whose response is still to be made."""

    code: int


_UNAUTHORIZED = Status(401)


@dataclass(frozen=True, slots=True)
class Later:
    """Filters may wait before the next step is known (``lua_strict_phases off``).

    Attributes:
        result: What they leave.
        step: What follows from that.
    """

    result: Coroutine[Any, Any, Any]
    step: Callable[[Request, Any], Step]


class _Done:
    """The response is complete."""


class _Next:
    """Go on with the next step."""


_DONE = _Done()
_NEXT = _Next()

Step = Union[Goto, Status, Later, _Done, _Next]


class Engine:
    """Runs requests through the phases.

    Args:
        runtime: The VM.
        logs: Where access log lines go.
    """

    def __init__(self, runtime: Runtime, logs: AccessLogs) -> None:
        self._lua = runtime
        self._driver = runtime.driver
        self._content = runtime.content
        self._logs = logs
        #: Makes and runs the requests that requests make.
        self.subrequests = Subrequests(self, runtime)
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
                step = await self._after_content(request, result)
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
        while step is not _DONE:
            if isinstance(step, Status):
                step = await self._special(request, step.code)
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
            step = await self._handler(request, server.rewrite, Phase.SERVER_REWRITE)
            if step is not _NEXT:
                return step
        if server.program is not None:
            outcome = rewrite.run(server.program, request)
            if isinstance(outcome, rewrite.WaitForLua):
                outcome = await self._set_by_lua(request, outcome)
            step = self._rewrite(request, outcome, at_server=True)
            if step is not _NEXT:
                return step
        return _NEXT

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

    def _count_change(self, request: Request, doing: bytes) -> Step | None:
        request.uri_changes += 1
        if request.uri_changes > _MAX_URI_CHANGES:
            request.log(_ERROR, b"rewrite or internal redirection cycle while " + doing)
            return Status(500)
        return None

    async def _location(self, request: Request, *, named: bool = False) -> Step:
        plan: Plan = request.plan
        lua = self._lua
        if plan.rewrite_first:
            step = await self._lua_handler(request, plan.rewrite, Phase.REWRITE)
            if step is not _NEXT:
                return step
        if plan.program is not None:
            outcome = rewrite.run(plan.program, request)
            if isinstance(outcome, rewrite.WaitForLua):
                outcome = await self._set_by_lua(request, outcome)
            step = self._rewrite(request, outcome, at_server=False)
            plan = request.plan
            if step is not _NEXT:
                return step
        if plan.rewrite_hooks:
            step = await self._hooks(request, plan.rewrite_hooks, Phase.REWRITE)
            if step is not _NEXT:
                return step
        if plan.rewrite is not None and not plan.rewrite_first:
            step = await self._lua_handler(request, plan.rewrite, Phase.REWRITE)
            if step is not _NEXT:
                return step
        step = await self._access(request, plan)
        if step is not _NEXT:
            if plan.settings.auth_delay and step == _UNAUTHORIZED:
                request.log(_INFO, b"delaying unauthorized request")
                await detach(request)
                await trio.sleep(plan.settings.auth_delay)
            return step
        if plan.location.try_files is not None:
            step = await self._try_files(request, plan)
            if step is not _NEXT:
                return step
        if plan.precontent is not None:
            step = await self._handler(request, plan.precontent, Phase.PRECONTENT)
            if step is not _NEXT:
                return step
        content = plan.content
        if content is None:
            if plan.module_content is not None:
                return await self._module_content(request, plan.module_content)
            for hook in plan.files_hooks:
                status = await self._python_hook(request, hook)
                if status != _DECLINED:
                    return self._conclude(request) if status is None else Status(status)
            return await self._static(request, plan)
        if plan.settings.lua_need_request_body:
            status = await self._need_body(request)
            if status:
                return Status(status)
        path = None if content.code.path is None else lua.handler_path(request, content.code)
        # where filters wait the response is not ended with the handler
        run = lua.run if plan.filters_wait else lua.content
        return await self._after_content(
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
                return await self._after_content(request, result)
            step = await self._after_handler(request, result, phase)
            if phase is Phase.ACCESS:
                satisfy = request.plan.settings.satisfy
                if self._judge(Gate(satisfy), step) is not Decision.FINISH:
                    step = _NEXT
            if step is not _NEXT:
                return step
            index += 1
            handler, phase = chain[index]
            if phase is Phase.CONTENT:
                result = lua.content(request.id, handler.number, int(phase), None, None)
            else:
                result = lua.run(request.id, handler.number, int(phase), None)

    async def _need_body(self, request: Request) -> int:
        """lua_need_request_body: read the body; the status of a failure, else 0."""
        if self._lua.get(request.id, b"body_read"):
            return 0
        kind, data = await self._read_body(request)
        if kind == FAILED:
            assert isinstance(data, int)
            return data
        self._lua.store_body(request.id, kind, data)
        return 0

    async def _read_body(self, request: Request) -> tuple[int, bytes | int]:
        return await read_body(request, self._lua.config.prefix)

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
            return _NEXT
        if isinstance(outcome, rewrite.Broke):
            if outcome.rewritten:
                request.rewritten = True
                lua.put(request.id, b"internal", True)
            return _NEXT
        if isinstance(outcome, rewrite.Restart):
            lua.put(request.id, b"internal", True)
            if at_server:
                return _NEXT
            failed = self._count_change(request, b'processing "' + request.uri + b'"')
            return failed or Goto()
        if isinstance(outcome, rewrite.Redirect):
            return self._redirect_to(request, outcome.status, outcome.target)
        if isinstance(outcome, rewrite.Finish):
            if outcome.text is None:
                return Status(outcome.status)
            return self._text(request, outcome.status, outcome.text)
        return Status(500)

    def _redirect_to(self, request: Request, status: int, target: bytes) -> Step:
        """A redirect that the configuration or a file asks for."""
        if isinstance(request, Subrequest):
            request.set_header(b"Location", target)
            return Status(status)
        _peer, _port, address, port = request.connection.addresses()
        location = special.absolute_location(
            target,
            request.plan.settings,
            scheme=b"https" if request.connection.tls else b"http",
            host=self._lua.get(request.id, b"host") or b"",
            port=int(port or 0),
            name=special.server_name(request.server.server),
            address=address,
        )
        # what is absolute already is a header like any other to nginx
        request.set_header(b"Location", location, early=target.startswith(b"/"))
        return Status(status)

    def _text(self, request: Request, status: int, text: bytes) -> Step:
        """``return code text``."""
        kind = special.text_type(request, request.plan.settings)
        return self._respond(request, status, kind, text)

    def _respond(self, request: Request, status: int, kind: bytes | None, body: bytes) -> Step:
        if request.plan.filters_wait:
            waiting = self._lua.waiting.response(request, b"respond", status, kind, body)
            return Later(waiting, self._responded)
        return self._responded(request, self._lua.respond(request.id, status, kind, body))

    def _responded(self, request: Request, result: Any) -> Step:
        if isinstance(result, tuple):
            return Status(result[1])
        self._output(request, result)
        return self._conclude(request)

    async def _access(self, request: Request, plan: Plan) -> Step:
        settings = plan.settings
        rules = plan.rules
        if isinstance(request, Subrequest) or (
            plan.access is None and not rules and not plan.access_hooks
        ):
            return _NEXT
        gate = Gate(settings.satisfy)
        if plan.access_first:
            step = await self._lua_handler(request, plan.access, Phase.ACCESS)
            decision = self._judge(gate, step)
            if decision is Decision.FINISH:
                return step
            if decision is Decision.DONE:
                return _NEXT
        if rules:
            peer = request.connection.addresses()[0].decode()
            decision = gate.rules(rules, peer, request)
            if decision is Decision.DONE:
                return _NEXT
            if decision is Decision.FINISH:
                return Status(403)
        for hook in plan.access_hooks:
            step = await self._hooks(request, (hook,), Phase.ACCESS)
            decision = self._judge(gate, step)
            if decision is Decision.FINISH:
                return step
            if decision is Decision.DONE:
                return _NEXT
        if plan.access is not None and not plan.access_first:
            step = await self._lua_handler(request, plan.access, Phase.ACCESS)
            decision = self._judge(gate, step)
            if decision is Decision.FINISH:
                return step
            if decision is Decision.DONE:
                return _NEXT
        refusal = gate.finish(request)
        return _NEXT if refusal is None else Status(refusal)

    @staticmethod
    def _judge(gate: Gate, step: Step) -> Decision:
        """What the end of a handler says about access."""
        if step is _NEXT:
            return gate.take(0)
        if isinstance(step, Status):
            return gate.take(None if step.code == _DECLINED else step.code)
        return Decision.FINISH

    async def _try_files(self, request: Request, plan: Plan) -> Step:
        outcome = await static.try_files(request, plan.files, rewritten=request.rewritten)
        if isinstance(outcome, InternalRedirect):
            return self._redirect(request, outcome.uri, outcome.args)
        if isinstance(outcome, int):
            return Status(outcome)
        request.below_alias = outcome.below_alias
        return _NEXT

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
            return self._conclude(request)
        if isinstance(outcome, InternalRedirect):
            return self._redirect(request, outcome.uri, outcome.args)
        if isinstance(outcome, Redirect):
            return self._redirect_to(request, outcome.status, outcome.target)
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

    def _redirect(self, request: Request, uri: bytes, args: bytes | None) -> Step:
        """An internal redirect to a path or a named location."""
        failed = self._count_change(request, b'internally redirecting to "' + uri + b'"')
        if failed is not None:
            return failed
        self._lua.restart(request.id)
        request.rewritten = request.below_alias = False
        if uri.startswith(b"@"):
            return Goto(uri)
        request.set_uri(uri)
        request.set_args(args)
        return Goto(server=True)

    # ------------------------------------------------------------ Lua steps

    async def _finish(self, request: Request, result: object) -> object:
        """Run a handler that has suspended to its end."""
        if not request.plan.settings.lua_check_client_abort:
            return await self._driver.finish(request, result)

        def gone() -> None:
            request.log(_INFO, b"client prematurely closed connection")
            if self._lua.client_gone(request.id):
                return
            request.connection.abort()
            assert request.cancel_scope is not None
            request.cancel_scope.cancel()

        await detach(request)
        async with request.connection.watched(gone):
            return await self._driver.finish(request, result)

    async def _handler(self, request: Request, handler: Handler, phase: Phase) -> Step:
        """A handler of a phase before content."""
        lua = self._lua
        path = None if handler.code.path is None else lua.handler_path(request, handler.code)
        return await self._after_handler(
            request, lua.run(request.id, handler.number, int(phase), path), phase
        )

    async def _lua_handler(self, request: Request, handler: Handler | None, phase: Phase) -> Step:
        """The same, behind the request body that ``lua_need_request_body`` asks for."""
        assert handler is not None
        if request.plan.settings.lua_need_request_body:
            status = await self._need_body(request)
            if status:
                return Status(status)
        return await self._handler(request, handler, phase)

    async def _after_handler(self, request: Request, result: object, phase: Phase) -> Step:
        lua = self._lua
        if result.__class__ is tuple and result[0] == Outcome.SUSPENDED:
            result = await self._finish(request, result)
            if result == 0 and lua.get(request.id, b"header_sent"):
                result = Outcome.SENT
        if result == Outcome.DONE:
            return _NEXT
        if result == Outcome.SENT:
            return self._conclude(request)
        return self._left(request, result, phase)

    # -------------------------------------------------------------- modules

    async def _hooks(self, request: Request, hooks: Sequence[Hook], phase: Phase) -> Step:
        """Hooks of modules in a phase before content."""
        for hook in hooks:
            if hook.function is None:
                result = self._lua.run_hook(request.id, hook.kind, hook.name, int(phase))
                step = await self._after_handler(request, result, phase)
            else:
                status = await self._python_hook(request, hook)
                step = _NEXT if status is None else Status(status)
            if step is not _NEXT:
                return step
        return _NEXT

    async def _module_content(self, request: Request, hook: Hook) -> Step:
        """The content handler of a module."""
        lua = self._lua
        if hook.function is None:
            return await self._after_content(request, lua.run_content_hook(request.id, hook.name))
        if not lua.get(request.id, b"ct"):
            kind = special.text_type(request, request.plan.settings)
            request.set_header(b"Content-Type", kind)
        status = await self._python_hook(request, hook)
        return self._conclude(request) if status is None else Status(status)

    async def _python_hook(self, request: Request, hook: Hook) -> int | None:
        # It may await what it likes, which only a task of its own can.
        await detach(request)
        try:
            return await hook.function(request, hook.value)  # type: ignore[no-any-return, misc]
        except Exception:
            request.log(_ERROR, b"%b failed: " % hook.name + traceback.format_exc().encode())
            return 500

    async def _after_content(self, request: Request, result: object) -> Step:
        if result.__class__ is tuple:
            assert isinstance(result, tuple)
            if result[0] == Outcome.SUSPENDED:
                result = await self._finish(request, result)
            elif result[0] == Outcome.CONCLUDED:
                self._output(request, result[1])
                request.keepalive = result[2]
                return _DONE
        if result == Outcome.DONE or result == Outcome.SENT:
            return self._conclude(request)
        return self._left(request, result, Phase.CONTENT)

    def _left(self, request: Request, result: object, phase: Phase) -> Step:
        """A handler that did not simply return."""
        lua = self._lua
        outcome = result[0] if isinstance(result, tuple) else result
        if outcome == Outcome.EXIT:
            assert isinstance(result, tuple)
            return self._exit(request, int(result[1]), phase)
        if outcome == Outcome.EXEC:
            assert isinstance(result, tuple)
            uri, args = result[1], result[2] if len(result) > 2 else None
            if uri.startswith(b"@"):
                if args:
                    request.log(
                        5,
                        b"query strings " + args + b" ignored when exec'ing named location " + uri,
                    )
                args = request.args
            return self._redirect(request, uri, args)
        if outcome == Outcome.JUMP:
            failed = self._count_change(request, b'processing "' + request.uri + b'"')
            lua.restart(request.id)
            return failed or Goto()
        assert isinstance(result, tuple)
        if outcome == Outcome.LOAD_FAILED:
            request.log(_ERROR, result[1])
            return Status(404 if result[2] else 500)
        message, trace = result[1], result[2]
        request.log(
            _ERROR,
            b"lua entry thread aborted: runtime error: "
            + message
            + b"\nstack traceback:\n"
            + trace,
        )
        return Status(500)

    def _exit(self, request: Request, code: int, phase: Phase) -> Step:
        lua = self._lua
        if code == 0 or code == _DECLINED:
            _status, sent, buffered, _complete, _broken = lua.response_state(request.id)
            if sent or buffered or (phase is Phase.CONTENT and code == 0):
                return self._conclude(request)
            # nobody is left to take a request that the content handler declined
            if phase is Phase.CONTENT or (phase is Phase.ACCESS and code == _DECLINED):
                return Status(code)
            return _NEXT
        if 200 <= code < 300 and code != 204:
            return self._conclude(request)
        return Status(code)

    # ------------------------------------------------------------ responses

    @staticmethod
    def _three(result: tuple[object, ...]) -> tuple[bytes, bool, int | None]:
        data, keepalive = result[0], result[1]
        assert isinstance(data, bytes)
        code = result[2] if len(result) > 2 else None
        assert code is None or isinstance(code, int)
        return data, bool(keepalive), code

    def _output(self, request: Request, data: bytes) -> None:
        if data:
            request.connection.write(data)

    def _conclude(self, request: Request) -> Step:
        """End the response of what has produced it."""
        if request.plan.filters_wait:
            return Later(self._lua.waiting.response(request, b"conclude"), self._concluded)
        return self._concluded(request, self._lua.conclude(request.id))

    def _concluded(self, request: Request, result: tuple[object, ...]) -> Step:
        data, keepalive, code = self._three(result)
        if code is not None:
            return Status(code)
        self._output(request, data)
        request.keepalive = keepalive
        return _DONE

    async def _special(self, request: Request, code: int) -> Step:
        """The response of a bare status: ``error_page``, or nginx's own page."""
        lua = self._lua
        request.status = code
        if isinstance(request, Subrequest):
            if code in _TERMINATED or (code < 0 and request.header_sent):
                lua.put(request.id, b"status", max(code, 0))
                self.subrequests.terminate(request)
                return _DONE
            if request.captured:
                self.subrequests.fail(request, code)
                return _DONE
        if code in _TERMINATED or code < 0:
            if code > 0 or not request.header_sent:
                lua.put(request.id, b"status", max(code, 0))
            request.connection.abort()
            return _DONE
        _status, header_sent, buffered, _complete, broken = lua.response_state(request.id)
        if broken:
            return _DONE
        if header_sent and not buffered:
            # too late for another response: what was promised cannot be kept
            request.connection.abort()
            return _DONE
        settings = request.plan.settings
        if code >= 300 and (not request.error_page or settings.recursive_error_pages):
            error_page = special.find(settings.error_pages, code)
            if error_page is not None:
                return self._error_page(request, code, error_page)
        return self._page(request, code)

    def _error_page(self, request: Request, code: int, error_page: ErrorPage) -> Step:
        lua = self._lua
        request.error_page = True
        target = special.error_target(request, error_page, code)
        lua.reset_response(request.id)
        if isinstance(target, Redirect):
            request.set_header(b"Location", target.target)
            return self._page(request, target.status)
        lua.put(request.id, b"err_status", target.status)
        if special.closes_connection(code):
            lua.put(request.id, b"keepalive", False)
        if target.as_get:
            lua.put(request.id, b"method", b"GET")
        return self._redirect(request, target.jump.uri, target.jump.args)

    def _page(self, request: Request, code: int) -> Step:
        lua = self._lua
        lua.reset_response(request.id)
        lua.put(request.id, b"err_status", None)
        page = special.page(
            request,
            code,
            request.plan.settings,
            product=lua.product,
            minor=lua.get(request.id, b"minor"),
        )
        if page.close:
            lua.put(request.id, b"keepalive", False)
        return self._respond(request, page.status, page.content_type, page.body or b"")

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
