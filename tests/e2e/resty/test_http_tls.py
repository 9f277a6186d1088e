"""lua-resty-http: TLS, client certificates (those need lua-resty-openssl, too) and proxies."""

from __future__ import annotations

from collections.abc import Callable

from http_peer import http_peer
from real_servers import Certificates, Run

NEEDS = ["resty.http"]

START = """
    local http = require "resty.http"
    local httpc = http.new()
    httpc:set_timeouts(1000, 1000, 1000)
"""


async def test_tls(run: Run, certificates: Certificates) -> None:
    async with http_peer(certificates) as peer:
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


async def test_proxies(run: Run, certificates: Certificates) -> None:
    async with http_peer(certificates) as peer:
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


async def test_rested_connections(run: Run, certificates: Certificates) -> None:
    """A connection from the pool has its handshake behind it; the pool's name tells who was verified."""
    async with http_peer(certificates) as peer:
        code = f"""
            {START}
            local there = {{ scheme = "https", host = "127.0.0.1", port = {peer.tls_port}, ssl_verify = false,
                ssl_send_status_req = true }}
            for i = 1, 2 do
                assert(httpc:connect(there))
                ngx.say(httpc:request({{ path = "/" .. i }}):read_body(), " ", httpc:get_reused_times())
                httpc:set_keepalive()
            end
            there.ssl_verify = true
            there.ssl_server_name = "test.local"
            assert(httpc:connect(there))
            ngx.say(httpc:get_reused_times())
            httpc:close()
        """
        lines = await run(code, http=f"lua_ssl_trusted_certificate {certificates.authority};")
    assert lines == ["GET /1 0", "GET /2 1", "0"]


async def test_client_certificates(
    run: Run, need: Callable[[str], None], certificates: Certificates
) -> None:
    need("resty.openssl")
    async with http_peer(certificates, client_authority=str(certificates.authority)) as peer:
        code = f"""
            {START}
            local ssl = require "ngx.ssl"
            local function data(path) return assert(io.open(path, "rb")):read("*a") end
            local uri = "https://127.0.0.1:{peer.tls_port}/x"
            local options = {{
                ssl_server_name = "test.local",
                ssl_client_cert = assert(ssl.parse_pem_cert(data "{certificates.chain}")),
                ssl_client_priv_key = assert(ssl.parse_pem_priv_key(data "{certificates.key}")),
            }}
            local own_key = options.ssl_client_priv_key
            ngx.say((httpc:request_uri(uri, {{ ssl_server_name = "test.local" }})))
            if #setmetatable({{}}, {{ __len = function() return 1 end }}) == 1 then
                for _ = 1, 2 do
                    assert(assert(httpc:request_uri(uri, options)).body == "GET /x")
                end
                options.ssl_client_priv_key = assert(ssl.parse_pem_priv_key(data "{certificates.other_key}"))
            end
            local _, err = httpc:request_uri(uri, options)
            ngx.say(err:match("^the private key doesn't match") or err)
            -- what works with each LuaJIT
            httpc = http.new()
            assert(httpc:connect("127.0.0.1", {peer.tls_port}))
            assert(httpc.sock:setclientcert(options.ssl_client_cert, own_key))
            assert(httpc:ssl_handshake(nil, "test.local", true))
            ngx.say(httpc:request({{ path = "/y", headers = {{ Host = "test.local" }} }}):read_body())
            httpc:close()
        """
        http = f"lua_ssl_trusted_certificate {certificates.authority}; lua_socket_log_errors off;"
        lines = await run(code, http=http)
    # the library asks a table for its length, which LuaJIT tells only when it was built for that (LUA52COMPAT)
    assert lines[0] == "nil"
    assert lines[1] in ("the private key doesn't match", "no cert in ssl_client_cert")
    assert lines[2] == "GET /y"


async def test_openssl_looks_into_certificates(
    run: Run, need: Callable[[str], None], certificates: Certificates
) -> None:
    """What lua-resty-http does with ``ssl_client_cert`` in front of a connection."""
    need("resty.openssl")
    code = f"""
        local ffi, ssl = require "ffi", require "ngx.ssl"
        local chains, x509, pkey = require "resty.openssl.x509.chain", require "resty.openssl.x509", require "resty.openssl.pkey"
        local function data(path) return assert(io.open(path, "rb")):read("*a") end
        local parsed = assert(ssl.parse_pem_cert(data "{certificates.chain}"))
        local chain = assert(chains.dup(ffi.cast("OPENSSL_STACK*", parsed)))
        local cert = assert(x509.dup(chain[1].ctx))
        for _, name in ipairs {{ "{certificates.key}", "{certificates.other_key}" }} do
            local parsed_key = assert(ssl.parse_pem_priv_key(data(name)))
            local key = assert(pkey.new(ffi.cast("EVP_PKEY*", parsed_key)))
            ffi.gc(key.ctx, nil)
            ngx.say((cert:check_private_key(key)))
        end
        ngx.say(#cert:digest("sha256"))
        -- the other way round
        local sock = ngx.socket.tcp()
        ngx.say(sock:setclientcert(chain.ctx, assert(pkey.new(data "{certificates.key}")).ctx))
    """
    assert await run(code) == ["true", "false", "32", "true"]
