"""Status lines: nginx's texts, which are not always those of the RFCs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["REASONS", "status_line", "wire_status"]

REASONS: Mapping[int, str] = MappingProxyType(
    {
        101: "Switching Protocols",
        200: "OK",
        201: "Created",
        202: "Accepted",
        204: "No Content",
        206: "Partial Content",
        301: "Moved Permanently",
        302: "Moved Temporarily",
        303: "See Other",
        304: "Not Modified",
        307: "Temporary Redirect",
        308: "Permanent Redirect",
        400: "Bad Request",
        401: "Unauthorized",
        402: "Payment Required",
        403: "Forbidden",
        404: "Not Found",
        405: "Not Allowed",
        406: "Not Acceptable",
        408: "Request Time-out",
        409: "Conflict",
        410: "Gone",
        411: "Length Required",
        412: "Precondition Failed",
        413: "Request Entity Too Large",
        414: "Request-URI Too Large",
        415: "Unsupported Media Type",
        416: "Requested Range Not Satisfiable",
        421: "Misdirected Request",
        429: "Too Many Requests",
        500: "Internal Server Error",
        501: "Not Implemented",
        502: "Bad Gateway",
        503: "Service Temporarily Unavailable",
        504: "Gateway Time-out",
        505: "HTTP Version Not Supported",
        507: "Insufficient Storage",
    }
)

_LINES = {code: f"HTTP/1.1 {code} {text}\r\n".encode() for code, text in REASONS.items()}

# nginx's own numbers for reasons of a 400; `error_page` sees them, clients do not.
_BAD_REQUESTS = frozenset((494, 495, 496, 497))


def wire_status(code: int) -> int:
    """What a client gets to see for a code of the special-response table."""
    return 400 if code in _BAD_REQUESTS else code


def status_line(code: int) -> bytes:
    """The status line with its line end; codes without a text keep the space before it.

    494 to 497 are not translated: nginx does that only where it makes the response itself
    (:func:`wire_status`).
    """
    return _LINES.get(code) or b"HTTP/1.1 %03d \r\n" % code
