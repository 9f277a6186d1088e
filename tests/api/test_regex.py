"""``ngx.re`` in a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving import nginx

Serve = Callable[..., Any]


async def test_compiling_with_j_is_logged_at_debug(serve: Serve) -> None:
    conf = nginx("""
        location / { content_by_lua_block {
            for _ = 1, 2 do ngx.re.match("a", "a", "jo") end
            ngx.re.match("b", "b", "o")
        } }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        await client.get("/")
        assert running.log.text(8).count("pcre JIT compiling result: 1") == 1
        assert "pcre" not in running.log.text(7)


async def test_lua_regex_match_limit(serve: Serve) -> None:
    conf = nginx(
        """
        location / { content_by_lua_block {
            local subject, pattern = ("a"):rep(30) .. "b", "(a+)+$"
            ngx.say(select(2, ngx.re.match(subject, pattern, "o")))
            ngx.say(select(3, ngx.re.find(subject, pattern, "o")))
            ngx.say(select(3, ngx.re.gsub(subject, pattern, "", "o")))
            ngx.say(select(2, ngx.re.gmatch(subject, pattern, "o")()))
        } }
        """,
        "lua_regex_match_limit 5000;",
    )
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"pcre_exec() failed: -8\n" * 4
