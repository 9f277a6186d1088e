"""lua-resty-http: requests, responses and connections; TLS and proxies are in test_http_tls.py."""

from __future__ import annotations

from pathlib import Path

from http_peer import http_peer
from real_servers import Certificates, Run

NEEDS = ["resty.http"]

START = """
    local http = require "resty.http"
    local httpc = http.new()
    httpc:set_timeouts(1000, 1000, 1000)
"""


async def test_single_shots(run: Run, certificates: Certificates) -> None:
    async with http_peer(certificates) as peer:
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


async def test_streams(run: Run, certificates: Certificates) -> None:
    async with http_peer(certificates) as peer:
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


async def test_pipeline(run: Run, certificates: Certificates) -> None:
    async with http_peer(certificates) as peer:
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


async def test_request_bodies(run: Run, certificates: Certificates) -> None:
    async with http_peer(certificates) as peer:
        code = f"""
            {START}
            assert(httpc:connect("127.0.0.1", {peer.port}, {{ pool = "mine" }}))
            local function put(body, headers)
                return assert(httpc:request {{ method = "PUT", path = "/", body = body, headers = headers }}):read_body()
            end
            ngx.say(put {{ "ab", "cd" }})
            local pieces = {{ "3\\r\\none\\r\\n", "3\\r\\ntwo\\r\\n", "0\\r\\n\\r\\n" }}
            local i = 0
            ngx.say(put(function() i = i + 1 return pieces[i] end, {{ ["Transfer-Encoding"] = "chunked" }}))
            ngx.say(httpc:set_keepalive(1000, 5))
            ngx.say(httpc:connect("127.0.0.1", {peer.port}, {{ pool = "mine" }}), " ", httpc:get_reused_times())
            ngx.say(httpc:request {{ path = "/", body = "x", version = 1.0 }}:read_body())
            httpc:close()
        """
        lines = await run(code)
    assert lines == ["PUT /", "PUT /", "1", "1 1", "GET /"]
    assert peer.seen[1] == "abcd"
    assert peer.seen[3] == "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert peer.seen[4].startswith("GET / HTTP/1.0\r\n")


async def test_pools(run: Run, certificates: Certificates) -> None:
    async with http_peer(certificates) as peer:
        code = f"""
            {START}
            local there = {{ scheme = "http", host = "127.0.0.1", port = {peer.port}, pool = "p", pool_debug = true,
                pool_size = 1, backlog = 1 }}
            assert(httpc:connect(there))
            local waiting = ngx.thread.spawn(function() return http.new():connect(there) end)
            ngx.say(http.new():connect(there))
            httpc:request({{ path = "/" }}):read_body()
            httpc:set_keepalive()
            ngx.say(ngx.thread.wait(waiting))
            local uri = "http://127.0.0.1:{peer.port}/"
            httpc:request_uri(uri, {{ keepalive_timeout = 1000, keepalive_pool = 3 }})
            ngx.say(httpc:request_uri(uri).status)
            ngx.say(httpc:get_reused_times())
        """
        lines = await run(code, http="lua_socket_log_errors off;")
    assert lines == ["niltoo many waiting connect operations", "truetruenilnil", "200", "nilclosed"]


async def test_a_proxy_in_lua(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    """``proxy_request`` and ``proxy_response``, with a body in chunks and without."""
    async with http_peer(certificates) as peer:
        code = f"""
            local function ask(text)
                local sock = assert(ngx.socket.connect("unix:{tmp_path}/s"))
                sock:send(text)
                local answer = sock:receive("*a")
                sock:close()
                ngx.say(answer:match("HTTP/1.1 200 OK") ~= nil, " ", answer:match("\\r\\n\\r\\n(.*)"))
            end
            ask("GET /front/a?b=c HTTP/1.0\\r\\nX-More: yes\\r\\n\\r\\n")
            ask("POST /front/b HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: 5\\r\\n\\r\\nhello")
            ask("GET /front/chunks HTTP/1.0\\r\\n\\r\\n")
        """
        more = f"""
            location /front {{
                content_by_lua_block {{
                    {START}
                    assert(httpc:connect {{ scheme = "http", host = "127.0.0.1", port = {peer.port} }})
                    httpc:proxy_response(assert(httpc:proxy_request(2)), 2)
                    httpc:set_keepalive()
                }}
            }}
        """
        lines = await run(code, more=more, listen=f"{tmp_path}/s")
    assert lines[0] == "true GET /front/a?b=c"
    assert "hello" in peer.seen
    assert "true onetwo3" in lines


async def test_the_body_of_the_client(run: Run, tmp_path: Path) -> None:
    """``get_client_body_reader`` reads chunks, from the client or from another socket."""
    code = f"""
        local sock = assert(ngx.socket.connect("unix:{tmp_path}/s"))
        sock:send("POST /upload HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
        sock:send("4\\r\\nabcd\\r\\n")
        ngx.sleep(0.001)
        sock:send("3\\r\\nefg\\r\\n0\\r\\n\\r\\n")
        ngx.say((sock:receive("*a"):match("\\r\\n\\r\\n.-\\r\\n(.-)\\r\\n")))
        sock:close()
    """
    more = f"""
        location /upload {{
            content_by_lua_block {{
                {START}
                local sock = assert(ngx.req.socket(true))
                local pieces = {{}}
                for piece in assert(httpc:get_client_body_reader(3, sock)) do pieces[#pieces + 1] = piece end
                local text = table.concat(pieces, "|")
                sock:send("HTTP/1.1 200 OK\\r\\n\\r\\nx\\r\\n" .. text .. "\\r\\n")
            }}
        }}
    """
    assert await run(code, more=more, listen=f"{tmp_path}/s") == ["abc|d|efg"]


async def test_a_tunnel_step_by_step(run: Run, certificates: Certificates) -> None:
    """The deprecated way: ``connect_proxy`` and ``ssl_handshake``."""
    async with http_peer(certificates) as peer:
        code = f"""
            {START}
            ngx.say(httpc:connect_proxy("http://127.0.0.1:{peer.port}", "https", "test.local", 443, "Basic abc"))
            ngx.say(type(httpc:ssl_handshake(nil, "test.local", true)))
            ngx.say(httpc:request({{ path = "/b", headers = {{ Host = "test.local" }} }}):read_body())
            httpc:close()
        """
        lines = await run(code, http=f"lua_ssl_trusted_certificate {certificates.authority};")
    assert lines == ["1nil", "cdata", "GET /b"]
    assert peer.seen[0].startswith("CONNECT test.local:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic abc" in peer.seen[0]
