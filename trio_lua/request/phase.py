"""The phases of a request's life and what is allowed in each.

The table is data: the checks that throw ``API disabled in the context of ...``, the names that
``ngx.get_phase()`` returns and the reference in ``docs/`` are all made from it. The bits are those
that lua-nginx-module uses, so ``ngx.get_raw_phase`` agrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag

__all__ = ["ALLOWED", "CONTEXT_NAMES", "PHASE_NAMES", "Phase", "allowed"]


class Phase(IntFlag):
    """One bit for each phase; combinations are sets of phases."""

    INIT = 0
    SET = 0x0001
    REWRITE = 0x0002
    ACCESS = 0x0004
    CONTENT = 0x0008
    LOG = 0x0010
    HEADER_FILTER = 0x0020
    BODY_FILTER = 0x0040
    TIMER = 0x0080
    INIT_WORKER = 0x0100
    BALANCER = 0x0200
    SSL_CERT = 0x0400
    SSL_SESS_STORE = 0x0800
    SSL_SESS_FETCH = 0x1000
    EXIT_WORKER = 0x2000
    SSL_CLIENT_HELLO = 0x4000
    SERVER_REWRITE = 0x8000
    PRECONTENT = 0x10000

    RUN = SERVER_REWRITE | REWRITE | ACCESS | PRECONTENT | CONTENT
    REQUEST = SET | RUN | HEADER_FILTER | BODY_FILTER | LOG | BALANCER
    YIELDABLE = RUN | TIMER | SSL_CERT | SSL_SESS_FETCH | SSL_CLIENT_HELLO
    ALL = 0x1FFFF


#: What ``ngx.get_phase()`` returns.
PHASE_NAMES: Mapping[Phase, str] = {
    Phase.INIT: "init",
    Phase.INIT_WORKER: "init_worker",
    Phase.EXIT_WORKER: "exit_worker",
    Phase.SSL_CLIENT_HELLO: "ssl_client_hello",
    Phase.SSL_CERT: "ssl_cert",
    Phase.SSL_SESS_FETCH: "ssl_session_fetch",
    Phase.SSL_SESS_STORE: "ssl_session_store",
    Phase.SERVER_REWRITE: "server_rewrite",
    Phase.SET: "set",
    Phase.REWRITE: "rewrite",
    Phase.ACCESS: "access",
    Phase.PRECONTENT: "precontent",
    Phase.CONTENT: "content",
    Phase.BALANCER: "balancer",
    Phase.HEADER_FILTER: "header_filter",
    Phase.BODY_FILTER: "body_filter",
    Phase.LOG: "log",
    Phase.TIMER: "timer",
}

#: The X of ``API disabled in the context of X``.
CONTEXT_NAMES: Mapping[Phase, str] = {
    Phase.SET: "set_by_lua*",
    Phase.SERVER_REWRITE: "server_rewrite_by_lua*",
    Phase.REWRITE: "rewrite_by_lua*",
    Phase.ACCESS: "access_by_lua*",
    Phase.PRECONTENT: "precontent_by_lua*",
    Phase.CONTENT: "content_by_lua*",
    Phase.LOG: "log_by_lua*",
    Phase.HEADER_FILTER: "header_filter_by_lua*",
    Phase.BODY_FILTER: "body_filter_by_lua*",
    Phase.TIMER: "ngx.timer",
    Phase.INIT_WORKER: "init_worker_by_lua*",
    Phase.EXIT_WORKER: "exit_worker_by_lua*",
    Phase.BALANCER: "balancer_by_lua*",
    Phase.SSL_CLIENT_HELLO: "ssl_client_hello_by_lua*",
    Phase.SSL_CERT: "ssl_certificate_by_lua*",
    Phase.SSL_SESS_STORE: "ssl_session_store_by_lua*",
    Phase.SSL_SESS_FETCH: "ssl_session_fetch_by_lua*",
}

_RUN = Phase.RUN
_REQUEST = Phase.REQUEST
_YIELDABLE = Phase.YIELDABLE

#: API name -> the phases that may call it. Names that are not here work everywhere.
ALLOWED: Mapping[str, Phase] = {
    "ngx.say": _RUN,
    "ngx.print": _RUN,
    "ngx.flush": _RUN,
    "ngx.eof": _RUN,
    "ngx.send_headers": _RUN,
    "ngx.exec": _RUN,
    "ngx.redirect": _RUN,
    "ngx.on_abort": _RUN,
    "ngx.req.read_body": _RUN,
    "ngx.req.discard_body": _RUN,
    "ngx.req.socket": _RUN,
    "ngx.req.get_post_args": _RUN | Phase.HEADER_FILTER | Phase.BODY_FILTER | Phase.LOG,
    "ngx.req.get_body_data": _RUN | Phase.BALANCER | Phase.LOG,
    "ngx.req.get_body_file": _RUN | Phase.BALANCER,
    "ngx.req.set_body_data": _RUN | Phase.BALANCER,
    "ngx.req.set_body_file": _RUN | Phase.BALANCER,
    "ngx.req.set_deadline": _RUN,
    "ngx.req.init_body": _RUN,
    "ngx.req.append_body": _RUN,
    "ngx.req.finish_body": _RUN,
    "ngx.location.capture": _RUN,
    "ngx.location.capture_multi": _RUN,
    "ngx.exit": _RUN
    | Phase.HEADER_FILTER
    | Phase.TIMER
    | Phase.BALANCER
    | Phase.SSL_CERT
    | Phase.SSL_SESS_FETCH
    | Phase.SSL_SESS_STORE
    | Phase.SSL_CLIENT_HELLO,
    "ngx.sleep": _YIELDABLE,
    "ngx.socket": _YIELDABLE,
    "ngx.thread": _YIELDABLE,
    "ngx.run_worker_thread": _YIELDABLE,
    "python": _YIELDABLE,
    "coroutine": _YIELDABLE,
    "request": _REQUEST,
    "request.write": _REQUEST & ~Phase.LOG,
    "jump": Phase.REWRITE | Phase.SERVER_REWRITE,
    "ngx.arg.set": Phase.SET,
    "ngx.arg.body_filter": Phase.BODY_FILTER,
    "timer": Phase.ALL & ~Phase.EXIT_WORKER,
}

#: What ``lua_strict_phases off`` allows, and where: names of waits, with ``coroutine``, through which they must find
#: their way.
_WAITS = ("ngx.sleep", "ngx.socket", "coroutine")
_LENIENT = Phase.INIT_WORKER | Phase.SET | Phase.HEADER_FILTER | Phase.BODY_FILTER | Phase.LOG


def allowed(*, strict: bool) -> Mapping[str, Phase]:
    """:data:`ALLOWED` with ``lua_strict_phases on`` (OpenResty's rules) or off."""
    if strict:
        return ALLOWED
    return {**ALLOWED, **{name: ALLOWED[name] | _LENIENT for name in _WAITS}}
