"""What the Python half of the engine may ask of a request.

Lua owns a request's state; this is the one way in which Python reads and changes it, and
each method is one crossing. Content handlers, the rewrite program and ``error_page`` are
written against this interface, so tests can drive them with a plain object.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from trio_lua.config.model import Location, LuaCode, Template

__all__ = ["Captures", "Exchange", "Subresponse"]

#: The groups of a regular expression match, whole match first; None for a group that took no part.
Captures = tuple["bytes | None", ...]


class Subresponse(Protocol):
    """A subrequest that has ended, and its response."""

    @property
    def response_status(self) -> int:
        """The status of its response."""

    @property
    def body(self) -> bytes:
        """The body of its response."""

    def variable(self, name: bytes) -> bytes | None:
        """The value of a variable in the subrequest (``sent_http_...`` for the response's headers)."""

    def evaluate(self, template: Template) -> bytes:
        """The text of a template, with the subrequest's variables."""


class Exchange(Protocol):
    """One request and its response."""

    # -------------------------------------------------------------- request

    @property
    def method(self) -> bytes:
        """The method as sent, such as ``b"GET"``."""

    @property
    def uri(self) -> bytes:
        """The decoded, normalised path (``$uri``)."""

    def set_uri(self, uri: bytes) -> None:
        """Change ``$uri``."""

    @property
    def args(self) -> bytes | None:
        """The query string without "?" (``$args``)."""

    def set_args(self, args: bytes | None) -> None:
        """Change ``$args``."""

    def header(self, name: bytes) -> bytes | None:
        """The first request header of that lower-case name."""

    def set_request_header(self, name: bytes, value: bytes | None) -> None:
        """Replace a request header, or remove it (None)."""

    async def read_body(self) -> bytes | None:
        """The request body; None when it lies in a file, because it is larger than the buffer.

        Raises:
            ProtocolError: It is too large, malformed or too slow; the error has the status for that.
        """

    def now(self) -> float:
        """Seconds since the epoch."""

    @property
    def location(self) -> Location:
        """The location whose steps the request takes."""

    def subrequest(
        self,
        uri: bytes,
        args: bytes | None = None,
        *,
        method: bytes = b"GET",
        body: bytes | None = None,
    ) -> AbstractAsyncContextManager[Subresponse]:
        """Run a subrequest, which shares this request's variables, to its end and keep its response.

        Args:
            uri: The decoded path.
            args: The query string.
            method: The method.
            body: Its body; None for none.

        Raises:
            SubrequestCycle: Subrequests are nested too deeply.
        """

    def resource(self, name: str) -> Any:
        """What a module holds for this worker."""

    def setting(self, name: str) -> Any:
        """The setting of a module in this request's location, None when there is none."""

    def evaluate(self, template: Template) -> bytes:
        """The text of a template, its variables filled in."""

    def variable(self, name: bytes) -> bytes | None:
        """The value of a variable, None when it has none."""

    def set_variable(self, name: str, value: bytes) -> None:
        """Assign a variable, as ``set`` does."""

    def match(
        self, pattern: str, subject: bytes, *, caseless: bool = False, keep: bool = False
    ) -> bool:
        """Match a regular expression; on success its groups become ``$1`` and so on.

        Without a match there are no groups any more, or, with ``keep``, those of the match before.
        """

    def call_set_function(self, name: str, args: Sequence[bytes]) -> bytes | None:
        """Call the function of a ``set_...`` directive; None when it failed (logged already: answer 500)."""

    def run_set_by_lua(self, handler: LuaCode) -> bytes | None:
        """Run a ``set_by_lua*`` handler; None when it failed (logged already: answer 500)."""

    # ------------------------------------------------------------- response

    @property
    def header_sent(self) -> bool:
        """Whether the response head is frozen."""

    def set_status(self, status: int) -> None:
        """Set the response status."""

    def set_header(self, name: bytes, value: bytes, *, early: bool = False) -> None:
        """Set a response header (Content-Type, Content-Length, Last-Modified, ETag ... included).

        ``early`` puts it where nginx writes its own, before Connection.
        """

    def clear_headers(self, names: Sequence[bytes]) -> None:
        """Remove response headers."""

    def compresses(self, content_type: bytes, length: int) -> bool:
        """Whether ``gzip`` of the location (it must be on) will compress a response of that type and length."""

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """Pass body bytes to the filters; the first call sends the head. Waits for the peer when much is unsent.

        ``last=True`` ends the response. For HEAD requests and 204/304 the bytes are dropped by the filters.
        """

    async def checkpoint(self) -> None:
        """Let other tasks run, as anything that never waits for long must at times."""

    # ------------------------------------------------------------------ log

    def log(self, level: int, message: bytes) -> None:
        """Write an error.log line with the request's suffix; ``level`` is nginx's number (4 is error)."""
