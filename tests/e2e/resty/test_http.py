"""lua-resty-http: every feature of its README but client certificates (those need lua-resty-openssl)."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from real_servers import Certificates, Run

NEEDS = ["resty.http"]

START = """
    local http = require "resty.http"
    local httpc = http.new()
    httpc:set_timeouts(1000, 1000, 1000)
"""


@dataclass
class Peer:
    """An HTTP server, a proxy, and the same behind TLS, all of it in a few lines.

    Attributes:
        seen: The heads of the requests, and the bodies that came with them.
    """

    port: int = 0
    tls_port: int = 0
    seen: list[str] = field(default_factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            buffer = b""
            async for data in stream:
                buffer += bytes(data)
                while b"\r\n\r\n" in buffer:
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    text = head.decode()
                    self.seen.append(text)
                    if text.startswith("CONNECT "):
                        await self._tunnel(stream, text)
                        return
                    if "expect: 100-continue" in text.lower():
                        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                    if "content-length: " in text.lower():
                        length = int(text.lower().partition("content-length: ")[2].split("\r\n")[0])
                        while len(buffer) < length:
                            buffer += bytes(await stream.receive_some())
                        self.seen.append(buffer[:length].decode())
                        buffer = buffer[length:]
                    await stream.send_all(_response(text))
                    if "/close" in text:
                        await stream.aclose()
                        return

    async def _tunnel(self, client: trio.abc.Stream, head: str) -> None:
        """CONNECT: bytes go through to our own port for TLS."""
        await client.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        target = await trio.open_tcp_stream("127.0.0.1", self.tls_port)

        async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for data in source:
                    await sink.send_all(data)

        async with target, trio.open_nursery() as nursery:
            nursery.start_soon(copy, target, client)
            await copy(client, target)
            nursery.cancel_scope.cancel()


def _response(head: str) -> bytes:
    method, path, _ = head.split("\r\n")[0].split(" ")
    if "/chunks" in path:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (b"one", b"two", b"3"))
        fields = b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        # the library looks for trailers behind the empty line
        trailers = b"X-Sum: 7\r\n\r\n" if "TE: trailers" in head else b""
        return b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + chunks + b"0\r\n\r\n" + trailers
    if "/close" in path:
        return b"HTTP/1.0 200 Fine\r\n\r\nuntil the end"
    if "/large" in path:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000000
    if "/silent" in path:
        return b""
    if "/none" in path:
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    body = f"{method} {path}".encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    return answer if method == "HEAD" else answer + body


@pytest.fixture
def open_peer(
    certificates: Certificates,
) -> Callable[[], contextlib.AbstractAsyncContextManager[Peer]]:
    @contextlib.asynccontextmanager
    async def open_it() -> AsyncIterator[Peer]:
        peer = Peer()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.chain, certificates.key)
        plain = await trio.open_tcp_listeners(0, host="127.0.0.1")
        secure = await trio.open_ssl_over_tcp_listeners(
            0, context, host="127.0.0.1", https_compatible=True
        )
        peer.port = plain[0].socket.getsockname()[1]
        peer.tls_port = secure[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, peer.serve, plain)
            await nursery.start(trio.serve_listeners, peer.serve, secure)
            yield peer
            nursery.cancel_scope.cancel()

    return open_it


Open = Callable[[], contextlib.AbstractAsyncContextManager[Peer]]


async def test_single_shots(run: Run, open_peer: Open) -> None:
    async with open_peer() as peer:
        code = f"""
            {START}
            local base = "http://127.0.0.1:{peer.port}"
            local res = assert(httpc:request_uri(base .. "/a?b=c"))
            ngx.say(res.status, " ", res.reason, " ", res.headers["content-length"], " ", res.body)
            res = assert(httpc:request_uri(base, {{
                method = "POST", path = "/p", query = {{ x = "1 2" }}, body = "a=1&b=2",
                headers = {{ ["Content-Type"] = "text/plain", ["X-Two"] = {{ "a", "b" }} }},
            }}))
            ngx.say(res.body)
            res = assert(httpc:request_uri(base .. "/chunks"))
            ngx.say(res.body, " ", table.concat(res.headers["Set-Cookie"], " "))
            ngx.say(httpc:request_uri(base .. "/close").body)
            ngx.say(#httpc:request_uri(base .. "/large", {{ keepalive = false }}).body)
            ngx.say(httpc:request_uri(base .. "/none").status)
            ngx.say(#httpc:request_uri(base .. "/head", {{ method = "HEAD" }}).body)
            ngx.say(httpc:request_uri("http://127.0.0.1:1/"))
            httpc:set_timeout(20)
            ngx.say(httpc:request_uri(base .. "/silent"))
        """
        lines = await run(code, http="lua_socket_log_errors off;")
    assert lines == [
        "200 OK 10 GET /a?b=c",
        "POST /p?x=1%202",
        "onetwo3 a=1 b=2",
        "until the end",
        "1000000",
        "204",
        "0",
        "nilconnection refused",
        "niltimeout",
    ]
    assert "X-Two: a\r\nX-Two: b" in peer.seen[1]
    assert peer.seen[2] == "a=1&b=2"


async def test_streams(run: Run, open_peer: Open) -> None:
    async with open_peer() as peer:
        code = f"""
            {START}
            local there = {{ scheme = "http", host = "127.0.0.1", port = {peer.port}, pool_size = 2, backlog = 2 }}
            assert(httpc:connect(there))
            local res = assert(httpc:request {{ path = "/chunks", headers = {{ TE = "trailers" }} }})
            local pieces = {{}}
            for piece in res.body_reader do pieces[#pieces + 1] = piece end
            res:read_trailers()
            ngx.say(table.concat(pieces, "|"), " ", res.headers["X-Sum"])
            ngx.say(httpc:set_keepalive(10000, 2))
            assert(httpc:connect(there))
            ngx.say(httpc:get_reused_times())
            res = assert(httpc:request {{ path = "/large" }})
            local n, most = 0, 0
            for piece in res.body_reader, 8192 do n, most = n + #piece, math.max(most, #piece) end
            ngx.say(n, " ", most)
            res = assert(httpc:request {{ path = "/body", method = "PUT", headers = {{
                ["Content-Length"] = 6, Expect = "100-continue" }}, body = coroutine.wrap(function()
                coroutine.yield("abc") coroutine.yield("def") end) }})
            ngx.say(res.has_body, " ", res:read_body())
            res = assert(httpc:request {{ version = 1.0, path = "/close" }})
            ngx.say(res:read_body())
            ngx.say(httpc:set_keepalive())
            ngx.say(httpc:close())
        """
        lines = await run(code, http="lua_socket_log_errors off;")
    assert lines == [
        "one|two|3 7",
        "1",
        "1",
        "1000000 8192",
        "true PUT /body",
        "until the end",
        "2connection must be closed",
        "nilclosed",
    ]
    assert "abcdef" in peer.seen


async def test_pipeline(run: Run, open_peer: Open) -> None:
    async with open_peer() as peer:
        code = f"""
            {START}
            assert(httpc:connect {{ scheme = "http", host = "127.0.0.1", port = {peer.port} }})
            local responses = httpc:request_pipeline {{ {{ path = "/b" }}, {{ path = "/chunks" }}, {{ path = "/d" }} }}
            for _, r in ipairs(responses) do
                ngx.say(r.status, " ", r:read_body())
            end
            ngx.say(httpc:set_keepalive())
        """
        assert await run(code) == ["200 GET /b", "200 onetwo3", "200 GET /d", "1"]


async def test_tls(run: Run, open_peer: Open, certificates: Certificates) -> None:
    async with open_peer() as peer:
        code = f"""
            {START}
            local base = "https://127.0.0.1:{peer.tls_port}/x"
            ngx.say(httpc:request_uri(base, {{ ssl_server_name = "test.local" }}).body)
            ngx.say(httpc:request_uri(base, {{ ssl_server_name = "other.local" }}))
            ngx.say(httpc:request_uri(base, {{ ssl_verify = false }}).body)
            local there = {{ scheme = "https", host = "127.0.0.1", port = {peer.tls_port},
                ssl_server_name = "test.local" }}
            local ok, err, session = httpc:connect(there)
            ngx.say(ok, " ", httpc:get_reused_times())
            httpc:request({{ path = "/y" }}):read_body()
            httpc:close()
            there.ssl_reused_session = session
            ngx.say(httpc:connect(there) and httpc:request({{ path = "/z" }}):read_body())
            httpc:close()
        """
        http = f"lua_ssl_trusted_certificate {certificates.authority}; lua_socket_log_errors off;"
        lines = await run(code, http=http)
    assert lines == [
        "GET /x",
        "nilcertificate host mismatch",
        "GET /x",
        "true 1",
        "GET /z",
    ]


async def test_proxies(run: Run, open_peer: Open, certificates: Certificates) -> None:
    async with open_peer() as peer:
        code = f"""
            {START}
            local proxy = "http://127.0.0.1:{peer.port}"
            local options = {{
                http_proxy = proxy, http_proxy_authorization = "Basic abc",
                https_proxy = proxy, https_proxy_authorization = "Basic def",
                no_proxy = "127.0.0.1,local.test",
            }}
            httpc:set_proxy_options(options)
            ngx.say(httpc:request_uri("http://example.test/a").body)
            httpc = http.new()
            httpc:set_proxy_options(options)
            ngx.say(httpc:request_uri("https://test.local/b", {{ ssl_server_name = "test.local" }}).body)
            ngx.say(httpc:request_uri("http://127.0.0.1:1/"))
        """
        http = f"lua_ssl_trusted_certificate {certificates.authority}; lua_socket_log_errors off;"
        lines = await run(code, http=http)
    assert lines == ["GET http://example.test/a", "GET /b", "nilconnection refused"]
    assert "Proxy-Authorization: Basic abc" in peer.seen[0]
    assert peer.seen[1].startswith("CONNECT test.local:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic def" in peer.seen[1]


async def test_unix_socket_and_client_body(run: Run, tmp_path: Path) -> None:
    """A location that hands its request on to another one, piece by piece, over a unix socket."""
    code = f"""
        {START}
        ngx.req.read_body()
        assert(httpc:connect {{ host = "unix:{tmp_path}/s" }})
        local res = assert(httpc:request {{ method = "POST", path = "/relay",
            headers = {{ Host = "relay" }}, body = ("x"):rep(100000) }})
        ngx.say(res:read_body())
        ngx.say(httpc:set_keepalive())
    """
    more = f"""
        location /relay {{
            client_max_body_size 1m;
            content_by_lua_block {{
                {START}
                local reader = assert(httpc:get_client_body_reader(30000))
                assert(httpc:connect {{ host = "unix:{tmp_path}/s" }})
                local res = assert(httpc:request {{ method = "POST", path = "/count", body = reader,
                    headers = {{ Host = "count", ["Content-Length"] = ngx.var.content_length }} }})
                ngx.print("relayed: ", res:read_body())
            }}
        }}
        location /count {{
            content_by_lua_block {{
                local reader, n, pieces = httpc, 0, 0
                {START}
                for piece in assert(httpc:get_client_body_reader(30000)) do
                    n, pieces = n + #piece, pieces + 1
                end
                ngx.print(n, " in ", pieces >= 4)
            }}
        }}
    """
    assert await run(code, more=more, listen=f"{tmp_path}/s") == ["relayed: 100000 in true", "1"]


async def test_uris(run: Run) -> None:
    code = f"""
        {START}
        for _, uri in ipairs {{ "http://a.b/c?d=e", "https://[::1]:8443/", "//x.y", "nonsense" }} do
            local parts, err = httpc:parse_uri(uri, false)
            ngx.say(parts and table.concat(parts, " ") or err)
        end
    """
    assert await run(code) == [
        "http a.b 80 /c d=e",
        "https [::1] 8443 / ",
        "http x.y 80 / ",
        "bad uri: nonsense",
    ]
