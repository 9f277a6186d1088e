"""lua-resty-redis, lua-resty-memcached and lua-resty-http against the peers of the kit.

Their files are not part of the repository, see tests/e2e/test_resty.py.
"""

from __future__ import annotations

import os
import ssl
from typing import Any

import pytest

from trio_lua.testing import Answer, LogRecords, Lua, LuaNetwork

LIBRARIES = os.environ.get("TRIO_LUA_RESTY_PATH", "")

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="TRIO_LUA_RESTY_PATH is not set")


@pytest.fixture
def lua_options() -> dict[str, Any]:
    return {"package_path": f"{LIBRARIES};;"}


async def test_lua_resty_redis(lua: Lua, lua_network: LuaNetwork) -> None:
    peer = lua_network.redis("redis", data={"dog": "an animal"})
    code = """
        local redis = require "resty.redis"
        local red = redis:new()
        red:set_timeouts(1000, 1000, 1000)
        assert(red:connect("redis", 6379))
        local out = {}
        local function say(...) out[#out + 1] = table.concat({ ... }, " ") end
        say(red:get("dog"), tostring(red:get("none") == ngx.null))
        red:init_pipeline()
        red:set("cat", "Marry")
        red:get("cat")
        red:lpush("list", "a", "b")
        red:lrange("list", 0, -1)
        local results = red:commit_pipeline()
        say(results[2], results[3], table.concat(results[4], ","))
        say(select(2, red:nonsense()))
        red:multi()
        red:incr("x")
        red:incr("x")
        say(table.concat(red:exec(), ","))
        red:hmset("hash", { a = 1, b = 2 })
        say(red:array_to_hash(red:hgetall("hash")).b)
        red:set_keepalive(10000, 10)
        local one, two = redis:new(), redis:new()
        one:connect("redis", 6379)
        say(one:get_reused_times())
        two:connect("redis", 6379)
        say(table.concat(one:subscribe("news"), " "))
        local publisher = ngx.thread.spawn(function() two:publish("news", "hello") end)
        say(table.concat(one:read_reply(), " "))
        one:close()
        ngx.thread.wait(publisher)
        two:close()
        two:close()
        return out
    """
    assert await lua.run(code) == [
        "an animal true",
        "Marry 2 b,a",
        "ERR unknown command 'NONSENSE'",
        "1,2",
        "2",
        "1",
        "subscribe news 1",
        "message news hello",
    ]
    assert peer["cat"] == "Marry"
    assert peer.accepted == 2


async def test_lua_resty_memcached(lua: Lua, lua_network: LuaNetwork) -> None:
    peer = lua_network.memcached("cache", 11211, {"dog": "an animal"})
    code = """
        local memcached = require "resty.memcached"
        local memc = memcached:new()
        memc:set_timeouts(1000, 1000, 1000)
        assert(memc:connect("cache", 11211))
        local out = {}
        local function say(...) out[#out + 1] = table.concat({ ... }, " ") end
        say(memc:get("dog"))
        say(memc:set("a b", { 1, 2 }, 60, 7), memc:get("a b"))
        say(memc:incr("dog", 2) or "no", select(2, memc:add("dog", 1)))
        local value, flags, cas = memc:gets("dog")
        say(memc:cas("dog", "new", cas), select(2, memc:cas("dog", "newer", cas)))
        local all = memc:get({ "dog", "a b", "none" })
        say(all.dog[1], all["a b"][1], tostring(all.none))
        memc:init_pipeline()
        memc:set("one", 1)
        memc:incr("one", 1)
        local results = memc:commit_pipeline()
        say(results[1][1], results[2][1])
        say(memc:touch("one", 5), memc:delete("one"), #memc:stats() > 10 and "stats")
        ngx.sleep(60)
        say(tostring(memc:get("a b")), memc:flush_all(), memc:set_keepalive(1000, 10))
        return out
    """
    assert await lua.run(code) == [
        "an animal 0",
        "1 12 7",
        "no NOT_STORED",
        "1 EXISTS",
        "new 12 nil",
        "1 2",
        "1 1 stats",
        "nil 1 1",
    ]
    assert peer.keys() == []


async def test_lua_resty_http(lua: Lua, lua_network: LuaNetwork, lua_log: LogRecords) -> None:
    lua_log.allow("resty.openssl|read timed out")
    peer = lua_network.http(
        "api",
        80,
        {
            "/json": lambda request: Answer({"got": request.text}, 201, {"X-A": "b"}),
            "/chunks": Answer(chunks=(b"a" * 1000, b"b")),
            "/slow": Answer("late", seconds=2),
        },
    )
    code = """
        local http = require "resty.http"
        local httpc = http.new()
        local out = {}
        local function say(...) out[#out + 1] = table.concat({ ... }, " ") end
        local res = assert(httpc:request_uri("http://api/json", {
            method = "POST", body = "hello", query = { a = "1" },
        }))
        say(res.status, res.headers["x-a"], res.body)
        res = httpc:request_uri("http://api/chunks")
        say(res.status, #res.body)
        res = httpc:request_uri("http://api/none", { method = "HEAD" })
        say(res.status, #res.body)
        httpc:set_timeout(1000)
        say(select(2, httpc:request_uri("http://api/slow")))
        httpc = http.new()
        httpc:connect({ scheme = "http", host = "api", port = 80 })
        res = httpc:request({ path = "/chunks", headers = { Host = "api" } })
        local size = 0
        for chunk in function() return res.body_reader(100) end do size = size + #chunk end
        say(size)
        httpc:close()
        return out
    """
    assert await lua.run(code) == ['201 b {"got": "hello"}', "200 1001", "404 0", "timeout", "1001"]
    assert peer.requests[0].params == {"a": "1"}
    assert peer.accepted == 2


async def test_https(lua: Lua, lua_network: LuaNetwork, lua_log: LogRecords) -> None:
    lua_log.allow("resty.openssl")
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("api").configure_cert(context)
    lua_network.http("api", 443, "secret", tls=context)
    code = """
        local http = require "resty.http"
        local res = assert(http.new():request_uri("https://api/", { ssl_verify = false }))
        return res.body
    """
    assert await lua.run(code) == "secret"
