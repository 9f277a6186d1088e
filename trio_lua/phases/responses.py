"""The ends of responses: what a status without a response gets, short texts, redirects.

A response of the server itself may still be replaced, by a filter's ``ngx.exit`` or an ``error_page``. So each of
these functions tells what comes next (:mod:`trio_lua.phases.step`).
"""

from __future__ import annotations

from typing import Any

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import ErrorPage
from trio_lua.phases import special
from trio_lua.phases.rewrite import Redirect
from trio_lua.phases.step import DONE, Later, Status, Step, redirect
from trio_lua.phases.subrequest import Subrequest, Subrequests
from trio_lua.request.state import Request

__all__ = ["Responses"]

#: Statuses that nginx records without sending them: request time-out, 444, client closed request.
_TERMINATED = frozenset((408, 444, 499))


class Responses:
    """Makes and ends responses.

    Args:
        runtime: The VM.
        subrequests: Who gets the end of a request that another one has made.
    """

    def __init__(self, runtime: Runtime, subrequests: Subrequests) -> None:
        self._lua = runtime
        self._subrequests = subrequests

    def redirect(self, request: Request, status: int, target: bytes) -> Step:
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

    def text(self, request: Request, status: int, text: bytes) -> Step:
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
        self.output(request, result)
        return self.conclude(request)

    @staticmethod
    def _three(result: tuple[object, ...]) -> tuple[bytes, bool, int | None]:
        data, keepalive = result[0], result[1]
        assert isinstance(data, bytes)
        code = result[2] if len(result) > 2 else None
        assert code is None or isinstance(code, int)
        return data, bool(keepalive), code

    def output(self, request: Request, data: bytes) -> None:
        """Send bytes of a response."""
        if data:
            request.connection.write(data)

    def conclude(self, request: Request) -> Step:
        """End the response of what has produced it."""
        if request.plan.filters_wait:
            return Later(self._lua.waiting.response(request, b"conclude"), self._concluded)
        return self._concluded(request, self._lua.conclude(request.id))

    def _concluded(self, request: Request, result: tuple[object, ...]) -> Step:
        data, keepalive, code = self._three(result)
        if code is not None:
            return Status(code)
        self.output(request, data)
        request.keepalive = keepalive
        return DONE

    def of_status(self, request: Request, code: int) -> Step:
        """The response of a bare status: ``error_page``, or nginx's own page."""
        lua = self._lua
        request.status = code
        if isinstance(request, Subrequest):
            if code in _TERMINATED or (code < 0 and request.header_sent):
                lua.put(request.id, b"status", max(code, 0))
                self._subrequests.terminate(request)
                return DONE
            if request.captured:
                self._subrequests.fail(request, code)
                return DONE
        if code in _TERMINATED or code < 0:
            if code > 0 or not request.header_sent:
                lua.put(request.id, b"status", max(code, 0))
            request.connection.abort()
            return DONE
        _status, header_sent, buffered, _complete, broken = lua.response_state(request.id)
        if broken:
            return DONE
        if header_sent and not buffered:
            # too late for another response: what was promised cannot be kept
            request.connection.abort()
            return DONE
        settings = request.plan.settings
        if code >= 300 and request.error_pages and settings.error_pages:
            request.error_pages = settings.recursive_error_pages
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
        return redirect(self._lua, request, target.jump.uri, target.jump.args)

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
