"""lua-resty-memcached: every feature of its README."""

from __future__ import annotations

from real_servers import Run, Service

NEEDS = ["resty.memcached"]

START = """
    local memcached = require "resty.memcached"
    local memc = memcached:new()
    memc:set_timeouts(1000, 1000, 1000)
"""


async def test_commands(run: Run, memcached: Service) -> None:
    code = f"""
        {START}
        assert(memc:connect("unix:{memcached.path}"))
        ngx.say(memc:flush_all())
        ngx.say(memc:set("dog", 32), memc:get("dog"))
        ngx.say(memc:incr("dog", 2), memc:decr("dog", 4))
        ngx.say(memc:add("dog", 1))
        ngx.say(memc:replace("none", 1))
        ngx.say(memc:append("dog", "!"), memc:prepend("dog", "?"))
        ngx.say(memc:get("dog"))
        ngx.say(memc:set("a b", {{ 1, 2, {{ "x" }} }}, 0, 7), memc:get("a b"))
        local all = memc:get({{ "dog", "a b", "none" }})
        ngx.say(all.dog[1], all["a b"][2], all.none)
        local value, flags, cas = memc:gets("dog")
        ngx.say(memc:cas("dog", "new", cas), memc:cas("dog", "newer", cas))
        ngx.say(memc:gets({{ "dog" }}).dog[3] ~= cas)
        ngx.say(memc:touch("dog", 100))
        ngx.say(memc:delete("dog"), memc:get("dog"))
        ngx.say(memc:delete("dog"))
        ngx.say(memc:version():match("^%d+%.") ~= nil, " ", #memc:stats() > 10, memc:verbosity(1))
        ngx.say(memc:set_keepalive(10000, 10))
        assert(memc:connect("unix:{memcached.path}"))
        ngx.say(memc:get_reused_times())
        ngx.say(memc:quit())
    """
    assert await run(code) == [
        "1",
        "1320",
        "3430",
        "nilNOT_STORED",
        "nilNOT_STORED",
        "11",
        "?30!0",
        "112x7",
        "?30!7nil",
        "1nilEXISTS",
        "true",
        "1",
        "1nilnilnil",
        "nilNOT_FOUND",
        "true true1",
        "1",
        "1",
        "1",
    ]


async def test_pipeline(run: Run, memcached: Service) -> None:
    code = f"""
        {START}
        assert(memc:connect("127.0.0.1", {memcached.port}))
        memc:init_pipeline()
        memc:set("one", 1)
        memc:get("one")
        memc:incr("one", 1)
        local results = memc:commit_pipeline()
        ngx.say(results[1][1], results[2][1], results[3][1])
        memc:init_pipeline()
        memc:set("one", 7)
        memc:cancel_pipeline()
        ngx.say((memc:get("one")))
        memc:close()
    """
    assert await run(code) == ["112", "2"]


async def test_tls(run: Run, memcached: Service) -> None:
    code = f"""
        {START}
        for i = 1, 2 do
            assert(memc:connect("127.0.0.1", {memcached.tls_port}, {{ pool = "tls" }}))
            if memc:get_reused_times() == 0 then
                ngx.say(type(memc:sslhandshake(nil, "test.local", true)))
            end
            ngx.say(memc:set("tls", ("x"):rep(10000)), #memc:get("tls"), memc:get_reused_times())
            memc:set_keepalive()
        end
    """
    http = f"lua_ssl_trusted_certificate {memcached.authority};"
    assert await run(code, http=http) == ["cdata", "1100000", "1100001"]


async def test_refusal(run: Run) -> None:
    code = f"""
        {START}
        ngx.say(memc:connect("127.0.0.1", 1))
        ngx.say(memc:get("x"))
    """
    assert (await run(code, http="lua_socket_log_errors off;"))[0] == "nilconnection refused"
