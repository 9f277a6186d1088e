"""The example as its README has it, on a free port."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import h11
import pytest
import trio
import trio.testing
from doc_pages import ROOT
from serving import MemoryLog

import trio_lua

FOLDER = ROOT / "examples" / "hello"


class Hello:
    """The example's server, and a client of it."""

    def __init__(self, server: trio_lua.Server, log: MemoryLog, nursery: trio.Nursery) -> None:
        self.server = server
        self.log = log
        self.nursery = nursery

    async def ask(
        self, target: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.server.serve_stream, theirs)
        client = h11.Connection(h11.CLIENT)
        method = "GET" if body is None else "POST"
        lines = [("Host", "test"), *headers.items()]
        if body is not None:
            lines.append(("Content-Length", str(len(body))))
        events: list[Any] = [h11.Request(method=method, target=target, headers=lines)]
        if body is not None:
            events.append(h11.Data(data=body))
        async with ours:
            for event in [*events, h11.EndOfMessage()]:
                await ours.send_all(client.send(event) or b"")
            status, head, received = 0, {}, b""
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    client.receive_data(await ours.receive_some())
                elif isinstance(event, h11.Response):
                    status, head = event.status_code, dict(event.headers)
                elif isinstance(event, h11.Data):
                    received += event.data
            return status, head, received


@pytest.fixture
async def hello(nursery: trio.Nursery) -> Hello:
    config = trio_lua.load(FOLDER / "nginx.conf", prefix=f"{ROOT}/")
    log = MemoryLog()
    serve = partial(trio_lua.serve, config, listeners=[], error_log=log)
    return Hello(await nursery.start(serve), log, nursery)


async def test_query_argument(hello: Hello) -> None:
    status, head, body = await hello.ask("/?name=Ann%20B")
    assert (status, body) == (200, b"Hello, Ann B!\n")
    assert len(head[b"x-request-id"]) == 32
    assert "GET /: 200 after" in hello.log.text()


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        (b'{"numbers": [1, 2]}', 200, {"sum": 3}),
        (b'{"numbers": [1, "x"]}', 400, {"error": "number 2 is not one"}),
        (b"[]", 400, {"error": "numbers is not a list"}),
        (b"{", 400, {"error": "the body is not JSON"}),
        (b"", 400, {"error": "the request has no body"}),
        (None, 405, {"error": "POST a list of numbers"}),
    ],
)
async def test_sum(hello: Hello, body: bytes | None, status: int, answer: object) -> None:
    got, head, text = await hello.ask("/sum", body)
    assert (got, json.loads(text)) == (status, answer)
    assert head[b"content-type"] == b"application/json"


async def test_slow(hello: Hello, autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    status, _, body = await hello.ask("/slow?seconds=2")
    assert (status, body) == (200, b"going to sleep\nslept 2 s\n")
    assert trio.current_time() - began == pytest.approx(2)
    assert (await hello.ask("/slow?seconds=99"))[0] == 400


async def test_admin(hello: Hello) -> None:
    status, _, body = await hello.ask("/admin")
    assert (status, json.loads(body)) == (403, {"error": 403, "path": "/admin"})
    status, _, body = await hello.ask("/admin", **{"X-Token": "open-sesame"})
    assert (status, json.loads(body)) == (200, {"user": "Ali"})


async def test_error_page(hello: Hello) -> None:
    status, _, body = await hello.ask("/nothing")
    assert (status, json.loads(body)) == (404, {"error": 404, "path": "/nothing"})
