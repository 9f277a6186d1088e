"""Cosockets against a real MariaDB, which speaks a binary protocol and speaks first."""

from __future__ import annotations

from real_servers import DATABASE, Service, run

#: ``connect()`` logs in as a user without a password; ``query(sock, text)`` returns rows of texts.
CLIENT = f"""
    local function number(text)
        local n = 0
        for i = #text, 1, -1 do n = n * 256 + text:byte(i) end
        return n
    end
    local function packet(sock)
        local head = assert(sock:receive(4))
        return assert(sock:receive(number(head:sub(1, 3)))), head:byte(4)
    end
    local function send(sock, sequence, body)
        local n = #body
        assert(sock:send(string.char(n % 256, math.floor(n / 256), 0, sequence) .. body))
    end
    local function connect(...)
        local sock = ngx.socket.tcp()
        assert(sock:connect(...))
        if sock:getreusedtimes() == 0 then
            assert(packet(sock):byte() == 10)
            -- protocol 4.1, a database, authentication by plugin
            send(sock, 1, "\\8\\130\\8\\0\\0\\0\\0\\1\\45" .. ("\\0"):rep(23)
                .. "nobody\\0\\0{DATABASE}\\0mysql_native_password\\0")
            assert(packet(sock):byte() == 0)
        end
        return sock
    end
    local function texts(row)
        local list, at = {{}}, 1
        while at <= #row do
            local n = row:byte(at)
            list[#list + 1] = row:sub(at + 1, at + n)
            at = at + 1 + n
        end
        return list
    end
    local function query(sock, text)
        send(sock, 0, "\\3" .. text)
        local head = packet(sock)
        if head:byte() == 255 then
            return nil, head:sub(10)
        elseif head:byte() == 0 then
            return {{}}
        end
        for i = 1, head:byte() + 1 do packet(sock) end
        local rows = {{}}
        while true do
            local row = packet(sock)
            if row:byte() == 255 then return nil, row:sub(10) end
            if row:byte() == 254 and #row < 9 then return rows end
            rows[#rows + 1] = texts(row)
        end
    end
"""


async def test_queries(mariadb: Service) -> None:
    code = f"""
        {CLIENT}
        local sock = connect("unix:{mariadb.path}")
        ngx.say(query(sock, "SELECT 6 * 7")[1][1])
        local rows = query(sock, "SELECT 'a', REPEAT('b', 200) UNION SELECT 'c', 'd'")
        ngx.say(#rows, " ", rows[1][1], " ", #rows[1][2], " ", rows[2][2])
        ngx.say(query(sock, "SELEKT"))
        assert(sock:setkeepalive())
        ngx.say(query(connect("unix:{mariadb.path}"), "SELECT CURRENT_USER()")[1][1])
    """
    lines = await run(code)
    assert lines[:2] == ["42", "2 a 200 d"]
    assert lines[2].startswith("nilYou have an error in your SQL syntax")
    assert lines[3] == "nobody@%"


async def test_queries_do_not_wait_for_each_other(mariadb: Service) -> None:
    """One sleeps for a minute in the database; the other is back before, and then ends it."""
    code = f"""
        {CLIENT}
        local slow = connect("127.0.0.1", {mariadb.port})
        local id = query(slow, "SELECT CONNECTION_ID()")[1][1]
        local thread = ngx.thread.spawn(function()
            return query(slow, "SELECT SLEEP(60)")
        end)
        local quick = connect("127.0.0.1", {mariadb.port})
        ngx.say(query(quick, "SELECT 1")[1][1])
        ngx.say(coroutine.status(thread))
        query(quick, "KILL QUERY " .. id)
        local ok, rows, err = ngx.thread.wait(thread)
        ngx.say(rows and rows[1][1] or err)
    """
    lines = await run(code)
    assert lines[:2] == ["1", "running"]
    assert lines[2] == "1" or "interrupted" in lines[2]
