"""nginx's reading of request targets: which bytes name the resource, and what they decode to.

The path decides which location serves a request and which file is opened, so it must be read
exactly as nginx reads it. Three facts shape this module:

* Decoding comes first and dots and slashes are looked at afterwards, so ``%2e%2e%2f`` climbs
  like ``../`` does, while a decoded ``?``, ``#`` or ``%`` is an ordinary byte of the path.
* ``#`` ends a target wherever it stands, and a ``?`` behind it begins no arguments.
* Whatever climbs above the root, holds a NUL or has a broken escape is refused, never repaired.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

from trio_lua.errors import ProtocolError

__all__ = ["Escape", "Target", "escape", "normalize", "parse_unsafe", "split_target", "unescape"]


class Target(NamedTuple):
    """A request target, cut into its parts; nothing is decoded.

    Attributes:
        unparsed: From the path on, as sent (nginx's ``$request_uri``).
        path: The path, still to be given to :func:`normalize`.
        args: What stands behind ``?``; None when there is no ``?`` or nothing behind it, which
            nginx does not tell apart either.
        authority: ``host[:port]`` of an absolute target, otherwise None.
        host: The host of an absolute target as written, otherwise None.
    """

    unparsed: bytes
    path: bytes
    args: bytes | None
    authority: bytes | None
    host: bytes | None


_absolute = re.compile(
    rb"[A-Za-z][A-Za-z0-9+.-]*://"
    rb"((\[[0-9A-Za-z:._~!$&'()*+,;=-]*\]|[A-Za-z0-9.-]*)(?::[0-9]*)?)"
    rb"(?=[/?]|\Z)"
)


def split_target(target: bytes) -> Target:
    """Cut a request target into path and arguments.

    Raises:
        ProtocolError: It is neither a path nor an absolute URL.
    """
    authority = host = None
    unparsed = path = target
    if not target.startswith(b"/"):
        match = _absolute.match(target)
        if match is None:
            raise ProtocolError("client sent invalid request")
        authority, host = match.group(1, 2)
        path = target[match.end() :]
        unparsed = path or b"/"
    if b"#" in path:
        path = path[: path.index(b"#")]
    path, _, args = path.partition(b"?")
    return Target(unparsed, path or b"/", args or None, authority, host)


_complex = re.compile(rb"%|//|/\.")
_escapes = re.compile(rb"%([0-9A-Fa-f]{2})|(%)")


def _decode(match: re.Match[bytes]) -> bytes:
    if match.group(2) is not None or match.group(1) == b"00":
        raise ProtocolError("client sent invalid request")
    return bytes.fromhex(match.group(1).decode("ascii"))


def normalize(path: bytes, merge_slashes: bool = True) -> bytes:
    """Decode a path and take out ``.`` and ``..`` segments and, unless told not to, empty ones.

    Raises:
        ProtocolError: A broken escape, an escaped NUL, or a path that climbs above the root.
    """
    if _complex.search(path) is None:
        return path
    segments = _escapes.sub(_decode, path).split(b"/")
    kept: list[bytes] = []
    last = len(segments) - 1
    for index, segment in enumerate(segments[1:], 1):
        if segment == b"..":
            if not kept:
                raise ProtocolError("client sent invalid request")
            kept.pop()
        elif segment != b"." and (segment or index == last or not merge_slashes):
            kept.append(segment)
            continue
        if index == last:
            kept.append(b"")
    return b"/" + b"/".join(kept)


_climbs = re.compile(rb"(?:\A|/)\.\.(?:/|\Z)")
_climbs_before_args = re.compile(rb"(?:\A|/)\.\./")


def parse_unsafe(uri: bytes) -> tuple[bytes, bytes | None] | None:
    """Read a URI that Lua code hands in (``ngx.exec``, ``ngx.location.capture``).

    Returns:
        The decoded path and the arguments, or None when nginx calls the URI unsafe: empty, without
        path, with a NUL, or with a ``..`` segment.
    """
    path, question, args = uri.partition(b"?")
    if not path or b"\0" in path:
        return None
    if (_climbs_before_args if question else _climbs).search(path) is not None:
        return None
    if b"%" in path:
        path = unescape(path)
        if b"\0" in path or _climbs.search(path) is not None:
            return None
    return path, (args if question else None)


_lenient = re.compile(
    rb"%(?:([0-9A-Fa-f])(?:([0-9A-Fa-f])|[^0-9A-Fa-f]|\Z)|([^0-9A-Fa-f])|\Z)", re.S
)


def _decode_leniently(match: re.Match[bytes]) -> bytes:
    high, low, other = match.group(1, 2, 3)
    if other is not None:
        return other
    if low is not None:
        return bytes.fromhex((high + low).decode("ascii"))
    return b""


def unescape(data: bytes) -> bytes:
    """Decode ``%XX`` as nginx does outside request targets: broken escapes lose their ``%``.

    ``%zz`` becomes ``zz``, and of ``%1z`` nothing is left.
    """
    if b"%" not in data:
        return data
    return _lenient.sub(_decode_leniently, data)


class Escape(IntEnum):
    """What escaped text is for; the numbers are nginx's."""

    URI = 0
    ARGS = 1
    URI_COMPONENT = 2
    HTML = 3
    REFRESH = 4
    MEMCACHED = 5
    MAIL_AUTH = 6


_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_VISIBLE = bytes(range(0x21, 0x7F))


def _table(kept: bytes, dropped: bytes = b"") -> tuple[re.Pattern[bytes], list[bytes]]:
    plain = set(kept) - set(dropped)
    table = [bytes([c]) if c in plain else b"%%%02X" % c for c in range(256)]
    special = b"".join(re.escape(bytes([c])) for c in range(256) if c not in plain)
    return re.compile(b"[" + special + b"]"), table


_NEVER_IN_URI = b'"<>\\^`{|}'
_ESCAPES: dict[Escape, tuple[re.Pattern[bytes], list[bytes]]] = {
    Escape.URI: _table(_VISIBLE, _NEVER_IN_URI + b"#%?"),
    Escape.ARGS: _table(_VISIBLE, _NEVER_IN_URI + b"#%?&+;"),
    Escape.URI_COMPONENT: _table(_UNRESERVED),
    Escape.HTML: _table(_VISIBLE, _NEVER_IN_URI + b"#%'"),
    # "~" in the place of "}" is a slip in nginx that has become its behaviour.
    Escape.REFRESH: _table(_VISIBLE, b"\"<>\\^`{|~'"),
    Escape.MEMCACHED: _table(bytes(range(0x21, 0x100)), b"%"),
    Escape.MAIL_AUTH: _table(bytes(range(0x21, 0x100)), b"%"),
}


def escape(data: bytes, kind: Escape = Escape.URI) -> bytes:
    """Write bytes that must not stand in ``kind`` as ``%XX``."""
    special, table = _ESCAPES[kind]
    if special.search(data) is None:
        return data
    return b"".join([table[c] for c in data])
