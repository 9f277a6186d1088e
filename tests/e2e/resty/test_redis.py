"""lua-resty-redis: every feature of its README."""

from __future__ import annotations

from real_servers import Run, Service

NEEDS = ["resty.redis"]

START = """
    local redis = require "resty.redis"
    local red = redis:new()
    red:set_timeouts(1000, 1000, 1000)
"""


async def test_commands(run: Run, redis: Service) -> None:
    code = f"""
        {START}
        assert(red:connect("127.0.0.1", {redis.port}))
        ngx.say(red:set("dog", "an animal"), " ", red:get("dog"))
        ngx.say(red:get("none") == ngx.null)
        ngx.say(select(2, red:eval("return redis.error_reply('no')", 0)))
        ngx.say(red:hmset("animals", {{ dog = "bark", cat = "meow" }}))
        local hash = red:array_to_hash(red:hgetall("animals"))
        ngx.say(hash.dog, " ", hash.cat)
        ngx.say(table.concat(red:hmget("animals", "dog", "cat"), " "))
        redis.add_commands("foo", "strlen")
        ngx.say(red:foo("bar"))
        ngx.say(red:strlen("dog"))
        ngx.say(red:set_keepalive(10000, 10))
        ngx.say(red:get("dog"))
    """
    lines = await run(code, http="lua_socket_log_errors off;")
    assert lines[:6] == ["OK an animalnil", "true", "ERR no", "OKnil", "bark meow", "bark meow"]
    assert "unknown command" in lines[6]
    assert lines[7:] == ["9nil", "1", "nilclosed"]


async def test_pool(run: Run, redis: Service) -> None:
    code = f"""
        {START}
        local options = {{ pool = "mine", pool_size = 1, backlog = 1 }}
        for i = 1, 2 do
            assert(red:connect("unix:{redis.path}", options))
            ngx.say(red:get_reused_times())
            assert(red:set_keepalive())
        end
        assert(red:connect("unix:{redis.path}", options))
        local second = redis:new()
        second:set_timeout(20)
        ngx.say(second:connect("unix:{redis.path}", options))
        local waiting = ngx.thread.spawn(function()
            local third = redis:new()
            third:set_timeout(5000)
            return third:connect("unix:{redis.path}", options)
        end)
        ngx.say(second:connect("unix:{redis.path}", options))
        red:set_keepalive()
        ngx.say(ngx.thread.wait(waiting))
    """
    assert await run(code, http="lua_socket_log_errors off;") == [
        "0",
        "1",
        "niltimeout",
        "niltoo many waiting connect operations",
        "true1nil",
    ]


async def test_pipeline(run: Run, redis: Service) -> None:
    code = f"""
        {START}
        assert(red:connect("unix:{redis.path}"))
        red:del("list")
        red:init_pipeline(4)
        red:set("cat", "Marry")
        red:get("cat")
        red:lpush("list", "a", "b")
        red:lrange("list", 0, -1)
        red:incr("cat")
        local results = red:commit_pipeline()
        ngx.say(results[1], " ", results[2], " ", results[3], " ", table.concat(results[4], ","))
        ngx.say(results[5][1], " ", results[5][2])
        red:init_pipeline()
        red:set("cat", "x")
        red:cancel_pipeline()
        ngx.say(red:get("cat"))
        red:close()
    """
    assert await run(code) == [
        "OK Marry 2 b,a",
        "false ERR value is not an integer or out of range",
        "Marrynil",
    ]


async def test_transaction(run: Run, redis: Service) -> None:
    code = f"""
        {START}
        assert(red:connect("unix:{redis.path}"))
        red:del("x")
        ngx.say(red:multi())
        ngx.say(red:incr("x"), " ", red:incr("x"))
        ngx.say(table.concat(red:exec(), ","))
        red:watch("x")
        red:incr("x")
        red:multi()
        red:incr("x")
        ngx.say(red:exec() == ngx.null)
        red:multi()
        red:incr("x")
        ngx.say(red:discard(), " ", red:get("x"))
        red:close()
    """
    assert await run(code) == ["OKnil", "QUEUED QUEUEDnil", "1,2", "true", "OK 3nil"]


async def test_publish_and_subscribe(run: Run, redis: Service) -> None:
    code = f"""
        {START}
        local two = redis:new()
        assert(red:connect("unix:{redis.path}"))
        assert(two:connect("unix:{redis.path}"))
        ngx.say(table.concat(red:subscribe("news"), " "))
        ngx.say(table.concat(red:psubscribe("n*"), " "))
        ngx.thread.spawn(function() two:publish("news", "hello") end)
        ngx.say(table.concat(red:read_reply(), " "))
        ngx.say(table.concat(red:read_reply(), " "))
        red:set_timeout(10)
        ngx.say(red:read_reply())
        ngx.say(select(2, red:get("x")):match("only .* are allowed in this context") ~= nil)
        ngx.say(red:set_keepalive())
        red:set_timeout(1000)
        ngx.say(table.concat(red:unsubscribe(), " "))
        red:close()
        two:close()
    """
    lines = await run(code, http="lua_socket_log_errors off;")
    assert lines == [
        "subscribe news 1",
        "psubscribe n* 2",
        "message news hello",
        "pmessage n* news hello",
        "niltimeout",
        "true",
        "nilsubscribed state",
        "unsubscribe news 1",
    ]


async def test_tls(run: Run, redis: Service) -> None:
    code = f"""
        {START}
        local options = {{ ssl = true, ssl_verify = true, server_name = "test.local" }}
        for i = 1, 2 do
            assert(red:connect("127.0.0.1", {redis.tls_port}, options))
            ngx.say(red:set("tls", ("x"):rep(50000)), " ", #red:get("tls"), " ", red:get_reused_times())
            assert(red:set_keepalive())
        end
        options.server_name = "other.local"
        options.pool = "other"
        ngx.say(red:connect("127.0.0.1", {redis.tls_port}, options))
    """
    http = f"lua_ssl_trusted_certificate {redis.authority}; lua_socket_log_errors off;"
    lines = await run(code, http=http)
    assert lines[:2] == ["OK 50000 0", "OK 50000 1"]
    assert "certificate host mismatch" in lines[2]


async def test_timeouts_and_refusal(run: Run, redis: Service) -> None:
    code = f"""
        {START}
        ngx.say(red:connect("127.0.0.1", 1))
        ngx.say(red:connect("unix:{redis.path}.none"))
        assert(red:connect("unix:{redis.path}"))
        red:set_timeout(10)
        ngx.say(red:blpop("nothing", 1))
        ngx.say(red:get("dog"))
    """
    lines = await run(code, http="lua_socket_log_errors off;")
    assert lines == [
        "nilconnection refused",
        "nilno such file or directory",
        "niltimeout",
        "niltimeout",
    ]
