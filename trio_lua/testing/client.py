"""The client of tests: it remembers what it has asked, for the report of a failing test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trio_lua.server.client import Client as PlainClient
from trio_lua.server.client import Headers, IncompleteResponse, Response

__all__ = ["Client", "Exchange", "Headers", "IncompleteResponse", "Response"]

#: Bytes of a body that a report shows.
_SHOWN = 2000


@dataclass
class Exchange:
    """A request and what came of it.

    Attributes:
        method: Such as ``GET``.
        target: Path and query string.
        response: The response; None when there is none (yet).
        complete: Whether that is all of it.
    """

    method: str
    target: str
    response: Response | None = None
    complete: bool = True

    def __str__(self) -> str:
        answer = self.response
        if answer is None:
            return f"{self.method} {self.target}: no response"
        body = answer.body[:_SHOWN].decode("utf-8", "backslashreplace")
        if len(answer.body) > _SHOWN:
            body += f"... ({len(answer.body)} bytes)"
        if not self.complete:
            body += "... (the connection was closed here)"
        headers = "".join(f"\n{name}: {value}" for name, value in answer.headers.pairs)
        return f"{self.method} {self.target}: {answer.status} {answer.reason}{headers}\n\n{body}"


class Client(PlainClient):
    """Sends requests, each over a connection of its own.

    Attributes:
        exchanges: The requests that were sent, and their responses.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.exchanges: list[Exchange] = []

    async def request(self, method: str, target: str, **options: Any) -> Response:
        """Send a request and return the whole response; see :meth:`PlainClient.request`."""
        exchange = Exchange(method, target)
        self.exchanges.append(exchange)
        __tracebackhide__ = True
        try:
            exchange.response = await super().request(method, target, **options)
        except IncompleteResponse as error:
            exchange.response, exchange.complete = error.response, False
            raise
        return exchange.response
