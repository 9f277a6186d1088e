"""What a request reader reports: one head, pieces of body, the end.

Frozen dataclasses, as h11 and wsproto have them: whoever drives the reader holds no reference
into its buffers and may keep an event as long as it likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

__all__ = ["Data", "End", "Event", "Head"]


@dataclass(frozen=True, slots=True)
class Head:
    """A request line with its header lines, checked.

    Attributes:
        raw: The bytes as the client sent them, from the first byte of the request line to the end
            of the empty line; empty lines that came before the request line are not in it.
        method: Upper-case letters, ``_`` and ``-``.
        target: The request target as sent: it starts with ``/`` or is ``scheme://host...``.
        minor: 1 for HTTP/1.1, 0 for HTTP/1.0, -1 for an HTTP/0.9 simple request.
        host: The server asked for, lower-case, without port and trailing dot: from an absolute
            target, else from the Host header, else ``b""``.
        content_length: The value of Content-Length, None when there is none.
        chunked: The body is chunked.
        expect_continue: The client waits for ``100 Continue`` before it sends the body.
        keep_alive: The client is willing to use the connection again.
    """

    raw: bytes
    method: bytes
    target: bytes
    minor: int
    host: bytes
    content_length: int | None
    chunked: bool
    expect_continue: bool
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of the body, already out of its chunks; never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The request is complete.

    Attributes:
        trailing: What was received behind it: the beginning of the next request.
    """

    trailing: bytes


Event = Union[Head, Data, End]
