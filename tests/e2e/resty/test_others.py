"""lua-resty-lock, -dns, -limit-traffic and -lrucache."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from real_servers import Run

NEEDS = [
    "resty.lock",
    "resty.dns.resolver",
    "resty.limit.req",
    "resty.lrucache",
]


async def test_lock(run: Run) -> None:
    code = """
        local resty_lock = require "resty.lock"
        local lock = assert(resty_lock:new("locks", { timeout = 5, exptime = 5, step = 0.001 }))
        ngx.say(lock:lock("key"))
        ngx.say(lock:expire(2))
        local order = {}
        local threads = {}
        for i = 1, 3 do
            threads[i] = ngx.thread.spawn(function()
                local mine = assert(resty_lock:new("locks", { timeout = 5, step = 0.001, max_step = 0.002 }))
                assert(mine:lock("key"))
                order[#order + 1] = "in"
                ngx.sleep(0.002)
                order[#order + 1] = "out"
                assert(mine:unlock())
            end)
        end
        local late = assert(resty_lock:new("locks", { timeout = 0 }))
        ngx.say(late:lock("key"))
        assert(lock:unlock())
        for i = 1, 3 do assert(ngx.thread.wait(threads[i])) end
        ngx.say(table.concat(order, " "))
        ngx.say(lock:unlock())
        ngx.say(resty_lock:new("none"))
    """
    lines = await run(code, http="lua_shared_dict locks 100k;")
    assert lines == [
        "0",
        "true",
        "niltimeout",
        "in out in out in out",
        "nilunlocked",
        "nildictionary not found",
    ]


def _name(text: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"


def _answer(query: bytes, *, truncated: bool) -> bytes:
    """What a name server says: an alias and an address, or that there is no such name."""
    question = query[12:]
    known = question.startswith(_name("www.test"))
    flags = 0x8180 | (0x0200 if truncated else 0) | (0 if known else 3)
    records = b""
    if known and not truncated:
        kind = struct.unpack("!H", question[len(_name("www.test")) :][:2])[0]
        data = {1: b"\x0a\0\0\1", 28: bytes(15) + b"\1", 16: b"\5hello", 15: b"\0\5\xc0\x0c"}[kind]
        target = _name("host.test")
        records = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, len(target)) + target
        records += target + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
    head = query[:2] + struct.pack("!HHHHH", flags, 1, 2 if records else 0, 0, 0)
    return head + question + records


@asynccontextmanager
async def name_server(*, truncating: bool = False) -> AsyncIterator[int]:
    """A name server over UDP and TCP; its port."""

    async def serve_datagrams(sock: trio.socket.SocketType) -> None:
        while True:
            data, peer = await sock.recvfrom(512)
            await sock.sendto(_answer(data, truncated=truncating), peer)

    async def serve_stream(stream: trio.SocketStream) -> None:
        data = b""
        async for piece in stream:
            data += bytes(piece)
            if len(data) > 2 and len(data) == 2 + struct.unpack("!H", data[:2])[0]:
                answer = _answer(data[2:], truncated=False)
                await stream.send_all(struct.pack("!H", len(answer)) + answer)
                data = b""

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", port))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_datagrams, sock)
            await nursery.start(trio.serve_listeners, serve_stream, listeners)
            yield port
            nursery.cancel_scope.cancel()


DNS = """
    local resolver = require "resty.dns.resolver"
    local r = assert(resolver:new { nameservers = { { "127.0.0.1", PORT } }, retrans = 2, timeout = 1000 })
    local function show(answers, err)
        if not answers then return ngx.say(err) end
        if answers.errcode then return ngx.say(answers.errcode, " ", answers.errstr) end
        for _, a in ipairs(answers) do
            ngx.say(a.name, " ", a.type, " ", a.address or a.cname or a.txt or a.exchange, " ", a.ttl)
        end
    end
"""


async def test_dns(run: Run) -> None:
    async with name_server() as port:
        code = (
            DNS.replace("PORT", str(port))
            + """
            show(r:query("www.test", { qtype = r.TYPE_A }))
            show(r:query("www.test", { qtype = r.TYPE_AAAA }))
            show(r:query("www.test", { qtype = r.TYPE_TXT }))
            show(r:query("none.test"))
            show(r:tcp_query("www.test"))
            ngx.say(resolver.arpa_str("10.0.0.1"), " ", resolver.compress_ipv6_addr("ff01:0:0:0:0:0:0:43"))
            r:destroy()
        """
        )
        lines = await run(code, http="lua_socket_log_errors off;")
    alias = "www.test 5 host.test 60"
    assert lines == [
        alias,
        "host.test 1 10.0.0.1 60",
        alias,
        "host.test 28 0:0:0:0:0:0:0:1 60",
        alias,
        "host.test 16 hello 60",
        "3 name error",
        alias,
        "host.test 1 10.0.0.1 60",
        "1.0.0.10.in-addr.arpa ff01::43",
    ]


async def test_dns_goes_on_with_tcp(run: Run) -> None:
    async with name_server(truncating=True) as port:
        code = DNS.replace("PORT", str(port)) + 'show(r:query("www.test")) r:destroy()'
        assert (await run(code))[1] == "host.test 1 10.0.0.1 60"


async def test_dns_timeout(run: Run) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        code = DNS.replace("PORT", str(sock.getsockname()[1])).replace("1000", "10")
        lines = await run(code + 'show(r:query("x.test"))', http="lua_socket_log_errors off;")
    assert "timeout" in lines[0]


async def test_limits(run: Run) -> None:
    code = """
        local limit_req, limit_conn = require "resty.limit.req", require "resty.limit.conn"
        local limit_count, traffic = require "resty.limit.count", require "resty.limit.traffic"
        local req = assert(limit_req.new("limits", 2, 1))
        ngx.say((req:incoming("r", true)))
        local delay = req:incoming("r", true)
        ngx.say(delay > 0.3 and delay <= 0.5)
        ngx.say(req:incoming("r", true))
        req:set_rate(1000)
        req:set_burst(100)
        ngx.say(req:uncommit("r"))
        local conn = assert(limit_conn.new("limits", 1, 1, 0.5))
        ngx.say(conn:incoming("c", true))
        ngx.say(conn:incoming("c", true))
        ngx.say(conn:incoming("c", true))
        ngx.say(conn:is_committed(), " ", conn:leaving("c", 0.1))
        local count = assert(limit_count.new("limits", 2, 60))
        ngx.say(count:incoming("n", true))
        ngx.say(count:incoming("n", true))
        ngx.say(count:incoming("n", true))
        local states = {}
        ngx.say(traffic.combine({ count, conn }, { "other", "other" }, states))
    """
    lines = await run(code, http="lua_shared_dict limits 1m;")
    assert lines == [
        "0",
        "true",
        "nilrejected",
        "true",
        "01",
        "0.52",
        "nilrejected",
        "false 1",
        "01",
        "00",
        "nilrejected",
        "0",
    ]


async def test_caches(run: Run) -> None:
    code = """
        for _, name in ipairs { "resty.lrucache", "resty.lrucache.pureffi" } do
            local cache = assert(require(name).new(2))
            cache:set("a", 1)
            cache:set("b", { 2 }, 0.001, 7)
            cache:get("a")
            ngx.say(cache:get("a"), " ", cache:get("b")[1], " ", cache:count())
            ngx.sleep(0.005)
            local value, stale, flags = cache:get("b")
            ngx.say(value, " ", stale[1], " ", flags)
            cache:set("c", 3)
            cache:set("d", 4)
            ngx.say(cache:get("a"))
            cache:delete("d")
            ngx.say(cache:get("d"), " ", #cache:get_keys())
            cache:flush_all()
            ngx.say(cache:get("c"), " ", cache:capacity())
        end
    """
    assert await run(code) == ["1 2 2", "nil 2 7", "nil", "nil 1", "nil 2"] * 2
