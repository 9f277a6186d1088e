"""``proxy_pass`` against upstream servers of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from upstream import say, upstream

from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError
from trio_lua.modules import BUNDLED
from trio_lua.modules.proxy import Url, parse_url
from trio_lua.testing import Answer, LuaNetwork, open_server

Open = Callable[..., Any]


class Mirror:
    """Answers each request with its own bytes, and keeps it."""

    def __init__(self, head: bytes = b"") -> None:
        self.head = head
        self.requests: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            data = await stream.receive_some()
            if not data:
                return
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name == b"Content-Length":
                length = int(value)
        while len(body) < length:
            body += await stream.receive_some()
        self.requests.append(head + b"\r\n\r\n" + body)
        start = self.head or b"HTTP/1.1 200 OK\r\n"
        await stream.send_all(start + b"Connection: close\r\n\r\n" + self.requests[-1])

    @property
    def lines(self) -> list[str]:
        return self.requests[-1].partition(b"\r\n\r\n")[0].decode().split("\r\n")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a", Url("a", 80, "", "a", "80")),
        ("http://a:80/b?c", Url("a", 80, "/b?c", "a", "80")),
        ("HTTP://a:81?c", Url("a", 81, "/?c", "a:81", "81")),
        ("http://[::1]/", Url("[::1]", 80, "/", "[::1]", "80")),
        ("http://[::1]:8/", Url("[::1]", 8, "/", "[::1]:8", "8")),
        ("http://unix:/a/b:/c", Url("unix:/a/b", 0, "/c", "localhost", "")),
        ("http://unix:/a/b", Url("unix:/a/b", 0, "", "localhost", "")),
    ],
)
def test_urls(text: str, url: Url) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("location / { proxy_pass https://a; }", "https protocol is not supported"),
        ("location / { proxy_pass https://$host; }", "https protocol is not supported"),
        ("location / { proxy_pass a; }", "invalid URL prefix"),
        ("location / { proxy_pass http://a:x; }", "invalid port"),
        ("location / { proxy_pass http://; }", "no host"),
        ("location / { proxy_pass http://unix:; }", "no path in the unix domain socket"),
        ("location ~ a { proxy_pass http://a/; }", "cannot have URI part"),
        ("location @a { proxy_pass http://a/; }", "cannot have URI part"),
        ("location / { proxy_http_version 2; }", "invalid value"),
        ("location / { proxy_cache a; }", "not supported yet"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loads(f"events {{}} http {{ server {{ {text} }} }}", modules=BUNDLED)


async def test_request(site: Open) -> None:
    mirror = Mirror()
    async with upstream(mirror.serve) as peer:
        text = """
            location / { proxy_pass http://127.0.0.1:PORT; }
            location /a/ { proxy_pass http://127.0.0.1:PORT/b/; }
            location /var { proxy_pass http://127.0.0.1:$arg_port/x?y=$arg_y; }
            location /name { proxy_pass http://localhost:PORT; }
            location /rewritten { rewrite ^ /one/two? break; proxy_pass http://127.0.0.1:PORT/b; }
            location /split { rewrite_by_lua_block { ngx.req.set_uri("/x\\r\\ny", false, true) }
                proxy_pass http://127.0.0.1:PORT; }
            location /set { proxy_pass http://127.0.0.1:PORT; proxy_http_version 1.1;
                proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header Accept ""; proxy_set_header Connection ""; }
            location /none { proxy_pass http://127.0.0.1:PORT; proxy_pass_request_headers off;
                proxy_pass_request_body off; proxy_set_header Content-Length ""; }
            location /text { proxy_pass http://127.0.0.1:PORT; proxy_method PUT; proxy_set_body "<$uri>"; }
            location /big { proxy_pass http://127.0.0.1:PORT; client_body_buffer_size 8k; }
        """.replace("PORT", str(peer.port))
        async with site(text) as server:
            await server.text("/x%20y?a=b", "Accept: z", "Keep-Alive: 5", "TE: trailers", "A_b: c")
            assert mirror.lines == [
                "GET /x%20y?a=b HTTP/1.0",
                f"Host: 127.0.0.1:{peer.port}",
                "Connection: close",
                "Accept: z",
            ]
            for target, expected in [
                ("/a/c%20d?e=f", "/b/c%20d?e=f"),
                ("/a/", "/b/"),
                (f"/var?port={peer.port}&y=1", "/x?y=1"),
                ("/name", "/name"),
                ("/rewritten/x?a=b", "/one/two"),
                ("/split", "/x%0D%0Ay"),
            ]:
                await server.text(target)
                assert mirror.lines[0] == f"GET {expected} HTTP/1.0"
            await server.text("/set", "X-Forwarded-For: 1.2.3.4", "Accept: z")
            assert mirror.lines[0] == "GET /set HTTP/1.1"
            assert mirror.lines[1] == "Host: localhost"
            assert mirror.lines[2].startswith("X-Forwarded-For: 1.2.3.4, ")
            assert len(mirror.lines) == 3
            assert (await server.post("/p", "body")).endswith("\r\n\r\nbody")
            assert "Content-Length: 4" in mirror.lines
            await server.post("/none", "body")
            assert len(mirror.lines) == 3
            assert (await server.post("/text", "body")).endswith("\r\n\r\n</text>")
            assert mirror.lines[0] == "PUT /text HTTP/1.0"
            assert (await server.post("/big", "x" * 300000)).endswith("\r\n\r\n" + "x" * 300000)
            server.log.records.clear()


async def test_response(site: Open) -> None:
    answer = (
        b"HTTP/1.1 201 Fine\r\nServer: x\r\nDate: y\r\nX-Pad: z\r\nX-A: 1\r\nx-a: 2\r\nX-B: b\r\n"
        b"Location: http://127.0.0.1:PORT/b/c\r\nRefresh: 3; url=http://127.0.0.1:PORT/b/d\r\n"
        b"Content-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    )

    async def answers(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer.replace(b"PORT", str(peer.port).encode()))

    async with upstream(answers) as peer:
        text = """
            location /a/ { proxy_pass http://127.0.0.1:PORT/b/; proxy_hide_header X-B;
                proxy_pass_header Server; absolute_redirect off; }
            location /off { proxy_pass http://127.0.0.1:PORT/b/; proxy_redirect off; }
            location /to { proxy_pass http://127.0.0.1:PORT; proxy_redirect http://127.0.0.1:PORT/ http://$host/z/; }
            location /re { proxy_pass http://127.0.0.1:PORT; proxy_redirect ~^http://[^/]+/(.*)$ http://e/$1; }
            location /filter { proxy_pass http://127.0.0.1:PORT;
                header_filter_by_lua_block { ngx.header.Seen = ngx.status .. ngx.var.upstream_http_x_b }
                body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:upper() } }
            location /lua { content_by_lua_block {
                local res = ngx.location.capture("/filter")
                ngx.say(res.status, res.body, res.header.Seen)
            } }
            location /named { content_by_lua_block { ngx.exec("@named") } }
            location @named { proxy_pass http://127.0.0.1:PORT; }
            location /vars { proxy_pass http://127.0.0.1:PORT; log_by_lua_block {
                ngx.log(ngx.WARN, ngx.var.proxy_host, " ", ngx.var.proxy_port, " ", ngx.var.upstream_addr, " ",
                    ngx.var.upstream_status, " ", ngx.var.upstream_response_time, ngx.var.upstream_response_length)
            } }
        """.replace("PORT", str(peer.port))
        async with site(text) as server:
            status, headers, body = await server.get("/a/x")
            assert (status, body) == (201, "abcdefg")
            assert headers["location"] == "/a/c"
            assert headers["refresh"] == "3; url=/a/d"
            assert headers["server"] == "x"
            assert headers["content-type"] == "a/b"
            assert "x-b" not in headers
            assert "x-pad" not in headers
            assert headers["date"] != "y"
            _, headers, _ = await server.get("/off")
            assert headers["location"] == f"http://127.0.0.1:{peer.port}/b/c"
            assert (await server.get("/to"))[1]["location"] == "http://localhost/z/b/c"
            assert (await server.get("/re"))[1]["location"] == "http://e/b/c"
            status, headers, body = await server.get("/filter")
            assert (status, headers["seen"], body) == (201, "201b", "ABCDEFG")
            assert await server.text("/lua") == "201ABCDEFG201b\n"
            assert (await server.get("/named"))[2] == "abcdefg"
            await server.get("/vars")
        assert f"127.0.0.1:{peer.port} {peer.port} 127.0.0.1:{peer.port} 201 0" in server.log.text()
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert peer.open == 0


async def test_missing_slash(site: Open) -> None:
    text = """
        location /a/ { proxy_pass http://127.0.0.1:1; header_filter_by_lua_block { ngx.header.Seen = 1 } }
        location /b/ { proxy_pass http://127.0.0.1:1; }
        location /b { echo b; }
        location = /c/ { proxy_pass http://127.0.0.1:1; }
    """
    async with site(text) as server:
        status, headers, _ = await server.get("/a?x=y")
        assert (status, headers["location"]) == (301, "http://localhost/a/?x=y")
        assert headers["seen"] == "1"
        assert await server.text("/b") == "b\n"
        assert (await server.get("/c"))[0] == 301


async def test_intercepted_errors(site: Open) -> None:
    peer_answer = b"HTTP/1.0 404 Nope\r\nContent-Length: 4\r\n\r\nnope"

    async def answers(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(peer_answer)

    async with upstream(answers) as peer:
        text = """
            error_page 404 /page;
            location /page { echo page; }
            location /a { proxy_pass http://127.0.0.1:PORT; proxy_intercept_errors on; }
            location /b { proxy_pass http://127.0.0.1:PORT; }
        """.replace("PORT", str(peer.port))
        async with site(text) as server:
            status, _, body = await server.get("/a")
            assert (status, body) == (404, "page\n")
            status, headers, body = await server.get("/b")
            assert (status, body, headers["content-length"]) == (404, "nope", "4")


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ((), "upstream prematurely closed connection while reading response header from upstream"),
        ((b"HTTP/1.1 200 OK\r\n",), "upstream prematurely closed connection while reading resp"),
        ((b"nonsense\r\n\r\n",), "upstream sent invalid header while reading response header"),
        (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",),
            'upstream sent "Content-Length" and "Transfer-Encoding" headers at the same time',
        ),
        ((b"HTTP/1.1 200 OK\r\nA: " + b"x" * 9000,), "upstream sent too big header while reading"),
    ],
)
async def test_bad_gateway(site: Open, pieces: tuple[bytes, ...], message: str) -> None:
    async def answers(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await say(*pieces)(stream)

    async with upstream(answers) as peer:
        async with site(f"location / {{ proxy_pass http://127.0.0.1:{peer.port}; }}") as server:
            status, _, _ = await server.get("/")
            assert status == 502
            assert message in server.log.text()
            assert f', upstream: "http://127.0.0.1:{peer.port}/", host: "localhost"' in (
                server.log.text()
            )
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert peer.open == 0


async def test_cut_body(site: Open) -> None:
    answers = say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await answers(stream)

    async with (
        upstream(serve) as peer,
        site(f"location / {{ proxy_pass http://127.0.0.1:{peer.port}; }}") as server,
    ):
        await server.client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await server.client.rest()).endswith(b"abc")
        assert "upstream prematurely closed connection while reading upstream" in server.log.text()


async def test_refused(site: Open) -> None:
    async with upstream(say()) as peer:
        port = peer.port
    async with site(f"location / {{ proxy_pass http://127.0.0.1:{port}; }}") as server:
        assert (await server.get("/"))[0] == 502
        text = server.log.text()
        assert "(111: Connection refused) while connecting to upstream, client" in text
        server.log.records.clear()


async def test_timeout(site: Open, autojump_clock: trio.testing.MockClock) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    async with upstream(silent) as peer:
        text = f"location / {{ proxy_pass http://127.0.0.1:{peer.port}; proxy_read_timeout 5s; }}"
        async with site(text) as server:
            assert (await server.get("/"))[0] == 504
            assert (
                "upstream timed out (110: Connection timed out) while reading response header from"
                in server.log.text()
            )
            server.log.records.clear()


@pytest.mark.parametrize("ignored", [False, True])
async def test_client_leaves(site: Open, ignored: bool) -> None:
    asked, answer, over = trio.Event(), trio.Event(), trio.Event()

    async def waiting(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        asked.set()
        if ignored:
            await answer.wait()
            await stream.send_all(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        assert not await stream.receive_some()
        over.set()

    async with upstream(waiting) as peer:
        text = f"""location / {{ proxy_pass http://127.0.0.1:{peer.port};
            proxy_ignore_client_abort {"on" if ignored else "off"}; }}"""
        async with site(text) as server:
            await server.client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await asked.wait()
            await server.client.aclose()
            if ignored:
                await trio.testing.wait_all_tasks_blocked()
                assert peer.open == 1
                answer.set()
            await over.wait()
            await trio.testing.wait_all_tasks_blocked()


async def test_slow_client(serve_task: Open) -> None:
    """What the client does not read, the upstream server has to keep."""
    size = 8 << 20
    sent = 0

    async def endless(stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await stream.send_all(b"x" * 65536)
            sent += 65536

    async with upstream(endless) as peer:
        text = f"""events {{}} http {{ access_log off; server {{
            location / {{ proxy_pass http://127.0.0.1:{peer.port}; }} }} }}"""
        async with serve_task(loads(text, modules=BUNDLED)) as running:
            client = await running.connect(slow=True)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert sent < size
            _, _, body = await client.response()
            assert len(body) == size


async def test_network_in_memory(autojump_clock: trio.testing.MockClock) -> None:
    text = """events {} http { access_log off; server {
        location / { proxy_pass http://api; }
        location /slow { proxy_pass http://slow:81; proxy_read_timeout 1s; }
        location /dead { proxy_pass http://dead; }
    } }"""
    with LuaNetwork() as network:
        api = network.http("api", 80, {"/price": Answer("7")})
        network.silent("slow", 81)
        network.refuse("dead", 80)
        async with open_server(loads(text, modules=BUNDLED), network=network) as server:
            client = server.client
            assert (await client.get("/price")).text == "7"
            assert api.requests[0].headers["host"] == "api"
            assert (await client.get("/slow")).status == 504
            assert (await client.get("/dead")).status == 502
