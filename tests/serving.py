"""A worker without sockets of its own, and clients that speak to it in raw bytes.

There are two drivers of connections: parked sockets (here a socket pair) and a task per stream (memory
streams). The fixture ``serve`` runs a test on both; it is for what a driver can change: connections, what is
read from them and written to them, and when (``tests/server``, and what of the API is about bodies, output and
clients that leave). All else sees a request and no connection, and is tested on one driver, which the
``conftest.py`` of a folder chooses: the API on parked sockets, as in production (``serve_parked``), phases on
streams, as in programs that embed a server (``serve_task``), and modules on the kit's servers, which have streams, too.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from trio_lua.config.model import (
    Config,
    Http,
    Listen,
    Location,
    LuaCode,
    MatchKind,
    Server,
    Settings,
    Source,
    Template,
)
from trio_lua.config.nginx import loads
from trio_lua.server.worker import Worker
from trio_lua.testing import LogRecords
from trio_lua.testing import server as kit

SOURCE = Source("nginx.conf", 1)


class MemoryLog(LogRecords):
    """An error log that a test can read, by nginx's numbers of levels."""

    @property
    def lines(self) -> list[tuple[int, str]]:
        return [(record.number, record.message) for record in self]

    def text(self, level: int = 8) -> str:
        return "\n".join(text for number, text in self.lines if number <= level)


def literal(text: str) -> Template:
    return Template(text, (text,) if text else ())


def code(text: str, directive: str = "content_by_lua_block") -> LuaCode:
    name = directive.removesuffix("_block")
    return LuaCode(directive, SOURCE, f"{name}(nginx.conf:1)", code=text)


def location(
    path: str, content: str | None = None, settings: Settings | None = None, **fields: Any
) -> Location:
    kind = fields.pop("kind", MatchKind.PREFIX)
    return Location(
        kind=kind,
        path=path,
        settings=settings or Settings(),
        source=SOURCE,
        content=None if content is None else code(content),
        **fields,
    )


def config(
    locations: Iterable[Location], *, settings: Settings | None = None, **server: Any
) -> Config:
    outer = Location(
        kind=MatchKind.SERVER,
        path="",
        settings=settings or Settings(),
        source=SOURCE,
        locations=tuple(locations),
    )
    one = Server(
        listens=(Listen("127.0.0.1", 80),), names=("",), location=outer, source=SOURCE, **server
    )
    return Config(http=Http(servers=(one,)))


def nginx(server: str, http: str = "", prefix: str = "") -> Config:
    """A configuration from the inside of a ``server`` block, and more for ``http``."""
    return loads(
        f"events {{}} http {{ access_log off; {http} server {{ listen 127.0.0.1:80;\n{server}\n}} }}",
        prefix=prefix,
    )


def nginx_rows(servers: Iterable[str], http: str = "", prefix: str = "") -> Config:
    """The same with a server for each row of a table: the first is that of the host ``row0`` (see :func:`row`)."""
    blocks = "".join(
        f"server {{ listen 127.0.0.1:80; server_name row{number};\n{server}\n}}\n"
        for number, server in enumerate(servers)
    )
    return loads(f"events {{}} http {{ access_log off; {http} {blocks} }}", prefix=prefix)


class Client:
    """The other end of a connection."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            return False
        self._buffer += bytes(data)
        return bool(data)

    async def response(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Read one response: status, headers in lower case, body."""
        while b"\r\n\r\n" not in self._buffer:
            assert await self._more(), f"closed in a head: {self._buffer!r}"
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", lines[0])
        assert match, lines[0]
        status = int(match[1])
        headers = {}
        for line in lines[1:]:
            name, value = line.split(": ", 1)
            headers[name.lower()] = value
        if method == "HEAD" or status in (204, 304) or status < 200:
            return status, headers, b""
        if "content-length" in headers:
            length = int(headers["content-length"])
            while len(self._buffer) < length:
                assert await self._more(), "closed in a body"
            body, self._buffer = self._buffer[:length], self._buffer[length:]
        elif headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                while b"\r\n" not in self._buffer:
                    assert await self._more(), "closed in a chunk"
                size, _, self._buffer = self._buffer.partition(b"\r\n")
                length = int(size, 16)
                while len(self._buffer) < length + 2:
                    assert await self._more(), "closed in a chunk"
                body += self._buffer[:length]
                self._buffer = self._buffer[length + 2 :]
                if not length:
                    break
        else:
            body = await self.rest()
        return status, headers, body

    async def get(
        self, path: str, *lines: str, host: str = "localhost"
    ) -> tuple[int, dict[str, str], bytes]:
        head = "".join(f"{line}\r\n" for line in lines)
        await self.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{head}\r\n".encode())
        return await self.response()

    async def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        while await self._more():
            pass
        data, self._buffer = self._buffer, b""
        return data

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)


@contextlib.contextmanager
def row(name: object) -> Iterator[None]:
    """A row of a table whose rows share a server, as starting one takes longer than asking it: names it if it fails."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"in the row {name!r}: {error}") from error


class Running:
    """A worker that serves, and its log."""

    def __init__(self, worker: Worker, log: MemoryLog, parked: bool) -> None:
        self.worker = worker
        self.log = log
        self._parked = parked
        self.clients: list[Client] = []

    async def connect(self, listen: Listen | None = None, *, slow: bool = False) -> Client:
        """A client; ``slow``: nothing between the two keeps what it does not read."""
        if self._parked:
            ours, theirs = socket.socketpair()
            self.worker.serve_socket(theirs, listen)
            stream: Any = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        else:
            pair = trio.testing.lockstep_stream_pair if slow else trio.testing.memory_stream_pair
            stream, theirs_stream = pair()
            assert self.worker._nursery is not None
            self.worker._nursery.start_soon(self.worker.serve_stream, theirs_stream, listen)
        client = Client(stream)
        self.clients.append(client)
        return client

    def assert_nothing_left(self) -> None:
        if not self.worker.closed:
            assert self.worker.runtime.vm.export("live")() == (0, 0)
        assert not self.worker.connections
        assert "connections left" not in self.log.text()


@pytest.fixture(params=["parked", "task"])
def serve(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``async with serve(config) as running``, on both drivers; leaves nothing behind, or fails."""
    return opener(parked=request.param == "parked")


@pytest.fixture
def serve_parked() -> Callable[..., Any]:
    """The same on parked sockets only; to be imported as ``serve``."""
    return opener(parked=True)


@pytest.fixture
def serve_task() -> Callable[..., Any]:
    """The same on streams only; to be imported as ``serve``."""
    return opener(parked=False)


def opener(*, parked: bool) -> Callable[..., Any]:
    """What the fixtures give."""

    @contextlib.asynccontextmanager
    async def open_worker(conf: Config, **options: Any) -> AsyncIterator[Running]:
        log = MemoryLog()
        # a guard is a thread
        options.setdefault("guarded", False)
        async with kit.open_worker(conf, log=log, parked=parked, **options) as worker:
            running = Running(worker, log, parked)
            with trio.fail_after(30):
                yield running
                for client in running.clients:
                    await client.aclose()
                await kit.idle(worker)
            running.assert_nothing_left()

    return open_worker
