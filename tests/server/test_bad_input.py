"""What clients, configurations and handlers do wrong: the answer, the log line, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from serving import nginx, row

from trio_lua.testing.server import idle

Serve = Callable[..., Any]

NEXT = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


def site(server: str = "", **options: Any) -> Any:
    return nginx(
        """
        location /hello { content_by_lua_block { ngx.say("hello") } }
        location /read { content_by_lua_block { ngx.req.read_body() ngx.say("read") } }
        """
        + server,
        **options,
    )


def post(*lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join((f"POST /read HTTP/{version}", *lines, "", "")).encode("latin-1")


CHUNKED = "Transfer-Encoding: chunked"

SMUGGLING = {
    "both framings": post("Host: a", "Content-Length: 5", CHUNKED) + b"0\r\n\r\n",
    "both framings reversed": post("Host: a", CHUNKED, "Content-Length: 5") + b"0\r\n\r\n",
    "coding on 1.0": post("Host: a", CHUNKED, version="1.0") + b"0\r\n\r\n",
    "coding twice": post("Host: a", CHUNKED, CHUNKED) + b"0\r\n\r\n",
    "version 1.2": post("Host: a", version="1.2"),
    "version 1.10": post("Host: a", version="1.10"),
    "version 3.0 in small": post("Host: a", version="01.1"),
    "folded line": post("Host: a", "X: a", " b"),
    "folded with a tab": post("Host: a", "X: a", "\tb"),
    "folded first line": b"POST /read HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare CR in an extension": post("Host: a", CHUNKED) + b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "bare LF behind a size": post("Host: a", CHUNKED) + b"1\nx\r\n0\r\n\r\n",
    "chunk without its end": post("Host: a", CHUNKED) + b"1\r\nxy\r\n0\r\n\r\n",
    "signed chunk size": post("Host: a", CHUNKED) + b"+1\r\nx\r\n0\r\n\r\n",
    "hexadecimal prefix": post("Host: a", CHUNKED) + b"0x1\r\nx\r\n0\r\n\r\n",
    "endless chunk size": post("Host: a", CHUNKED) + b"1" * 40 + b"\r\nx\r\n0\r\n\r\n",
    "host with a slash": post("Host: a/b"),
    "host with a blank": post("Host: a b"),
    "host with an at": post("Host: a@b"),
    "host with a control byte": post("Host: a\x01"),
    "empty host": post("Host:"),
    "no host": post(),
    "two hosts": post("Host: a", "Host: b"),
    "two equal hosts": post("Host: a", "Host: a"),
    "list of lengths": post("Host: a", "Content-Length: 1,1") + b"x",
    "two lengths": post("Host: a", "Content-Length: 1", "Content-Length: 2") + b"x",
    "two equal lengths": post("Host: a", "Content-Length: 1", "Content-Length: 1") + b"x",
    "signed length": post("Host: a", "Content-Length: +1") + b"x",
    "negative length": post("Host: a", "Content-Length: -1"),
    "hexadecimal length": post("Host: a", "Content-Length: 0x1") + b"x",
    "empty length": post("Host: a", "Content-Length:"),
    "length of other digits": post("Host: a", "Content-Length: \u00b2"),
    "huge length": post("Host: a", "Content-Length: 99999999999999999999"),
    "control byte in the target": b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab in the target": b"GET /\ta HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in a value": post("Host: a", "X: a\0b"),
    "bare CR in a value": post("Host: a", "X: a\rb"),
    "blank before the colon": post("Host: a", "Content-Length : 1") + b"x",
    "blank in a name": post("Host: a", "Content Length: 1") + b"x",
    "no name": post("Host: a", ": 1"),
}


@pytest.mark.parametrize("recognise", [True, False], ids=["recogniser", "h11"])
async def test_one_way_of_framing_or_400(serve: Serve, recognise: bool) -> None:
    async with serve(site(), recognise=recognise) as running:
        for name, data in SMUGGLING.items():
            with row(name):
                running.log.clear()
                client = await running.connect()
                await client.send(data + NEXT)
                status, headers, _ = await client.response()
                assert (status, headers["connection"]) == (400, "close")
                assert await client.rest() == b""
                assert "client sent" in running.log.text(7)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


CUT = {
    "request line": b"GET / HT",
    "header": b"GET /hello HTTP/1.1\r\nHost: a\r\nX-",
    "chunked header": b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chu",
    "body": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123",
    "no body": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
    "chunk size": b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1",
    "chunk": b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "last chunk": b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "unread body": b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123",
}


async def test_client_that_leaves(serve: Serve, tmp_path: Path) -> None:
    conf = site(f"client_body_temp_path {tmp_path}/bodies; client_body_buffer_size 1;")
    async with serve(conf) as running:
        for name, data in CUT.items():
            with row(name):
                client = await running.connect()
                await client.send(data)
                await trio.testing.wait_all_tasks_blocked()
                await client.aclose()
                other = await running.connect()
                assert (await other.get("/hello"))[2] == b"hello\n"
                await other.aclose()
                await idle(running.worker)
                assert "internal error" not in running.log.text()
                assert files_below(tmp_path) == []
                running.assert_nothing_left()


@pytest.mark.parametrize("name", ["body", "chunk", "unread body"])
async def test_client_that_stops_sending_but_still_reads(serve: Serve, name: str) -> None:
    async with serve(site()) as running:
        client = await running.connect()
        await client.send(CUT[name])
        await client.stream.send_eof()
        answer = await client.rest()
        unread = name == "unread body"
        assert (b"200 OK" in answer) == unread
        assert ("client prematurely closed connection" in running.log.text(7)) != unread


async def test_client_that_leaves_in_the_response(serve: Serve) -> None:
    conf = site("""location /much { content_by_lua_block {
        local ok, err
        repeat ok, err = ngx.print(("x"):rep(65536)) if ok then ok, err = ngx.flush(true) end until not ok
        ngx.log(ngx.WARN, "stopped: ", err)
    } }""")
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.stream.receive_some(10)
        await client.aclose()
        while "stopped" not in running.log.text():
            await trio.testing.wait_all_tasks_blocked()
        other = await running.connect()
        assert (await other.get("/hello"))[2] == b"hello\n"


async def test_handler_goes_on_without_its_client(serve: Serve, autojump_clock: Any) -> None:
    conf = site(
        """location /slow { content_by_lua_block { ngx.sleep(5) ngx.log(ngx.WARN, "done") } }"""
    )
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.sleep(1)
        await client.aclose()
        await trio.sleep(5)
        assert "done" in running.log.text()


THROWN = {
    "error('text')": "):1: text",
    "error('text', 0)": "text",
    "error({})": "unknown reason",
    "error(nil)": "unknown reason",
    "error()": "unknown reason",
    "error(42)": "42",
    "error(true)": "unknown reason",
    "error(setmetatable({}, {__tostring = function() return 'own' end}))": "own",
    "error(setmetatable({}, {__tostring = function() error('again') end}))": "unknown reason",
    "local x = nil + 1": "attempt to perform arithmetic on a nil value",
    "error(('x'):rep(100000), 0)": "xxx",
    "error('a\\0b', 0)": "a",
    "local function f() return f() + 1 end f()": "stack overflow",
    "string.rep('x', -1)()": "attempt to call",
}


async def test_thrown_values(serve: Serve) -> None:
    conf = site(
        "".join(
            f"location /throw/{number} {{ content_by_lua_block {{{code}}} }}"
            for number, code in enumerate(THROWN)
        )
    )
    async with serve(conf) as running:
        for number, (code, message) in enumerate(THROWN.items()):
            with row(code):
                running.log.clear()
                client = await running.connect()
                assert (await client.get(f"/throw/{number}"))[0] == 500
                line = running.log.text(4)
                assert line.startswith("lua entry thread aborted: runtime error: ")
                assert line.count("\n") < 40
                assert message in line or code.startswith(("error(setm", "error(true"))
                assert f'request: "GET /throw/{number} HTTP/1.1", host: "localhost"' in line
                client = await running.connect()
                assert (await client.get("/hello"))[0] == 200


async def test_error_after_headers_went_out(serve: Serve) -> None:
    conf = site(
        "location /late { content_by_lua_block { ngx.say('a') ngx.flush(true) error('late') } }"
    )
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 200 OK")
        # without the last chunk: the client can tell
        assert answer.endswith(b"2\r\na\n\r\n")
        assert "late" in running.log.text(4)


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (
            None,
            404,
            'failed to load external Lua file "{}": cannot open {}: No such file or directory',
        ),
        ("local x = = 1", 500, 'failed to load external Lua file "{}": '),
        ("return function(", 500, 'failed to load external Lua file "{}": '),
        ("error('in the file')", 500, "h.lua:1: in the file"),
        ("\x1bLJ broken", 500, 'failed to load external Lua file "{}": '),
    ],
)
async def test_files(
    serve: Serve, tmp_path: Path, text: str | None, status: int, message: str
) -> None:
    path = tmp_path / "h.lua"
    if text is not None:
        path.write_text(text)
    conf = site(f"location /file {{ content_by_lua_file {path}; }}")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/file"))[0] == status
        assert message.format(path, path) in running.log.text(4)


async def test_inline_syntax_error_shows_at_the_first_request(serve: Serve) -> None:
    conf = site("location /bad { content_by_lua_block { local x = = 1 } }")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/bad"))[0] == 500
        expected = "failed to load inlined Lua code: content_by_lua(nginx.conf:"
        assert expected in running.log.text(4)
