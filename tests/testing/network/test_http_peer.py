"""The small HTTP server; lua-resty-http speaks to it in tests/e2e/test_resty.py."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_lua.testing import Answer, HttpPeer, HttpRequest


async def talk(peer: HttpPeer, data: str) -> bytes:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve, theirs)
        await ours.send_all(data.replace("\n", "\r\n").encode())
        await ours.send_eof()
        return b"".join([bytes(part) async for part in ours])


GET = "GET {} HTTP/1.1\nHost: a\n\n"


async def later(request: HttpRequest) -> Answer:
    return Answer({"path": request.path, **request.params}, status=201, headers={"X-A": "b"})


@pytest.mark.parametrize(
    ("path", "status", "end"),
    [
        ("/text", b"200", b"\r\n\r\nhello"),
        ("/number", b"503", b"\r\nContent-Length: 0\r\n\r\n"),
        ("/function", b"200", b"\r\n\r\nGET"),
        ("/json?a=1", b"201", b'\r\n\r\n{"path": "/json", "a": "1"}'),
        ("/chunks", b"200", b"\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"),
        ("/other", b"404", b"\r\n\r\n"),
    ],
)
async def test_routes(path: str, status: bytes, end: bytes) -> None:
    peer = HttpPeer(
        "web",
        {
            "/text": "hello",
            "/number": 503,
            "/function": lambda request: request.method,
            "/json": later,
            "/chunks": Answer(chunks=(b"a", b"bc")),
        },
    )
    answer = await talk(peer, GET.format(path))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith(end)
    assert [request.target for request in peer.requests] == [path]


async def test_one_answer_for_all_and_keepalive() -> None:
    peer = HttpPeer("web", "x")
    answer = await talk(peer, GET.format("/1") + GET.format("/2"))
    assert answer.count(b"200") == 2
    assert peer.accepted == 1


async def test_bodies() -> None:
    peer = HttpPeer("web", lambda request: request.text)
    head = "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nExpect: 100-continue\n\n"
    answer = await talk(peer, head + "5\nhello\n0\n\n")
    assert answer.endswith(b"\r\n\r\nhello")
    assert peer.requests[0].headers["expect"] == "100-continue"


async def test_what_is_no_request() -> None:
    peer = HttpPeer("web", "x")
    assert (await talk(peer, "nonsense\n\n")).startswith(b"HTTP/1.1 400")
    assert not peer.requests
