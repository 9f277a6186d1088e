"""A server of the kit whose configuration has the bundled modules."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from serving import Client, MemoryLog, serve_task

from trio_lua.config.nginx import loads
from trio_lua.modules import BUNDLED
from trio_lua.testing import LuaServer, open_server

__all__ = ["serve_task"]


class Site:
    """A running server.

    Attributes:
        server: The kit's.
        log: Its error.log.
        client: A client that speaks in raw bytes.
    """

    def __init__(self, server: LuaServer, log: MemoryLog, client: Client) -> None:
        self.server = server
        self.log = log
        self.client = client

    async def connect(self) -> Client:
        """Another one."""
        return Client(await self.server.connect())

    async def get(
        self, target: str, *lines: str, host: str = "localhost"
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers in lower case, body; on a connection of its own."""
        headers = [("Host", host), *((name, value) for name, value in map(_header, lines))]
        response = await self.server.get(target, headers=headers)
        body = response.body.decode("utf-8", "surrogateescape")
        return response.status, dict(response.headers), body

    async def text(self, target: str, *lines: str, host: str = "localhost") -> str:
        """The body of a response with status 200."""
        status, _headers, body = await self.get(target, *lines, host=host)
        assert status == 200, (status, body, self.log.text())
        return body

    async def post(self, target: str, body: str) -> str:
        response = await self.server.post(target, body=body)
        assert response.status == 200, self.log.text()
        return response.text


def _header(line: str) -> list[str]:
    return line.split(": ", 1)


@pytest.fixture
def site() -> Callable[..., Any]:
    """``async with site(locations, http=...) as site``: a server with these directives.

    Several texts are as many servers, the first that of the host ``row0``: for tables (see :func:`serving.row`).
    """

    @contextlib.asynccontextmanager
    async def open_site(
        *servers: str, http: str = "", modules: Any = BUNDLED, prefix: str = ""
    ) -> AsyncIterator[Site]:
        blocks = "".join(
            f"server {{ server_name row{number}; {server} }}\n"
            for number, server in enumerate(servers)
        )
        text = f"events {{}} http {{ access_log off; {http} {blocks} }}"
        log = MemoryLog()
        async with open_server(loads(text, modules=modules, prefix=prefix), log=log) as server:
            with trio.fail_after(30):
                client = Client(await server.connect())
                yield Site(server, log, client)
                await client.aclose()

    return open_site
