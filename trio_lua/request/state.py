"""One request, as Python sees it.

The state itself (line, headers, variables, response) lives in the VM; :class:`Request` holds the number
under which Lua knows it and what only Python needs. Its methods cross into Lua once each.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from trio_lua.config.model import Location, LuaCode, Template
from trio_lua.lua.driver import detach
from trio_lua.request.context import ClientConnection
from trio_lua.request.exchange import Subresponse

__all__ = ["Request"]


class Request:
    """A request that is being served.

    Attributes:
        id: Lua's number for it.
        lua: The runtime of the VM it lives in.
        connection: Where it came from and where its response goes.
        plan: The compiled location (or server) whose steps it takes; set by the engine.
        host: Host name of the request, lower-case, without port.
        length: Content-Length, 0 without a body, -1 for a chunked one.
        inline: Whether it runs in the task that received it (see :mod:`trio_lua.lua.driver`).
        target_uri: The path it came with, decoded.
        started: Which of its location's handlers has run already (counted from 0) and what that returned.
        error_page: Whether it has come to an ``error_page``.
        error_pages: Whether it may come to one (again).
        keepalive: Whether the connection can serve another request after this one.
        files: Temporary files that go when it ends.
        nursery: Where its child tasks run (see :class:`trio_lua.lua.driver.Owner`); not set before the first.
    """

    __slots__ = (
        "below_alias",
        "bounded",
        "cancel_scope",
        "coder",
        "connection",
        "error_page",
        "error_pages",
        "files",
        "host",
        "id",
        "inline",
        "keepalive",
        "length",
        "lua",
        "nursery",
        "plan",
        "rewritten",
        "server",
        "started",
        "status",
        "target_uri",
        "uri_changes",
    )

    nursery: trio.Nursery | None
    #: Whether it has a deadline; not set without one.
    bounded: bool
    #: State of the filter that changes the body; unset until that filter sets it.
    coder: Any

    def __init__(
        self, id: int, lua: Any, connection: ClientConnection, host: bytes, length: int
    ) -> None:
        self.id = id
        self.lua = lua
        self.connection = connection
        self.host = host
        self.length = length
        self.plan: Any = None
        self.server: Any = None
        self.target_uri = b""
        self.started: tuple[int, Any] | None = None
        self.inline = True
        self.keepalive = False
        self.error_page = False
        self.error_pages = True
        self.rewritten = False
        self.below_alias = False
        self.uri_changes = 0
        self.status = 0
        self.files: list[str] | None = None
        self.cancel_scope: trio.CancelScope | None = None

    # ---------------------------------------------------------------- request

    def _get(self, field: bytes) -> Any:
        return self.lua.get(self.id, field)

    @property
    def method(self) -> bytes:
        return self._get(b"method")  # type: ignore[no-any-return]

    @property
    def uri(self) -> bytes:
        return self._get(b"uri")  # type: ignore[no-any-return]

    def set_uri(self, uri: bytes) -> None:
        self.lua.put(self.id, b"uri", uri)

    @property
    def args(self) -> bytes | None:
        return self._get(b"args")  # type: ignore[no-any-return]

    def set_args(self, args: bytes | None) -> None:
        self.lua.put(self.id, b"args", args)

    def header(self, name: bytes) -> bytes | None:
        return self.lua.header(self.id, name)  # type: ignore[no-any-return]

    def set_request_header(self, name: bytes, value: bytes | None) -> None:
        self.lua.set_request_header(self.id, name, value)

    async def read_body(self) -> bytes | None:
        return await self.lua.read_body(self)  # type: ignore[no-any-return]

    def now(self) -> float:
        return self.lua.clock()  # type: ignore[no-any-return]

    @property
    def location(self) -> Location:
        return self.plan.location  # type: ignore[no-any-return]

    def subrequest(
        self,
        uri: bytes,
        args: bytes | None = None,
        *,
        method: bytes = b"GET",
        body: bytes | None = None,
    ) -> AbstractAsyncContextManager[Subresponse]:
        return self.lua.subrequests().captured(  # type: ignore[no-any-return]
            self, uri, args, method=method, body=body
        )

    def resource(self, name: str) -> Any:
        return self.lua.modules.resources[name]

    def setting(self, name: str) -> Any:
        return self.plan.settings.extra.get(name)

    def evaluate(self, template: Template) -> bytes:
        literal = template.literal
        if literal is not None:
            return literal.encode("utf-8", "surrogateescape")
        return self.lua.eval(self.id, self.lua.template(template))  # type: ignore[no-any-return]

    def variable(self, name: bytes) -> bytes | None:
        """The value of a variable, None when there is none."""
        return self.lua.get_variable(self.id, name)  # type: ignore[no-any-return]

    def set_variable(self, name: str, value: bytes) -> None:
        self.lua.set_variable(self.id, name.encode(), value)

    def match(
        self, pattern: str, subject: bytes, *, caseless: bool = False, keep: bool = False
    ) -> bool:
        found = self.lua.regexes.match(pattern, subject, caseless)
        if found is None:
            if not keep:
                self.set_captures(())
            return False
        captures, names = found
        self.set_captures(captures)
        for name, index in names.items():
            self.set_variable(name, (captures[index] if index < len(captures) else None) or b"")
        return True

    def set_captures(self, captures: Sequence[bytes | None]) -> None:
        """Make the groups of a match ``$1`` and so on."""
        self.lua.set_captures(self.id, *[c if c is not None else False for c in captures])

    def call_set_function(self, name: str, args: Sequence[bytes]) -> bytes | None:
        return self.lua.modules.call_set_function(name, self, args)  # type: ignore[no-any-return]

    def run_set_by_lua(self, handler: LuaCode) -> bytes | None:
        return self.lua.run_set(self, handler)  # type: ignore[no-any-return]

    # --------------------------------------------------------------- response

    @property
    def header_sent(self) -> bool:
        return bool(self._get(b"header_sent"))

    def set_status(self, status: int) -> None:
        self.lua.put(self.id, b"status", status)

    def set_header(self, name: bytes, value: bytes, *, early: bool = False) -> None:
        self.lua.set_header(self.id, name, value, early)

    def clear_headers(self, names: Sequence[bytes]) -> None:
        for name in names:
            self.lua.set_header(self.id, name, None)

    def compresses(self, content_type: bytes, length: int) -> bool:
        return self.lua.compresses(self.id, content_type, length)  # type: ignore[no-any-return]

    async def send(self, data: bytes, *, last: bool = False) -> None:
        if self.plan.filters_wait:
            result = await self.lua.waiting.response(self, b"send", data, last)
        else:
            result = self.lua.send(self.id, data, last)
        if result:
            connection = self.connection
            if connection.write(result) > 262144:
                await connection.drain(65536)

    async def checkpoint(self) -> None:
        await detach(self)
        await trio.lowlevel.checkpoint()

    # -------------------------------------------------------------------- log

    def log(self, level: int, message: bytes) -> None:
        self.lua.log(self.id, level, message)
