"""``ngx.var``: the variables that only Python can know."""

from __future__ import annotations

import base64
import binascii
import os
import socket
import time
from collections.abc import Callable, Mapping

from trio_lua.lua.ops import OpTable
from trio_lua.request.context import ClientConnection
from trio_lua.request.state import Request

__all__ = ["install"]


def _remote_user(authorization: bytes) -> bytes | None:
    scheme, _, rest = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, _ = base64.b64decode(rest.strip()).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return user if colon else None


def _packed(address: bytes) -> bytes:
    text = address.decode()
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        return address


def install(
    table: OpTable,
    connections: Mapping[int, ClientConnection],
    clock: Callable[[], float],
    document_root: Callable[[Request], bytes],
    request_filename: Callable[[Request], bytes],
    invalid_referer: Callable[[Request], bytes],
) -> None:
    """Add the calls of ``var.lua``.

    Args:
        table: Where to add them.
        connections: Connections by number.
        clock: Seconds since the epoch.
        document_root: The ``$document_root`` of a request.
        request_filename: The ``$request_filename`` of a request.
        invalid_referer: The ``$invalid_referer`` of a request.
    """

    def connection(number: int) -> tuple[bytes, bytes, bytes, bytes, int, int, bytes]:
        conn = connections[number]
        return (*conn.addresses(), conn.id, conn.requests, b"https" if conn.tls else b"http")

    def listen_address(number: int) -> bytes:
        return connections[number].listen

    def variable(number: int, _request: int, name: bytes) -> bytes | None:
        conn = connections[number]
        if name == b"binary_remote_addr":
            return _packed(conn.addresses()[0])
        if name == b"document_root":
            return document_root(conn.request)
        if name == b"realpath_root":
            return os.path.realpath(document_root(conn.request))
        if name == b"request_filename":
            return request_filename(conn.request)
        if name == b"invalid_referer":
            return invalid_referer(conn.request)
        if name.startswith(b"ssl_"):
            facts = conn.facts
            return None if facts is None else facts.variable(name[4:].decode("latin-1"), clock())
        return None

    def time_local() -> bytes:
        now = time.localtime(clock())
        return time.strftime("%d/%b/%Y:%H:%M:%S %z", now).encode()

    def time_iso8601() -> bytes:
        now = time.localtime(clock())
        text = time.strftime("%Y-%m-%dT%H:%M:%S%z", now)
        return f"{text[:-2]}:{text[-2:]}".encode()

    def random_hex(size: int) -> bytes:
        return os.urandom(size).hex().encode()

    table.call("connection", connection)
    table.call("listen_address", listen_address)
    table.call("variable", variable)
    table.call("time_local", time_local)
    table.call("time_iso8601", time_iso8601)
    table.call("random_hex", random_hex)
    table.call("remote_user", _remote_user)
    table.call("pid", os.getpid)
