"""The handlers in Python: the same work as :mod:`benchmarks.servers.lua_app`.

Three phases are three coroutine functions that share a context, as middleware would be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from benchmarks.cases import BODY, LARGE, SUSPEND

__all__ = ["BODY", "LARGE", "Application"]

_FIRST, _SECOND = BODY.split(b" ")


class Application:
    """Answers every path of the cases.

    Args:
        sleep: The event loop's.
    """

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep = sleep

    async def respond(
        self,
        path: str,
        headers: Iterable[tuple[Any, Any]],
        read_body: Callable[[], Awaitable[bytes]],
    ) -> tuple[int, bytes]:
        """The status and the body of a response."""
        if path == "/hello":
            return 200, BODY
        if path == "/phases":
            context: dict[str, bytes] = {}
            await self._rewrite(context)
            status = await self._access(headers)
            return status, b"" if status != 200 else await self._content(context)
        if path == "/large":
            return 200, LARGE
        if path == "/echo":
            return 200, await read_body()
        if path == "/sleep":
            await self._sleep(0.05)
            return 200, BODY
        if path == "/suspend":
            await self._sleep(SUSPEND)
            return 200, BODY
        return 404, b"not found\n"

    async def _rewrite(self, context: dict[str, bytes]) -> None:
        context["name"] = _SECOND

    async def _access(self, headers: Iterable[tuple[Any, Any]]) -> int:
        denied = any(name in (b"x-deny", "x-deny") for name, _value in headers)
        return 403 if denied else 200

    async def _content(self, context: dict[str, bytes]) -> bytes:
        return _FIRST + b" " + context["name"]
