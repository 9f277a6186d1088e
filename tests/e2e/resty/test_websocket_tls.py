"""lua-resty-websocket over TLS: both ends, and clients with certificates."""

from __future__ import annotations

from pathlib import Path

from real_servers import Certificates, Run

NEEDS = ["resty.websocket.client", "resty.websocket.server", "resty.string"]


def server(certificates: Certificates, path: Path, more: str = "") -> str:
    """A server that says what it gets and who has sent it."""
    return f"""
        lua_ssl_trusted_certificate {certificates.authority};
        lua_socket_log_errors off;
        server {{
            listen unix:{path} ssl;
            ssl_certificate {certificates.chain};
            ssl_certificate_key {certificates.key};
            {more}
            location /ws {{
                content_by_lua_block {{
                    local wb = assert(require("resty.websocket.server"):new({{ max_payload_len = 200000 }}))
                    while true do
                        local data, kind, err = wb:recv_frame()
                        if kind ~= "text" then
                            return wb:send_close(1000, "bye")
                        end
                        wb:send_text(#data > 100 and data or data .. " from " .. ngx.var.http_host
                            .. " " .. ngx.var.ssl_server_name .. " " .. ngx.var.ssl_client_verify)
                    end
                }}
            }}
        }}
    """


async def test_both_ends(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    code = f"""
        local client = require "resty.websocket.client"
        local uri = "wss://unix:{tmp_path}/tls:/ws"
        local function try(options)
            local wb = client:new({{ max_payload_len = 200000 }})
            local ok, err = wb:connect(uri, options)
            if not ok then return ngx.say(err) end
            assert(wb:send_text("hello"))
            ngx.say((wb:recv_frame()))
            local large = ("x"):rep(150000)
            assert(wb:send_text(large))
            ngx.say((wb:recv_frame()) == large)
            wb:send_close()
            ngx.say(wb:recv_frame())
            wb:close()
        end
        try({{ ssl_verify = true, server_name = "test.local", host = "there" }})
        try({{ ssl_verify = true, server_name = "other.local", host = "there" }})
        try({{ ssl_verify = true, host = "test.local" }})
        try({{ ssl_verify = false, server_name = "any.local", host = "there" }})
    """
    lines = await run(code, http=server(certificates, tmp_path / "tls"), secure=f"{tmp_path}/tls")
    closed = ["true", "byeclose1000"]
    assert lines == [
        "hello from there test.local NONE",
        *closed,
        "ssl handshake failed: certificate host mismatch",
        "hello from test.local test.local NONE",
        *closed,
        "hello from there any.local NONE",
        *closed,
    ]


async def test_client_certificates(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    code = f"""
        local client, ssl = require "resty.websocket.client", require "ngx.ssl"
        local function data(path) return assert(io.open(path, "rb")):read("*a") end
        local cert = assert(ssl.parse_pem_cert(data "{certificates.chain}"))
        local key = assert(ssl.parse_pem_priv_key(data "{certificates.key}"))
        local function try(options)
            options.server_name = "test.local"
            local wb = client:new()
            local ok, err = wb:connect("wss://unix:{tmp_path}/tls:/ws", options)
            if not ok then return ngx.say(err) end
            wb:send_text("x")
            ngx.say((wb:recv_frame()))
            wb:close()
        end
        try({{ client_cert = cert, client_priv_key = key, host = "h" }})
        try({{ host = "h" }})
        try({{ client_cert = cert, client_priv_key = ssl.parse_pem_priv_key(data "{certificates.other_key}") }})
    """
    more = f"ssl_verify_client optional; ssl_client_certificate {certificates.authority};"
    lines = await run(
        code, http=server(certificates, tmp_path / "tls", more), secure=f"{tmp_path}/tls"
    )
    assert lines == [
        "x from h test.local SUCCESS",
        "x from h test.local NONE",
        "ssl handshake failed: ssl set client private key failed",
    ]


async def test_rested_connections(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    code = f"""
        local client = require "resty.websocket.client"
        for i = 1, 2 do
            local wb = client:new()
            local _, _, answer = wb:connect("wss://unix:{tmp_path}/tls:/ws",
                {{ server_name = "test.local", host = "h", pool_size = 1, backlog = 1 }})
            ngx.say(answer:match("^[^\\r]*"))
            wb:send_text("x")
            ngx.say((wb:recv_frame()))
            wb:set_keepalive(1000, 1)
        end
    """
    lines = await run(code, http=server(certificates, tmp_path / "tls"), secure=f"{tmp_path}/tls")
    said = "x from h test.local NONE"
    assert lines == ["HTTP/1.1 101 Switching Protocols", said, "connection reused", said]
