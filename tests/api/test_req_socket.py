"""``ngx.req.socket``: the request body, and the raw connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
import trio.testing
from serving import Client, Running, nginx, serve

__all__ = ["serve"]

Serve = Callable[..., Any]


def page(code: str, settings: str = "") -> Any:
    return nginx(
        f"location /t {{ {settings} content_by_lua_block {{ {code} }} }} location /o {{ return 200 o; }}"
    )


async def post(running: Running, *pieces: bytes, lines: str = "", length: int = -1) -> Client:
    client = await running.connect()
    size = sum(map(len, pieces)) if length < 0 else length
    head = f"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n{lines}\r\n"
    await client.send(head.encode() + (pieces[0] if pieces else b""))
    for piece in pieces[1:]:
        await trio.testing.wait_all_tasks_blocked()
        await client.send(piece)
    return client


BODY = """
    local sock, err = ngx.req.socket()
    if not sock then ngx.say(err) return end
"""


class TestBody:
    async def test_piece_by_piece(self, serve: Serve) -> None:
        code = (
            BODY
            + """
            ngx.say(sock:receive())
            ngx.say(sock:receive(3), ",", sock:receiveany(100))
            local it = sock:receiveuntil("--")
            ngx.say(it(), ",", sock:receive("*a"))
            ngx.say(sock:receive())
            ngx.req.read_body()
            ngx.say(ngx.req.get_body_data())
        """
        )
        async with serve(page(code)) as running:
            client = await post(running, b"one\ntwo", b"x", b"a-", b"-rest")
            _, _, data = await client.response()
            assert data == b"one\ntwo,x\na,rest\nnilclosed\nnil\n"
            assert (await client.get("/o"))[2] == b"o"

    async def test_what_is_left_is_dropped(self, serve: Serve) -> None:
        async with serve(page(BODY + "ngx.say(sock:receive(2))")) as running:
            client = await post(running, b"abcd", b"efgh", b"ij")
            assert (await client.response())[2] == b"ab\n"
            assert (await client.get("/o"))[2] == b"o"

    async def test_refusals(self, serve: Serve) -> None:
        twice = "ngx.req.socket() local _, e = ngx.req.socket() ngx.say(e)"
        read = "ngx.req.read_body() local _, e = ngx.req.socket() ngx.say(e)"
        drop = "ngx.req.discard_body() local _, e = ngx.req.socket() ngx.say(e)"
        for code, answer in (
            (twice, b"request body already exists\n"),
            (read, b"request body already exists\n"),
            (drop, b"request body discarded\n"),
        ):
            async with serve(page(code)) as running:
                client = await post(running, b"abc")
                assert (await client.response())[2] == answer
        async with serve(page(BODY)) as running:
            client = await running.connect()
            assert (await client.get("/t"))[2] == b"no body\n"
            await client.send(
                b"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            )
            assert (await client.response())[2] == b"chunked request bodies not supported yet\n"
        sub = nginx(
            "location /t { content_by_lua_block { ngx.print(ngx.location.capture('/s').body) } }"
            "location /s { content_by_lua_block { ngx.say(select(2, pcall(ngx.req.socket))) } }"
        )
        async with serve(sub) as running:
            client = await running.connect()
            text = b"attempt to read the request body in a subrequest\n"
            assert (await client.get("/t"))[2] == text

    async def test_timeout_leaves_it_usable(self, serve: Serve, autojump_clock: Any) -> None:
        code = (
            BODY
            + """
            sock:settimeout(100)
            ngx.say(sock:receive(5))
            ngx.say(sock:receive(2))
        """
        )
        async with serve(page(code)) as running:
            client = await post(running, b"abc", length=5)
            await trio.sleep(0.15)
            await client.send(b"de")
            assert (await client.response())[2] == b"niltimeoutabc\nde\n"
            assert "lua tcp socket read timed out" in running.log.text(4)

    async def test_a_client_that_leaves(self, serve: Serve) -> None:
        code = BODY + "ngx.log(ngx.ERR, 'got: ', table.concat({ select(2, sock:receive(9)) }, ' '))"
        for settings in ("", "lua_check_client_abort on;"):
            async with serve(page(code, settings)) as running:
                client = await post(running, b"abc", length=9)
                await trio.testing.wait_all_tasks_blocked()
                await client.aclose()
                await trio.testing.wait_all_tasks_blocked()
                assert "got: client aborted abc" in running.log.text(4)

    async def test_expect_continue(self, serve: Serve) -> None:
        async with serve(page(BODY + "ngx.say(sock:receive('*a'))")) as running:
            client = await post(running, length=3, lines="Expect: 100-continue\r\n")
            assert (await client.response())[0] == 100
            await client.send(b"abc")
            assert (await client.response())[2] == b"abc\n"

    async def test_has_no_other_methods(self, serve: Serve) -> None:
        code = BODY + "ngx.say(sock.send, sock.close, sock.connect, sock.setkeepalive)"
        async with serve(page(code)) as running:
            client = await post(running, b"x")
            assert (await client.response())[2] == b"nilnilnilnil\n"


RAW = """
    local sock, err = ngx.req.socket(true)
    if not sock then ngx.say(err) return end
"""


class TestRaw:
    async def test_both_ways(self, serve: Serve) -> None:
        code = (
            RAW
            + """
            ngx.flush(true)
            while true do
                local line, err = sock:receive()
                if not line then
                    sock:send({ "bye ", err })
                    return
                end
                sock:send("< " .. line .. "\\n")
            end
        """
        )
        async with serve(page(code)) as running:
            client = await running.connect()
            await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\nfirst\nsec")
            await trio.testing.wait_all_tasks_blocked()
            await client.send(b"ond\n")
            await trio.testing.wait_all_tasks_blocked()
            await client.stream.send_eof()  # type: ignore[attr-defined, unused-ignore]
            assert await client.rest() == b"< first\n< second\nbye closed"

    async def test_takes_the_body_as_it_comes(self, serve: Serve) -> None:
        code = RAW + "sock:send(sock:receive('*a'))"
        for lines in ("Content-Length: 5", "Transfer-Encoding: chunked"):
            async with serve(page(code)) as running:
                client = await running.connect()
                body = b"5\r\nhello\r\n0\r\n\r\n"
                await client.send(f"POST /t HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n".encode() + body)
                await trio.testing.wait_all_tasks_blocked()
                await client.stream.send_eof()  # type: ignore[attr-defined, unused-ignore]
                assert await client.rest() == body

    async def test_after_a_head_of_its_own(self, serve: Serve) -> None:
        code = (
            """
            ngx.status = 101
            ngx.header.Upgrade = "test"
            ngx.send_headers()
            ngx.flush(true)
        """
            + RAW
            + """
            sock:send(tostring(select(2, ngx.say("x"))))
            sock:send(tostring(select(2, ngx.flush())))
            sock:send(tostring(select(2, ngx.req.socket(true))))
        """
        )
        async with serve(page(code)) as running:
            client = await running.connect()
            await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
            status, headers, _ = await client.response()
            assert (status, headers["upgrade"]) == (101, "test")
            await client.stream.send_eof()  # type: ignore[attr-defined, unused-ignore]
            text = b"raw request socket acquired"
            assert await client.rest() == text + text + b"duplicate call", running.log.text()

    async def test_refusals(self, serve: Serve) -> None:
        async with serve(page("ngx.print('some') " + RAW)) as running:
            client = await running.connect()
            assert (await client.get("/t"))[2] == b"somepending data to write\n"

    async def test_send_timeout(self, serve: Serve, autojump_clock: Any) -> None:
        code = (
            RAW
            + """
            sock:settimeouts(1, 100, 1)
            local n, err = sock:send(string.rep("x", 16 * 1024 * 1024))
            ngx.log(ngx.ERR, "sent: ", n, " ", err)
            ngx.log(ngx.ERR, "again: ", select(2, sock:send("x")))
        """
        )
        async with serve(page(code)) as running:
            if not running._parked:
                return  # a memory stream takes everything
            client = await running.connect()
            await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
            await trio.sleep(1)
            log = running.log.text(4)
            assert "lua tcp socket write timed out" in log
            assert "sent: nil timeout" in log
            assert "again: closed" in log


async def test_raw_sockets_of_a_location_that_is_known(serve: Serve) -> None:
    """From the second request on, the handler runs while its head is being read."""
    code = """
        local sock = assert(ngx.req.socket(true))
        sock:send("first: " .. sock:receiveany(100) .. "\\n")
        sock:send("then: " .. sock:receive() .. "\\n")
    """
    async with serve(page(code)) as running:
        for _ in range(3):
            client = await running.connect()
            await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\nearly")
            await trio.testing.wait_all_tasks_blocked()
            await client.send(b"late\n")
            assert await client.rest() == b"first: early\nthen: late\n"
        waiting = [await running.connect() for _ in range(3)]
        for client in waiting:
            await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
        for client in waiting:
            await client.send(b"early")
            await trio.testing.wait_all_tasks_blocked()
            await client.send(b"late\n")
            assert await client.rest() == b"first: early\nthen: late\n"


async def test_raw_handler_that_never_waits(serve: Serve) -> None:
    code = """
        local sock = assert(ngx.req.socket(true))
        sock:send("got " .. sock:receive(5))
    """
    async with serve(page(code)) as running:
        for _ in range(3):
            client = await running.connect()
            await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\nearly and more")
            assert await client.rest() == b"got early"
