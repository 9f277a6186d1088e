"""Cosockets against a real redis, with a client of a few lines."""

from __future__ import annotations

from real_servers import Service, run

#: ``call(sock, ...)`` sends a command and returns its reply; ``reply(sock)`` reads one.
CLIENT = """
    local function reply(sock)
        local line = assert(sock:receive())
        local kind, text = line:sub(1, 1), line:sub(2)
        if kind == "$" then
            return text ~= "-1" and sock:receive(tonumber(text) + 2):sub(1, -3) or nil
        elseif kind == "*" then
            local list = {}
            for i = 1, tonumber(text) do list[i] = reply(sock) end
            return list
        end
        return kind == "-" and error(text, 0) or tonumber(text) or text
    end
    local function request(...)
        local parts = { "*" .. select("#", ...) .. "\\r\\n" }
        for _, word in ipairs { ... } do
            parts[#parts + 1] = { "$", #tostring(word), "\\r\\n", word, "\\r\\n" }
        end
        return parts
    end
    local function call(sock, ...)
        assert(sock:send(request(...)))
        return reply(sock)
    end
"""


async def test_pool_over_a_unix_socket(redis: Service) -> None:
    code = f"""
        {CLIENT}
        for i = 1, 3 do
            local sock = ngx.socket.tcp()
            assert(sock:connect("unix:{redis.path}"))
            ngx.say(call(sock, "INCR", "by hand"), " ", sock:getreusedtimes())
            assert(sock:setkeepalive())
        end
    """
    assert await run(code) == ["1 0", "2 1", "3 2"]


async def test_pipeline_and_transaction(redis: Service) -> None:
    code = f"""
        {CLIENT}
        local sock = ngx.socket.tcp()
        assert(sock:connect("127.0.0.1", {redis.port}))
        local all = {{}}
        for i = 1, 1000 do all[i] = request("SET", "k" .. i, ("v"):rep(i)) end
        assert(sock:send(all))
        for i = 1, 1000 do assert(reply(sock) == "OK") end
        ngx.say(#call(sock, "GET", "k1000"))
        ngx.say(call(sock, "MULTI"), " ", call(sock, "GET", "k1"), " ", call(sock, "STRLEN", "k7"))
        ngx.say(table.concat(call(sock, "EXEC"), " "))
        ngx.say(pcall(call, sock, "INCR", "k1"))
        sock:close()
    """
    assert await run(code) == [
        "1000",
        "OK QUEUED QUEUED",
        "v 7",
        "falseERR value is not an integer or out of range",
    ]


async def test_one_thread_waits_for_what_another_sends(redis: Service) -> None:
    code = f"""
        {CLIENT}
        local listener = ngx.socket.tcp()
        assert(listener:connect("127.0.0.1", {redis.port}))
        ngx.say(table.concat(call(listener, "SUBSCRIBE", "news"), " "))
        local thread = ngx.thread.spawn(function() return reply(listener) end)
        local sock = ngx.socket.tcp()
        assert(sock:connect("127.0.0.1", {redis.port}))
        ngx.say(call(sock, "PUBLISH", "news", "hello"))
        local ok, message = ngx.thread.wait(thread)
        ngx.say(table.concat(message, " "))
    """
    assert await run(code) == ["subscribe news 1", "1", "message news hello"]


async def test_timeout_leaves_the_connection(redis: Service) -> None:
    code = f"""
        {CLIENT}
        local sock = ngx.socket.tcp()
        assert(sock:connect("127.0.0.1", {redis.port}))
        sock:settimeouts(1000, 1000, 10)
        assert(sock:send(request("BLPOP", "nothing here", 0.2)))
        ngx.say(sock:receive())
        sock:settimeout(5000)
        ngx.say(sock:receive())
        ngx.say(call(sock, "PING"))
    """
    http = "lua_socket_log_errors off;"
    assert await run(code, http=http) == ["niltimeout", "*-1", "PONG"]


async def test_tls(redis: Service) -> None:
    code = f"""
        {CLIENT}
        local session
        for i = 1, 2 do
            local sock = ngx.socket.tcp()
            assert(sock:connect("127.0.0.1", {redis.tls_port}))
            session = assert(sock:sslhandshake(session, "test.local", true))
            ngx.say(call(sock, "SET", "secret", ("x"):rep(100000)), " ", #call(sock, "GET", "secret"))
            sock:close()
        end
    """
    http = f"lua_ssl_trusted_certificate {redis.authority};"
    assert await run(code, http=http) == ["OK 100000", "OK 100000"]


async def test_backlog(redis: Service) -> None:
    """Ten threads share two connections, each for a while."""
    code = f"""
        {CLIENT}
        local names, threads = {{}}, {{}}
        for i = 1, 10 do
            threads[i] = ngx.thread.spawn(function()
                local sock = ngx.socket.tcp()
                assert(sock:connect("unix:{redis.path}", {{ pool_size = 2, backlog = 10 }}))
                names[call(sock, "CLIENT", "ID")] = true
                call(sock, "BLPOP", "nothing here", 0.01)
                assert(sock:setkeepalive())
            end)
        end
        for i = 1, 10 do assert(ngx.thread.wait(threads[i])) end
        local n = 0
        for _ in pairs(names) do n = n + 1 end
        ngx.say(n)
    """
    assert await run(code) == ["2"]
