"""What nginx does with a status that has no response yet: ``error_page``, and the pages it makes.

A status first looks for an ``error_page``, which leads to another request inside the server or to a
redirect. Without one, a small HTML page is sent; some statuses end the connection, too. The
functions here choose and compose; the engine jumps and sends. The rule that makes a redirect's
bare path an absolute URL is here as well.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from trio_lua.config.model import ErrorPage, Server, Settings
from trio_lua.http import mime, pages
from trio_lua.http.status import wire_status
from trio_lua.phases.rewrite import InternalRedirect, Redirect, jump
from trio_lua.request.exchange import Exchange

__all__ = [
    "ErrorTarget",
    "Page",
    "absolute_location",
    "closes_connection",
    "error_target",
    "find",
    "page",
    "server_name",
    "skips_lingering",
    "text_type",
]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CLOSING = frozenset({400, 413, 414, 495, 496, 497, 500, 501})
_NOT_LINGERING = frozenset({400, 495, 496, 497})


def closes_connection(status: int) -> bool:
    """Whether a status ends keep-alive: the bounds of the next request may not be known."""
    return status in _CLOSING


def skips_lingering(status: int) -> bool:
    """Whether the rest of the request is not even waited for before the connection is closed."""
    return status in _NOT_LINGERING


# ------------------------------------------------------------------------------ error_page


@dataclass(frozen=True, slots=True)
class ErrorTarget:
    """Where an ``error_page`` leads inside the server.

    ``status`` is what the response will have: None leaves that to the target. ``as_get`` asks for
    the method to become GET (HEAD stays HEAD).
    """

    jump: InternalRedirect
    status: int | None
    as_get: bool


def find(error_pages: Sequence[ErrorPage], status: int) -> ErrorPage | None:
    """The ``error_page`` of a status: the first that lists it."""
    for page in error_pages:
        if status in page.codes:
            return page
    return None


def error_target(exchange: Exchange, page: ErrorPage, status: int) -> ErrorTarget | Redirect:
    """Evaluate an ``error_page``.

    Returns:
        A jump inside the server, or a redirect for a URI that is neither a path nor a name. The
        redirect is sent as it is: no ``error_page`` of its own status applies.
    """
    response = page.response
    if response is None:
        response = wire_status(status)
    target = exchange.evaluate(page.uri)
    if target.startswith(b"/"):
        as_get = exchange.method not in (b"GET", b"HEAD")
        return ErrorTarget(jump(target), response or None, as_get)
    if target.startswith(b"@"):
        return ErrorTarget(jump(target), response or None, False)
    return Redirect(page.response if page.response in _REDIRECTS else 302, target)


# ----------------------------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True)
class Page:
    """The response that nginx makes for a status.

    Whoever sends it takes back the headers of the response it replaces: Content-Type,
    Content-Length, Accept-Ranges, Last-Modified and ETag.

    Attributes:
        status: What the client sees; nginx's own codes for a bad request are 400 there.
        content_type: None when there is no body.
        body: None when the status has no page: the body is empty then.
        close: Whether the connection has to end after it.
        linger: Whether, if it ends, the rest of the request is waited for.
    """

    status: int
    content_type: bytes | None
    body: bytes | None
    close: bool
    linger: bool


def page(
    exchange: Exchange, status: int, settings: Settings, *, product: str, minor: int = 1
) -> Page:
    """Compose the page of a status.

    Args:
        settings: Of the location.
        product: The server's name with its version, cut off when ``server_tokens`` is off.
        minor: The minor version of HTTP/1 the client speaks.
    """
    padding = settings.msie_padding and pages.wants_padding(exchange.header(b"user-agent"), minor)
    name = product if settings.server_tokens else product.partition("/")[0]
    body = pages.error_page(status, name, padding) or None
    return Page(
        wire_status(status),
        None if body is None else b"text/html",
        body,
        close=closes_connection(status),
        linger=not skips_lingering(status),
    )


def text_type(exchange: Exchange, settings: Settings) -> bytes:
    """The type of a ``return``'s text: that of a file with the request's path; may be empty."""
    return mime.lookup(exchange.uri, settings.types, settings.default_type).encode()


# ------------------------------------------------------------------------------- redirects


def server_name(server: Server) -> bytes:
    """The name of a server that redirects may use (``$server_name``): the first, without its dot."""
    name = server.names[0] if server.names else ""
    if not name.startswith("~"):
        name = (socket.gethostname() if name.lower() == "$hostname" else name).lower()
    return name.removeprefix(".").encode("utf-8", "surrogateescape")


def absolute_location(
    target: bytes,
    settings: Settings,
    *,
    scheme: bytes,
    host: bytes,
    port: int,
    name: bytes = b"",
    address: bytes = b"",
) -> bytes:
    """A redirect's ``Location`` as it is sent: a bare path becomes a URL.

    Args:
        target: The location as the configuration or a handler gave it.
        settings: Of the location: ``absolute_redirect`` and its companions.
        scheme: ``b"http"`` or ``b"https"``.
        host: The host the client asked for, without port; empty when it named none.
        port: The port the connection came in at; 0 for a unix socket.
        name: From :func:`server_name`.
        address: The address the connection came in at, for clients that named no host.
    """
    if not settings.absolute_redirect or not target.startswith(b"/"):
        return target
    if settings.server_name_in_redirect:
        host = name
    elif not host:
        host = address
    url = scheme + b"://" + host
    if settings.port_in_redirect and port and port != (443 if scheme == b"https" else 80):
        url += b":%d" % port
    return url + target
