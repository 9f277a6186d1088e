"""lua-resty-websocket, client against server: every feature of its README."""

from __future__ import annotations

from pathlib import Path

from real_servers import Run

NEEDS = ["resty.websocket.client", "resty.websocket.server"]

#: Answers each frame with one of its kind.
SERVER = """
    location /ws {
        lua_socket_log_errors off;
        content_by_lua_block {
            local server = require "resty.websocket.server"
            local wb = assert(server:new({ timeout = 5000, max_payload_len = 200000 }))
            while true do
                local data, kind, err = wb:recv_frame()
                if not data then
                    ngx.log(ngx.WARN, "server: ", err)
                    return wb:send_close(1002, "no frame")
                elseif kind == "close" then
                    return wb:send_close(1000, "seen " .. tostring(err))
                elseif kind == "ping" then
                    wb:send_pong(data)
                elseif kind == "pong" then
                    wb:send_text("pong " .. data)
                elseif kind == "text" and err == "again" then
                    wb:send_frame(false, 1, "part " .. data)
                elseif kind == "continuation" then
                    wb:send_frame(true, 0, "rest " .. data)
                elseif kind == "text" then
                    wb:send_text(data)
                else
                    wb:send_binary(data)
                end
            end
        }
    }
    location /refused { return 403; }
"""


async def test_frames(run: Run, tmp_path: Path) -> None:
    code = f"""
        local client = require "resty.websocket.client"
        local wb = client:new({{ max_payload_len = 200000, timeout = 5000 }})
        ngx.say(wb:connect("ws://unix:{tmp_path}/s:/ws", {{
            protocols = {{ "a", "b" }}, origin = "http://here", headers = {{ "X-More: yes" }} }}))
        assert(wb:send_text("hello"))
        ngx.say(wb:recv_frame())
        for _, size in ipairs {{ 0, 125, 126, 65535, 65536, 150000 }} do
            assert(wb:send_binary(("x"):rep(size)))
            local data, kind = wb:recv_frame()
            ngx.say(#data, " ", kind)
        end
        assert(wb:send_ping("p"))
        ngx.say(wb:recv_frame())
        assert(wb:send_pong("q"))
        ngx.say(wb:recv_frame())
        assert(wb:send_frame(false, 1, "one"))
        assert(wb:send_frame(true, 0, "two"))
        ngx.say(wb:recv_frame())
        ngx.say(wb:recv_frame())
        assert(wb:send_close(1000, "bye"))
        ngx.say(wb:recv_frame())
        ngx.say(wb:send_text("late"))
    """
    lines = await run(code, more=SERVER, listen=f"{tmp_path}/s", http="lua_socket_log_errors off;")
    assert lines[0].startswith("1nilHTTP/1.1 101 Switching Protocols")
    lines = [line for line in lines if line and ": " not in line and "HTTP/" not in line]
    assert lines == [
        "hellotextnil",
        "0 binary",
        "125 binary",
        "126 binary",
        "65535 binary",
        "65536 binary",
        "150000 binary",
        "ppongnil",
        "pong qtextnil",
        "part onetextagain",
        "rest twocontinuationnil",
        "seen 1000close1000",
        "nilalready closed",
    ]


async def test_limits_and_refusals(run: Run, tmp_path: Path) -> None:
    code = f"""
        local client = require "resty.websocket.client"
        local base = "ws://unix:{tmp_path}/s:"
        local wb = client:new({{ max_payload_len = 10 }})
        assert(wb:connect(base .. "/ws"))
        ngx.say(wb:send_text("more than ten bytes"))
        wb = client:new()
        assert(wb:connect(base .. "/ws"))
        wb:set_timeout(10)
        ngx.say(wb:recv_frame())
        wb:close()
        for _, uri in ipairs {{ base .. "/refused", "ws://unix:/none:/ws", "nonsense" }} do
            local ok, err = client:new():connect(uri)
            ngx.say(ok, err)
        end
    """
    lines = await run(code, more=SERVER, listen=f"{tmp_path}/s", http="lua_socket_log_errors off;")
    assert lines == [
        "nilpayload too big",
        "nilnilfailed to receive the first 2 bytes: timeout",
        # the library looks at the version only
        "1nil",
        "nilfailed to connect: no such file or directory",
        "nilbad websocket uri",
    ]


async def test_pooled_client(run: Run, tmp_path: Path) -> None:
    """A connection rests in the pool with its handshake done."""
    code = f"""
        local client = require "resty.websocket.client"
        for i = 1, 2 do
            local wb = client:new()
            assert(wb:connect("ws://unix:{tmp_path}/s:/ws", {{ pool = "ws" }}))
            assert(wb:send_text("again " .. i))
            ngx.say((wb:recv_frame()))
            ngx.say(wb:set_keepalive(1000, 2))
        end
    """
    lines = await run(code, more=SERVER, listen=f"{tmp_path}/s", http="lua_socket_log_errors off;")
    assert lines == ["again 1", "1", "again 2", "1"]


async def test_options_of_both_ends(run: Run, tmp_path: Path) -> None:
    """Limits for one direction, masks where none belong, a key of one's own, subprotocols."""
    code = f"""
        local client = require "resty.websocket.client"
        local uri = "ws://unix:{tmp_path}/s:/options"
        local function try(ours, theirs, message)
            local wb = client:new(ours)
            local ok, err, answer = wb:connect(uri .. "?" .. theirs, {{ protocols = "chat",
                key = "dGhlIHNhbXBsZSBub25jZQ==" }})
            ngx.say(answer:match("Sec%-WebSocket%-Accept: (%S+)") or answer:match("sec%-websocket%-accept: (%S+)"), " ",
                answer:lower():match("sec%-websocket%-protocol: (%S+)"))
            ngx.say(wb:send_text(message))
            ngx.say(wb:recv_frame())
            wb:close()
        end
        try({{}}, "send_masked=1", "hello")
        try({{ send_unmasked = true }}, "", "hello")
        try({{ max_send_len = 3 }}, "", "hello")
        try({{ max_recv_len = 3 }}, "", "hello")
        try({{}}, "max_recv_len=3", "hello")
        try({{}}, "max_send_len=3", "hello")
    """
    more = """
        location /options {
            lua_socket_log_errors off;
            content_by_lua_block {
                local options = { timeout = 2000 }
                for name, value in pairs(ngx.req.get_uri_args()) do options[name] = tonumber(value) end
                local wb = assert(require("resty.websocket.server"):new(options))
                local data, kind, err = wb:recv_frame()
                if kind ~= "text" then
                    return wb:send_close(1002, err)
                end
                if wb:send_text(data) then
                    wb:recv_frame()
                end
            }
        }
    """
    lines = await run(code, more=more, listen=f"{tmp_path}/s", http="lua_socket_log_errors off;")
    accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo= chat"
    # after a bad frame the library sends nothing more
    dead = "nilnilfailed to receive the first 2 bytes: closed"
    assert lines == [
        *[accept, "11nil", "hellotextnil"],
        *[accept, "7nil", dead],
        *[accept, "nilpayload too big", "nilnilfatal error already happened"],
        *[accept, "11nil", "nilnilexceeding max payload len"],
        *[accept, "11nil", dead],
        *[accept, "11nil", dead],
    ]


async def test_frames_of_ones_own(run: Run, tmp_path: Path) -> None:
    """The protocol module over a plain socket, with what no client may send."""
    code = f"""
        local protocol = require "resty.websocket.protocol"
        local function open()
            local sock = assert(ngx.socket.connect("unix:{tmp_path}/s"))
            sock:settimeout(2000)
            sock:send("GET /ws HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n")
            sock:receiveuntil("\\r\\n\\r\\n")()
            return sock
        end
        local sock = open()
        ngx.say(protocol.send_frame(sock, true, 1, "hello", 100, true))
        ngx.say(protocol.recv_frame(sock, 100, false))
        local frame = protocol.build_frame(true, 9, 2, "hi", true)
        for i = 1, #frame do sock:send(frame:sub(i, i)) ngx.sleep(0) end
        ngx.say(protocol.recv_frame(sock, 100, false))
        for _, frame in ipairs {{ "\\241\\128aaaa", "\\131\\128aaaa", "\\129\\1x", "\\9\\128aaaa" }} do
            local bad = open()
            bad:send(frame)
            ngx.say(protocol.recv_frame(bad, 100, false))
            bad:close()
        end
        sock:close()
        local half = open()
        half:send("\\129\\133aaa")
        half:close()
    """
    lines = await run(code, more=SERVER, listen=f"{tmp_path}/s", http="lua_socket_log_errors off;")
    dead = "nilnilfailed to receive the first 2 bytes: closed"
    assert lines == ["11", "hellotextnil", "hipongnil", *[dead] * 4]
