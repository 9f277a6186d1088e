"""A reverse proxy: nginx's proxy module for one HTTP/1 server.

``proxy_pass http://host[:port][/uri]`` sends the request there and the response to the client. As in nginx the request
is HTTP/1.0, one per connection, names the upstream server as its host and leaves the headers out that are the
connection's own. The server may be a name, an address or ``unix:path:``; variables may stand everywhere in it.

There are no groups of servers (``upstream``), no TLS to the server, no cache and no upgrade of the protocol. Responses
are never buffered (what ``proxy_buffering off`` asks of nginx), request bodies always are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h11
import trio

from trio_lua.config.directives import Context, Use, takes
from trio_lua.config.model import MatchKind, Template, Var
from trio_lua.errors import ProtocolError
from trio_lua.http.uri import Escape, escape
from trio_lua.modules.proxy.upstream import Transfer
from trio_lua.phases import special
from trio_lua.request.module import Module
from trio_lua.request.state import Request

__all__ = ["MODULE"]

MODULE = Module("proxy", lua=Path(__file__).with_name("proxy.lua"))

_PLACES = Context.SETTING

#: Settings that hold for what is never done here: nothing is buffered in the response, there is one server.
_ACCEPTED = {
    "proxy_buffers": takes(2),
    "proxy_busy_buffers_size": takes(1),
    "proxy_request_buffering": takes(1),
    "proxy_next_upstream": takes(1, None),
    "proxy_next_upstream_tries": takes(1),
    "proxy_next_upstream_timeout": takes(1),
}

# ---------------------------------------------------------------------- configuration


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of an upstream server's URL.

    Attributes:
        host: A name, an address, ``[...]`` around one of IPv6, or ``unix:path``.
        port: The port; 0 for a Unix socket.
        uri: What follows, "" for nothing.
        name: ``$proxy_host``.
        port_text: ``$proxy_port``.
    """

    host: str
    port: int
    uri: str
    name: str
    port_text: str


@dataclass(frozen=True, slots=True)
class Target:
    """What ``proxy_pass`` says.

    Attributes:
        text: Its argument.
        location: The path of the location, whose place the URI of the argument takes.
    """

    text: Template
    location: str


def parse_url(text: str) -> Url:
    """The parts of a URL.

    Raises:
        ValueError: It is not valid; the error is the message.
    """
    if text[:8].lower() == "https://":
        raise ValueError("https protocol is not supported for upstream servers")
    if text[:7].lower() != "http://":
        raise ValueError("invalid URL prefix")
    rest = text[7:]
    if rest[:5].lower() == "unix:":
        path, _, uri = rest[5:].partition(":")
        if not path:
            raise ValueError("no path in the unix domain socket")
        return Url(f"unix:{path}", 0, uri, "localhost", "")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    authority, uri = rest[:end], rest[end:]
    if uri and not uri.startswith("/"):
        uri = "/" + uri
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, ""
    if not host:
        raise ValueError("no host")
    if not colon or not port:
        return Url(host, 80, uri, host, "80")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("invalid port")
    return Url(host, int(port), uri, host if int(port) == 80 else authority, port)


#: Locations that are chosen by the beginning of the path, or all of it.
_PLAIN = (MatchKind.EXACT, MatchKind.PREFIX, MatchKind.PREFIX_FINAL)


@MODULE.directive(
    "proxy_pass", Context.LOCATION | Context.LOCATION_IF | Context.LIMIT_EXCEPT, takes(1)
)
def _pass(use: Use) -> None:
    target = Target(use.template(0), use.location.path)
    literal = target.text.literal
    try:
        if literal is not None:
            if parse_url(literal).uri and use.location.kind not in _PLAIN:
                raise ValueError(
                    '"proxy_pass" cannot have URI part in location given by regular expression, or inside named '
                    'location, or inside "if" statement, or inside "limit_except" block'
                )
        elif use.args[0].lower().startswith("https:"):
            parse_url(use.args[0])
    except ValueError as error:
        raise use.error(str(error)) from None
    use.set_content("proxy", target)
    path = use.location.path
    if use.location.kind in _PLAIN and path.endswith("/"):
        use.location.values["auto_redirect"] = len(path) > 1


def _accept(use: Use) -> None:
    use.put_setting(use.name, True)


for _name, _arity in _ACCEPTED.items():
    MODULE.directive(_name, _PLACES, _arity)(_accept)


@MODULE.directive("proxy_connect_timeout", _PLACES, takes(1))
@MODULE.directive("proxy_read_timeout", _PLACES, takes(1))
@MODULE.directive("proxy_send_timeout", _PLACES, takes(1))
def _timeout(use: Use) -> None:
    use.put_setting(use.name, use.time())


@MODULE.directive("proxy_buffer_size", _PLACES, takes(1))
def _buffer_size(use: Use) -> None:
    use.put_setting(use.name, use.size())


@MODULE.directive("proxy_pass_request_headers", _PLACES, takes(1))
@MODULE.directive("proxy_pass_request_body", _PLACES, takes(1))
@MODULE.directive("proxy_ignore_client_abort", _PLACES, takes(1))
@MODULE.directive("proxy_buffering", _PLACES, takes(1))
@MODULE.directive("proxy_intercept_errors", _PLACES, takes(1))
def _switch(use: Use) -> None:
    use.put_setting(use.name, use.switch())


@MODULE.directive("proxy_method", _PLACES, takes(1))
@MODULE.directive("proxy_set_body", _PLACES, takes(1))
def _text(use: Use) -> None:
    use.put_setting(use.name, use.template(0))


@MODULE.directive("proxy_http_version", _PLACES, takes(1))
def _http_version(use: Use) -> None:
    use.put_setting(use.name, use.choice(("1.0", "1.1")).encode())


@MODULE.directive("proxy_set_header", _PLACES, takes(2))
def _set_header(use: Use) -> None:
    use.append_setting("proxy_set_header", (use.args[0].encode(), use.template(1)))


@MODULE.directive("proxy_hide_header", _PLACES, takes(1))
@MODULE.directive("proxy_pass_header", _PLACES, takes(1))
def _header_name(use: Use) -> None:
    use.append_setting(use.name, use.args[0].lower().encode())


@dataclass(frozen=True, slots=True)
class _Redirect:
    """A rule for ``Location`` and ``Refresh``: what is replaced, and by what.

    Attributes:
        pattern: The beginning, a regular expression (without its "~"), or None for ``default``.
        replacement: What takes its place.
        caseless: None unless it is a regular expression.
    """

    pattern: Template | str | None
    replacement: Template
    caseless: bool | None = None


@MODULE.directive("proxy_redirect", _PLACES, takes(1, 2))
def _redirect(use: Use) -> None:
    if len(use.args) == 1:
        if use.choice(("off", "default", "false")) == "default":
            use.append_setting("proxy_redirect", _Redirect(None, Template("", ())))
        else:
            use.append_setting("proxy_redirect", None)
        return
    word = use.args[0]
    if not word.startswith("~"):
        use.append_setting("proxy_redirect", _Redirect(use.template(0), use.template(1)))
        return
    caseless = word.startswith("~*")
    pattern = word[2:] if caseless else word[1:]
    use.build.variables.declare_groups(pattern)
    use.append_setting("proxy_redirect", _Redirect(pattern, use.template(1), caseless))


# ---------------------------------------------------------------------------- request


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _variable(name: str) -> Template:
    return Template(f"${name}", (Var(name),))


def _literal(text: str) -> Template:
    return Template(text, (text,) if text else ())


#: Headers of the request that are made anew; an empty one is left out.
_OWN_HEADERS = (
    (b"Host", _variable("proxy_host")),
    (b"Connection", _literal("close")),
    (b"Content-Length", None),
    (b"Transfer-Encoding", _literal("")),
    (b"TE", _literal("")),
    (b"Keep-Alive", _literal("")),
    (b"Expect", _literal("")),
    (b"Upgrade", _literal("")),
)


def _target_uri(request: Request, target: Target, url: Url) -> bytes:
    """What is asked for: as it came, or with the location's path replaced."""
    uri = _bytes(url.uri)
    if uri and target.text.literal is None:
        return uri
    get = request.lua.get
    raw: bytes = get(request.id, b"unparsed_uri")
    args = request.args
    _path, mark, raw_args = raw.partition(b"?")
    if (
        not uri
        and not get(request.id, b"main")
        and raw.startswith(b"/")
        and request.uri == request.target_uri
        and args == (raw_args if mark else None)
    ):
        return raw
    rest = request.uri
    if request.rewritten:
        # what has been changed in this location stands for itself
        uri = b""
    elif uri:
        rest = rest[len(_bytes(target.location)) :]
    return uri + escape(rest, Escape.URI) + (b"?" + args if args else b"")


async def _body(request: Request) -> tuple[bytes, str | None, int | None]:
    """The body, or its file, and the Content-Length."""
    text: Template | None = request.setting("proxy_set_body")
    if text is not None:
        data = request.evaluate(text)
        return data, None, len(data)
    body = await request.read_body()
    if request.header(b"content-length") is None and request.length >= 0:
        # none came, or a handler has taken it away: without a length there is nothing to send
        return b"", None, None
    file, length = None, len(body or b"")
    if body is None:
        file = (request.variable(b"request_body_file") or b"").decode("utf-8", "surrogateescape")
        length = (await trio.to_thread.run_sync(os.stat, file)).st_size
    if request.setting("proxy_pass_request_body") is False:
        return b"", None, length
    return body or b"", file, length


def _head(request: Request, method: bytes, uri: bytes, length: int | None) -> bytes:
    version = request.setting("proxy_http_version") or b"1.0"
    chosen: list[tuple[bytes, Template]] = request.setting("proxy_set_header") or []
    names = {name.lower() for name, _ in chosen}
    lines = [b"%b %b HTTP/%b\r\n" % (method, uri, version)]

    def add(name: bytes, value: bytes) -> None:
        if value:
            lines.append(b"%b: %b\r\n" % (name, value))

    for name, template in chosen:
        add(name, request.evaluate(template))
    for name, own in _OWN_HEADERS:
        if name.lower() not in names:
            names.add(name.lower())
            if own is not None:
                add(name, request.evaluate(own))
            elif length is not None:
                add(name, b"%d" % length)
    if request.setting("proxy_pass_request_headers") is not False:
        without = b"\n" + b"\n".join(names) + b"\n"
        lines.append(request.lua.vm.export("proxy_headers")(request.id, without))
    lines.append(b"\r\n")
    return b"".join(lines)


@MODULE.content("proxy")
async def _proxy(request: Request, target: Target) -> int | None:
    if request.location.auto_redirect and request.uri + b"/" == _bytes(target.location):
        place = escape(request.uri, Escape.URI) + b"/"
        args = request.args
        _set_absolute(request, b"Location", place + b"?" + args if args else place)
        return 301
    text = request.evaluate(target.text).decode("utf-8", "surrogateescape")
    try:
        url = parse_url(text)
    except ValueError as error:
        request.log(4, _bytes(f'{error} in "{text}"'))
        return 500
    uri = _target_uri(request, target, url) or b"/"
    begin = partial(_begin, request, target, url)
    transfer = Transfer(request, url.host, url.port, uri, begin)
    transfer.note(b"proxy_host", _bytes(url.name))
    transfer.note(b"proxy_port", url.port_text.encode())
    try:
        data, file, length = await _body(request)
    except ProtocolError as error:
        return error.status
    chosen: Template | None = request.setting("proxy_method")
    method = request.method if chosen is None else request.evaluate(chosen)
    head = _head(request, method, uri, length)
    return await transfer.run(method, head + data, file)


# --------------------------------------------------------------------------- response

#: Of the connection to the upstream server; never handed on.
_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding"))
#: Handed on only where proxy_pass_header says so.
_HIDDEN = frozenset(
    (
        b"date",
        b"server",
        b"x-pad",
        b"x-accel-expires",
        b"x-accel-redirect",
        b"x-accel-limit-rate",
        b"x-accel-buffering",
        b"x-accel-charset",
    )
)


def _begin(
    request: Request, target: Target, url: Url, transfer: Transfer, response: h11.Response
) -> int | None:
    """Make an upstream response's head that of the request; a status where ``error_page`` is to answer."""
    status = response.status_code
    hidden = _HIDDEN.difference(request.setting("proxy_pass_header") or ())
    hidden = hidden.union(request.setting("proxy_hide_header") or (), _HOP)
    items = [(bytes(n), bytes(n).lower(), bytes(v)) for n, v in response.headers.raw_items()]
    for _name, key, value in items:
        transfer.note(b"upstream_http_" + key.replace(b"-", b"_"), value)
    if status >= 300 and request.setting("proxy_intercept_errors"):
        pages = request.plan.settings.error_pages
        if pages and special.find(pages, status) is not None and request.error_pages:
            for name, key, value in items:
                if status == 401 and key == b"www-authenticate":
                    request.lua.add_header(request.id, name, value)
            return status
    put = request.lua.put
    request.set_status(status)
    reason = bytes(response.reason)
    put(request.id, b"status_line", b"%03d %b" % (status, reason) if reason else None)
    # a conditional request has been the upstream server's to decide
    put(request.id, b"conditional_done", True)
    # none of the location's own where the response has none
    request.lua.set_header(request.id, b"Content-Type", None, False)
    for name, key, value in items:
        if key in hidden:
            continue
        if key in (b"content-type", b"content-length", b"last-modified"):
            request.set_header(name, value, early=key == b"last-modified")
        elif key == b"location":
            _set_location(request, target, url, name, value)
        elif key == b"refresh":
            at = value.lower().find(b"url=")
            changed = None if at < 0 else _redirected(request, target, url, value[at + 4 :])
            value = value if changed is None else value[: at + 4] + changed
            request.lua.add_header(request.id, name, value)
        elif value:
            request.lua.add_header(request.id, name, value)
    return None


def _set_location(request: Request, target: Target, url: Url, name: bytes, value: bytes) -> None:
    changed = _redirected(request, target, url, value)
    if changed is None:
        request.lua.add_header(request.id, name, value)
        return
    _set_absolute(request, name, changed)


def _set_absolute(request: Request, name: bytes, target: bytes) -> None:
    variable = request.variable
    absolute = special.absolute_location(
        target,
        request.plan.settings,
        scheme=variable(b"scheme") or b"http",
        host=variable(b"host") or b"",
        port=int(variable(b"server_port") or 0),
        name=variable(b"server_name") or b"",
        address=variable(b"server_addr") or b"",
    )
    request.set_header(name, absolute, early=True)


def _redirected(request: Request, target: Target, url: Url, value: bytes) -> bytes | None:
    """What ``proxy_redirect`` makes of a URL; None when no rule applies."""
    rules: Any = request.setting("proxy_redirect")
    if rules is None:
        rules = (_Redirect(None, _literal("")),)
    for rule in rules:
        if rule is None:
            return None
        if rule.caseless is not None:
            if request.match(rule.pattern, value, caseless=rule.caseless):
                return request.evaluate(rule.replacement)
            continue
        if rule.pattern is not None:
            prefix, new = request.evaluate(rule.pattern), request.evaluate(rule.replacement)
        else:
            whole = target.text.literal
            if whole is None:
                continue
            if url.uri:
                prefix, new = _bytes(whole), _bytes(target.location)
            else:
                prefix, new = _bytes(whole) + b"/", b"/"
        if value.startswith(prefix):
            return new + value[len(prefix) :]
    return None
