"""A worker whose configuration is written in nginx's language, with the bundled modules."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from serving import Client, Running
from serving import serve_task as serve

from trio_lua.config.nginx import loads
from trio_lua.modules import BUNDLED

__all__ = ["serve"]


class Site:
    """A running worker and one client of it."""

    def __init__(self, running: Running, client: Client) -> None:
        self.running = running
        self.client = client
        self.log = running.log

    async def get(
        self, target: str, *lines: str, host: str = "localhost"
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers in lower case, body; on a connection of its own."""
        client = await self.running.connect()
        status, headers, body = await client.get(target, *lines, host=host)
        return status, headers, body.decode("utf-8", "surrogateescape")

    async def text(self, target: str, *lines: str, host: str = "localhost") -> str:
        """The body of a response with status 200."""
        status, _headers, body = await self.get(target, *lines, host=host)
        assert status == 200, (status, body, self.log.text())
        return body

    async def post(self, target: str, body: str) -> str:
        head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        client = await self.running.connect()
        await client.send((head + body).encode())
        status, _headers, data = await client.response()
        assert status == 200, self.log.text()
        return data.decode()


@pytest.fixture
def site(serve: Callable[..., Any]) -> Callable[..., Any]:
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
        async with serve(loads(text, modules=modules, prefix=prefix)) as running:
            yield Site(running, await running.connect())

    return open_site
