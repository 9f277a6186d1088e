"""Cosockets against a real memcached."""

from __future__ import annotations

from real_servers import Service, run


async def test_text_protocol(memcached: Service) -> None:
    code = f"""
        local sock = ngx.socket.tcp()
        assert(sock:connect("unix:{memcached.path}"))
        assert(sock:send({{ "set k 0 0 ", 5, "\\r\\n", {{ "hel", "lo" }}, "\\r\\n" }}))
        ngx.say(sock:receive())
        assert(sock:send("get k\\r\\n"))
        ngx.say(sock:receiveuntil("END\\r\\n")():gsub("\\r\\n", "|"))
    """
    assert await run(code) == ["STORED", "VALUE k 0 5|hello|2"]


async def test_large_values_over_tls(memcached: Service) -> None:
    code = f"""
        local size = 500000
        local sock = ngx.socket.tcp()
        assert(sock:connect("127.0.0.1", {memcached.tls_port}))
        assert(sock:sslhandshake(nil, "test.local", true))
        assert(sock:send({{ "set large 0 0 ", size, "\\r\\n", ("v"):rep(size), "\\r\\n" }}))
        ngx.say(sock:receive())
        assert(sock:send("get large\\r\\n"))
        ngx.say(sock:receive())
        ngx.say(sock:receive(size) == ("v"):rep(size), " ", sock:receive(2) == "\\r\\n", " ", sock:receive())
        assert(sock:setkeepalive())
        assert(sock:connect("127.0.0.1", {memcached.tls_port}))
        assert(sock:sslhandshake(nil, "test.local", true))
        ngx.say(sock:getreusedtimes())
    """
    http = f"lua_ssl_trusted_certificate {memcached.authority};"
    assert await run(code, http=http) == [
        "STORED",
        "VALUE large 0 500000",
        "true true END",
        "1",
    ]
