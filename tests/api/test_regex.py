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


async def test_kinds_of_patterns(serve: Serve) -> None:
    conf = nginx(
        r"""
        location / { content_by_lua_block {
            local a = ("a"):rep(100000)
            ngx.say(#ngx.re.match(a, "a*", "d")[0], " ", ngx.re.find("xaaay", "a|aa|aaa", "d"))
            local many = ngx.re.match(("b"):rep(300), ("(b)"):rep(300))
            ngx.say(#many, many[300])
            ngx.say(ngx.re.gsub("a-b", "(?<first>\\w)-(\\w)", "$2${1}$$"))
            ngx.say(ngx.re.gsub("a-b", "\\w", function(m) return m[0]:upper() end))
            ngx.say(ngx.re.match("ab", "(?<x>a)(?<y>c)?").y)
        } }
        """
    )
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2].split(b"\n") == [
            b"100000 24",
            b"300b",
            b"ba$1",
            b"A-B2",
            b"false",
            b"",
        ]


async def test_a_template_that_is_wrong(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.say(ngx.re.sub('a', 'a', '$x')) } }")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"nilnilfailed to compile the replacement template\n"
        log = running.log.text(4)
        assert log.startswith('attempt to use named capturing variable "x" (named captures not')
