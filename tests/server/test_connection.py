"""What clients get, on both drivers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from serving import MemoryLog, config, location, nginx, row

from trio_lua.config.model import Settings
from trio_lua.server.worker import Worker

Serve = Callable[..., Any]

HELLO = location("/hello", "ngx.say('hello')")
ECHO = location("/echo", "ngx.req.read_body() ngx.print(ngx.req.get_body_data() or '')")


async def test_hello(serve: Serve) -> None:
    async with serve(config([HELLO])) as running:
        client = await running.connect()
        status, headers, body = await client.get("/hello")
        assert (status, body) == (200, b"hello\n")
        assert headers["connection"] == "keep-alive"
        assert headers["content-type"] == "text/plain"
        status, _, body = await client.get("/hello")
        assert (status, body) == (200, b"hello\n")


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    slow = location("/slow", "ngx.sleep(0.001) ngx.say('slow')")
    async with serve(config([HELLO, slow])) as running:
        client = await running.connect()
        request = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
        await client.send((request % b"hello" + request % b"slow") * 20)
        for _ in range(20):
            assert (await client.response())[2] == b"hello\n"
            assert (await client.response())[2] == b"slow\n"


async def test_byte_by_byte(serve: Serve) -> None:
    async with serve(config([ECHO])) as running:
        client = await running.connect()
        for byte in b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc":
            await client.send(bytes([byte]))
        assert (await client.response())[2] == b"abc"


async def test_http_1_0_has_a_length_and_closes(serve: Serve) -> None:
    async with serve(config([HELLO])) as running:
        client = await running.connect()
        await client.send(b"GET /hello HTTP/1.0\r\n\r\n")
        status, headers, body = await client.response()
        assert (status, headers["content-length"], body) == (200, "6", b"hello\n")
        assert headers["connection"] == "close"
        assert await client.rest() == b""


async def test_head_has_no_body(serve: Serve) -> None:
    async with serve(config([HELLO])) as running:
        client = await running.connect()
        await client.send(b"HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.response("HEAD"))[0] == 200
        assert (await client.get("/hello"))[2] == b"hello\n"


async def test_connection_close(serve: Serve) -> None:
    async with serve(config([HELLO])) as running:
        client = await running.connect()
        status, headers, _ = await client.get("/hello", "Connection: close")
        assert (status, headers["connection"]) == (200, "close")
        assert await client.rest() == b""


async def test_keepalive_requests(serve: Serve) -> None:
    settings = Settings(keepalive_requests=2)
    async with serve(config([location("/", "ngx.say(1)", settings)])) as running:
        client = await running.connect()
        assert (await client.get("/"))[1]["connection"] == "keep-alive"
        assert (await client.get("/"))[1]["connection"] == "close"
        assert await client.rest() == b""


async def test_chunked_request_body(serve: Serve) -> None:
    async with serve(config([ECHO])) as running:
        client = await running.connect()
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        assert (await client.response())[2] == b"abcde"
        assert (await client.response())[2] == b""


async def test_expect_100_continue(serve: Serve) -> None:
    async with serve(config([ECHO])) as running:
        client = await running.connect()
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert (await client.response())[0] == 100
        await client.send(b"ok")
        assert (await client.response())[2] == b"ok"


async def test_large_body_goes_to_a_file(serve: Serve, tmp_path: Path) -> None:
    settings = Settings(client_body_temp_path=str(tmp_path / "bodies"), client_body_buffer_size=10)
    handler = """
        ngx.req.read_body()
        local path = ngx.req.get_body_file()
        ngx.print(tostring(ngx.req.get_body_data()), ' ', io.open(path):read('*a'))
    """
    async with serve(config([location("/", handler, settings)])) as running:
        client = await running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n" + b"x" * 20)
        assert (await client.response())[2] == b"nil " + b"x" * 20
    assert list((tmp_path / "bodies").iterdir()) == []


async def test_too_large_body(serve: Serve) -> None:
    settings = Settings(client_max_body_size=5)
    handler = "ngx.req.read_body() ngx.say('read')"
    async with serve(config([location("/", handler, settings)])) as running:
        client = await running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n123456")
        assert (await client.response())[0] == 413
        assert await client.rest() == b""
        client = await running.connect()
        await client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n0\r\n\r\n"
        )
        assert (await client.response())[0] == 413


async def test_unread_body_is_discarded(serve: Serve) -> None:
    async with serve(config([HELLO])) as running:
        client = await running.connect()
        await client.send(b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        assert (await client.response())[2] == b"hello\n"
        await client.send(b"bodyGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.response())[2] == b"hello\n"


WRONG = [
    (b"GET /hello\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /hello HTTP/1.1\r\n\r\n", 400),
    (b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET /hello HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
    (b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\n", 400),
    (
        b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (b"POST /hello HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (b"GET /hello HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 400),
    (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00", 400),
]


async def test_what_is_wrong_is_refused_and_closed(serve: Serve) -> None:
    async with serve(config([HELLO])) as running:
        for request, status in WRONG:
            with row(request):
                client = await running.connect()
                await client.send(request)
                found, headers, body = await client.response()
                assert found == status
                assert headers["connection"] == "close"
                assert b"Traceback" not in body
                assert await client.rest() == b""


async def test_client_leaves_in_the_middle(serve: Serve) -> None:
    handler = "ngx.req.read_body() ngx.say('read')"
    async with serve(config([location("/", handler)])) as running:
        client = await running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123")
        await client.aclose()
        client = await running.connect()
        await client.send(b"GET / HT")
        await client.aclose()


async def test_h11_gives_the_same_answers(serve: Serve) -> None:
    async with serve(config([HELLO, ECHO]), recognise=False) as running:
        client = await running.connect()
        for _ in range(3):
            assert (await client.get("/hello"))[2] == b"hello\n"
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        assert (await client.response())[2] == b"abc"


async def test_large_response_to_a_slow_client(serve: Serve) -> None:
    handler = "for i = 1, 64 do ngx.print(string.rep('x', 65536)) end"
    async with serve(config([location("/", handler)])) as running:
        client = await running.connect()
        status, _, body = await client.get("/")
        assert (status, len(body)) == (200, 64 * 65536)
        assert (await client.get("/"))[0] == 200


async def test_threads_flush_at_the_same_time(serve: Serve) -> None:
    """A connection has one sender at a time, and the others wait for it."""
    handler = """
        local function f(letter)
            for i = 1, 8 do
                ngx.print(letter:rep(262144))
                ngx.flush(true)
            end
        end
        ngx.thread.spawn(f, "a")
        ngx.thread.spawn(f, "b")
        f("c")
    """
    async with serve(config([location("/", handler)])) as running:
        client = await running.connect()
        status, _, body = await client.get("/")
        counts = [body.count(letter) for letter in (b"a", b"b", b"c")]
        assert (status, counts) == (200, [8 * 262144] * 3)
        assert "internal error" not in running.log.text()


async def test_silent_clients_are_cut_off(serve: Serve, autojump_clock: Any) -> None:
    conf = config([HELLO], client_header_timeout=7.0)
    async with serve(conf) as running:
        silent = await running.connect()
        half = await running.connect()
        await half.send(b"GET /hello HTTP/1.1\r\nHo")
        assert await silent.rest() == b""
        assert await half.rest() == b""


async def test_idle_connections_are_closed(serve: Serve, autojump_clock: Any) -> None:
    settings = Settings(keepalive_timeout=20.0)
    async with serve(config([location("/", "ngx.say(1)", settings)], settings=settings)) as running:
        client = await running.connect()
        assert (await client.get("/"))[0] == 200
        assert await client.rest() == b""


async def test_a_body_that_does_not_come_ends_the_connection(
    serve: Serve, autojump_clock: Any
) -> None:
    settings = Settings(client_body_timeout=5.0)
    handler = "ngx.req.read_body() ngx.say('read')"
    async with serve(config([location("/", handler, settings)])) as running:
        client = await running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123")
        assert await client.rest() == b""


async def test_quit_finishes_running_requests(serve: Serve, autojump_clock: object) -> None:
    slow = location("/slow", "ngx.sleep(1) ngx.say('done')")
    async with serve(config([HELLO, slow])) as running:
        idle = await running.connect()
        assert (await idle.get("/hello"))[0] == 200
        busy = await running.connect()
        await busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        while not running.worker.runtime.vm.export("live")()[0]:
            await trio.testing.wait_all_tasks_blocked()
        running.worker.quit()
        assert await idle.rest() == b""
        assert (await busy.response())[2] == b"done\n"
        assert await busy.rest() == b""


async def test_an_idle_server_has_nothing_to_do(mock_clock: trio.testing.MockClock) -> None:
    """Nobody wakes up while no client is there, so that virtual time can jump over years."""
    async with trio.open_nursery() as nursery:
        worker = Worker(config([HELLO]), error_log=MemoryLog())
        await nursery.start(worker.run, [])
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (b"", "client closed connection while waiting for request, client: unix:, server: "),
        (
            b"GET /x",
            'client prematurely closed connection while reading client request line, client: unix:, server: , request: "GET /x"',
        ),
        (
            b"GET /x HTTP/1.1\r\nHost: a\r\nX",
            "client prematurely closed connection while reading client request headers, client: unix:, server: , "
            'request: "GET /x HTTP/1.1", host: "a"',
        ),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", "client unix: closed keepalive connection"),
    ],
)
async def test_log_lines_of_clients_that_leave(serve: Serve, sent: bytes, line: str) -> None:
    async with serve(nginx("location / { return 200 hello; }")) as running:
        client = await running.connect()
        if sent:
            await client.send(sent)
        if line.endswith("keepalive connection"):
            await client.response()
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        while "client " not in running.log.text(7):
            await trio.lowlevel.checkpoint()
        [(level, text)] = running.log.lines
        assert level == 7
        assert text.startswith(line)


async def test_a_compressed_file_has_no_ranges(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789" * 100)
    (tmp_path / "b.txt").write_text("0123456789")
    server = f"root {tmp_path}; gzip on; gzip_types text/plain;"
    async with serve(nginx(server)) as running:
        client = await running.connect()
        ranged, accepts = "Range: bytes=2-4", "Accept-Encoding: gzip"
        status, headers, _body = await client.get("/a.txt", ranged, accepts)
        assert (status, headers["content-encoding"]) == (200, "gzip")
        assert "accept-ranges" not in headers
        assert (await client.get("/a.txt", ranged))[::2] == (206, b"234")
        assert (await client.get("/b.txt", ranged, accepts))[::2] == (206, b"234")


async def test_a_request_that_comes_while_another_waits(serve: Serve, autojump_clock: Any) -> None:
    waiting = location("/wait", "ngx.sleep(5) ngx.say('waited')")
    async with serve(config([HELLO, waiting])) as running:
        client = await running.connect()
        for _ in range(3):
            await client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(2):
                await client.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                await trio.testing.wait_all_tasks_blocked()
            for expected in (b"waited\n", b"hello\n", b"hello\n"):
                assert (await client.response())[2] == expected
