"""Access by the result of a subrequest: nginx's auth_request module.

A status of 2xx grants access, 401 and 403 refuse it, any other is an error. ``auth_request_set`` evaluates its
value in the subrequest, when that has ended.
"""

from __future__ import annotations

from trio_lua.config.directives import Context, Use, takes
from trio_lua.config.model import Template
from trio_lua.http.uri import parse_unsafe
from trio_lua.request.module import Exchange, Module

__all__ = ["MODULE"]

MODULE = Module("auth_request")

_ERR = 4
_DECLINED, _UNAUTHORIZED, _FORBIDDEN = -5, 401, 403

_PLACES = Context.SETTING


@MODULE.directive("auth_request", _PLACES, takes(1))
def _auth_request(use: Use) -> None:
    target = use.args[0]
    use.put_setting("auth_request", None if target == "off" else target.encode())


@MODULE.directive("auth_request_set", _PLACES, takes(2))
def _auth_request_set(use: Use) -> None:
    use.append_setting("auth_request_set", (use.variable(), use.template(1)))


@MODULE.access("auth_request")
async def _check(request: Exchange, target: bytes | None) -> int | None:
    if target is None:
        return _DECLINED
    uri, args = parse_unsafe(target) or (target, None)
    async with request.subrequest(uri, args) as sub:
        settings: list[tuple[str, Template]] = request.setting("auth_request_set") or []
        for name, value in settings:
            request.set_variable(name, sub.evaluate(value))
        status = sub.response_status
        if 200 <= status < 300:
            return None
        if status == _UNAUTHORIZED:
            challenge = sub.variable(b"sent_http_www_authenticate")
            if challenge:
                request.set_header(b"WWW-Authenticate", challenge)
            return status
        if status == _FORBIDDEN:
            return status
    request.log(_ERR, b"auth request unexpected status: %d" % status)
    return 500
