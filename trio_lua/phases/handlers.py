"""Handlers in Lua and in Python modules: running them, and what follows from how they end.

What each outcome of a Lua handler means in each phase is the table of ``ngx.exit`` in OpenResty: 0 and -5 go on
with the next phase, 2xx ends the response with that status, 3xx to 5xx ask for the status's page, -1
and 444 drop the connection.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from trio_lua.api.body import FAILED, read_body
from trio_lua.api.modules import Hook
from trio_lua.api.runtime import Runtime
from trio_lua.lua.driver import Outcome, detach
from trio_lua.phases import special
from trio_lua.phases.plan import Handler
from trio_lua.phases.responses import Responses
from trio_lua.phases.step import DECLINED, DONE, NEXT, Goto, Status, Step, change_uri, redirect
from trio_lua.request.phase import Phase
from trio_lua.request.state import Request

__all__ = ["Handlers"]

_ERROR, _WARN, _INFO = 4, 5, 7


class Handlers:
    """Runs the handlers of locations.

    Args:
        runtime: The VM.
        responses: What ends their responses.
    """

    def __init__(self, runtime: Runtime, responses: Responses) -> None:
        self._lua = runtime
        self._responses = responses

    async def _finish(self, request: Request, result: object) -> object:
        """Run a handler that has suspended to its end."""
        settings = request.plan.settings
        if settings.lua_request_timeout or hasattr(request, "bounded"):
            assert isinstance(result, tuple)
            result = self._lua.bound(request.id, settings.lua_request_timeout, *result)
        if not settings.lua_check_client_abort:
            return await self._lua.driver.finish(request, result)

        def gone() -> None:
            request.log(_INFO, b"client prematurely closed connection")
            if self._lua.client_gone(request.id):
                return
            request.connection.abort()
            assert request.cancel_scope is not None
            request.cancel_scope.cancel()

        if request.inline:
            self._lua.driver.expect(request, result)
            await detach(request)
        async with request.connection.watched(gone):
            return await self._lua.driver.finish(request, result)

    async def run(self, request: Request, handler: Handler, phase: Phase) -> Step:
        """A handler of a phase before content."""
        lua = self._lua
        path = None if handler.code.path is None else lua.handler_path(request, handler.code)
        return await self.after(
            request, lua.run(request.id, handler.number, int(phase), path), phase
        )

    async def run_with_body(self, request: Request, handler: Handler | None, phase: Phase) -> Step:
        """The same, behind the request body that ``lua_need_request_body`` asks for."""
        assert handler is not None
        if request.plan.settings.lua_need_request_body:
            status = await self.need_body(request)
            if status:
                return Status(status)
        return await self.run(request, handler, phase)

    async def after(self, request: Request, result: object, phase: Phase) -> Step:
        """What comes behind a handler of a phase before content; ``result`` is what it was left with."""
        lua = self._lua
        if result.__class__ is tuple and result[0] == Outcome.SUSPENDED:
            result = await self._finish(request, result)
            if result == 0 and lua.get(request.id, b"header_sent"):
                result = Outcome.SENT
        if result == Outcome.DONE:
            return NEXT
        if result == Outcome.SENT:
            return self._responses.conclude(request)
        return self._left(request, result, phase)

    async def run_hooks(self, request: Request, hooks: Sequence[Hook], phase: Phase) -> Step:
        """Hooks of modules in a phase before content."""
        for hook in hooks:
            if hook.function is None:
                result = self._lua.run_hook(request.id, hook.kind, hook.name, int(phase))
                step = await self.after(request, result, phase)
            else:
                status = await self.run_python_hook(request, hook)
                step = NEXT if status is None else Status(status)
            if step is not NEXT:
                return step
        return NEXT

    async def run_content_hook(self, request: Request, hook: Hook) -> Step:
        """The content handler of a module."""
        lua = self._lua
        if hook.function is None:
            return await self.after_content(request, lua.run_content_hook(request.id, hook.name))
        if not lua.get(request.id, b"ct"):
            kind = special.text_type(request, request.plan.settings)
            request.set_header(b"Content-Type", kind)
        status = await self.run_python_hook(request, hook)
        return self._responses.conclude(request) if status is None else Status(status)

    async def run_python_hook(self, request: Request, hook: Hook) -> int | None:
        """A hook that is a Python function; its status, 500 if it raises."""
        # It may await what it likes, which only a task of its own can.
        await detach(request)
        try:
            return await hook.function(request, hook.value)  # type: ignore[no-any-return, misc]
        except Exception:
            request.log(_ERROR, b"%b failed: " % hook.name + traceback.format_exc().encode())
            return 500

    async def after_content(self, request: Request, result: object) -> Step:
        """The same for a content handler."""
        if result.__class__ is tuple:
            assert isinstance(result, tuple)
            if result[0] == Outcome.SUSPENDED:
                result = await self._finish(request, result)
            elif result[0] == Outcome.CONCLUDED:
                self._responses.output(request, result[1])
                request.keepalive = result[2]
                return DONE
        if result == Outcome.DONE or result == Outcome.SENT:
            return self._responses.conclude(request)
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
                        _WARN,
                        b"query strings " + args + b" ignored when exec'ing named location " + uri,
                    )
                args = request.args
            return redirect(self._lua, request, uri, args)
        if outcome == Outcome.JUMP:
            failed = change_uri(request, b'processing "' + request.uri + b'"')
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
        if code == 0 or code == DECLINED:
            _status, sent, buffered, _complete, _broken = lua.response_state(request.id)
            if sent or buffered or (phase is Phase.CONTENT and code == 0):
                return self._responses.conclude(request)
            # nobody is left to take a request that the content handler declined
            if phase is Phase.CONTENT or (phase is Phase.ACCESS and code == DECLINED):
                return Status(code)
            return NEXT
        if 200 <= code < 300 and code != 204:
            return self._responses.conclude(request)
        return Status(code)

    async def need_body(self, request: Request) -> int:
        """``lua_need_request_body``: read the body; the status of a failure, else 0."""
        if self._lua.get(request.id, b"body_read"):
            return 0
        kind, data = await read_body(request, self._lua.config.prefix)
        if kind == FAILED:
            assert isinstance(data, int)
            return data
        self._lua.store_body(request.id, kind, data)
        return 0
