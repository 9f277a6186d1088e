"""The short way through known locations answers as the engine's way does.

The first request to a path takes the engine's way and teaches the short one; all later ones must get the same
answer, log the same lines, and leave as little behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio.testing
from serving import nginx, row

Serve = Callable[..., Any]

#: What a handler of any phase may do.
ACTS = {
    "nothing": "",
    "output": "ngx.say('from ', ngx.get_phase())",
    "output and exit": "ngx.say('from ', ngx.get_phase()) ngx.exit(200)",
    "header": "ngx.header['X-Phase'] = ngx.get_phase()",
    "ctx": "ngx.ctx.n = (ngx.ctx.n or 0) + 1",
    "global": "n = (n or 0) + 1",
    "sleep": "ngx.sleep(0.001)",
    "sleep and output": "ngx.sleep(0.001) ngx.say('slept')",
    "exit 0": "ngx.exit(0)",
    "exit 204": "ngx.exit(204)",
    "exit 403": "ngx.exit(403)",
    "exit 500 after output": "ngx.print('x') ngx.exit(500)",
    "exit 503 with a status": "ngx.status = 418 ngx.exit(503)",
    "declined": "ngx.exit(ngx.DECLINED)",
    "status": "ngx.status = 201",
    "error": "error('failed in ' .. ngx.get_phase())",
    "error table": "error({})",
    "error after output": "ngx.say('x') error('late')",
    "exec": "ngx.exec('/other', 'a=b')",
    "exec named": "ngx.exec('@named')",
    "redirect": "ngx.redirect('/other')",
    "subrequest": "local res = ngx.location.capture('/other') ngx.header['X-Sub'] = res.body",
    "eof": "ngx.say('x') ngx.eof()",
    "flush": "ngx.say('x') ngx.flush(true)",
    "length": "ngx.header['Content-Length'] = 5 ngx.print('12345')",
    "coroutine": "local co = coroutine.wrap(function() coroutine.yield(1) end) co() co()",
    "args": "ngx.req.set_uri_args('x=y')",
    "uri": "ngx.req.set_uri('/elsewhere')",
}

OTHERS = """
    location /other { content_by_lua_block { ngx.print("other ", ngx.var.args or "-") } }
    location @named { content_by_lua_block { ngx.print("named ", ngx.var.uri) } }
"""

CONTENT = "ngx.say(ngx.ctx.n or '-', n or '-', ngx.var.uri, ngx.var.args or '')"


async def ask(running: Any, path: str, client: Any = None) -> bytes:
    """All that comes back: up to the end of the connection, or of the response on a connection that stays."""
    if client is None:
        client = await running.connect()
        await client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        received = await client.rest()
        await client.aclose()
    else:
        status, headers, body = await client.get(path)
        headers.pop("date")
        received = repr((status, headers, body)).encode()
    return re.sub(rb"\r\nDate: [^\r]*", b"", received)


def lines(text: str) -> str:
    return re.sub(r"0x[0-9a-f]+|\*\d+", "", text)


async def same(serve: Serve, blocks: Mapping[str, str], *, kept: bool = True) -> None:
    """Ask each location several times: all its answers are the same, on fresh connections and (``kept``) on one."""
    locations = "".join(
        f"location /fresh/{number} {{ {block} }} location /kept/{number} {{ {block} }}"
        for number, block in enumerate(blocks.values())
    )
    async with serve(nginx(OTHERS + locations)) as running:
        for number, name in enumerate(blocks):
            with row(name):
                answers, logs = [], []
                for _ in range(3):
                    running.log.clear()
                    answers.append(await ask(running, f"/fresh/{number}?q=1"))
                    logs.append(lines(running.log.text(7)))
                assert answers[1:] == answers[:1] * 2
                assert logs[1:] == logs[:1] * 2
                if kept and answers[0]:
                    await same_on_one(running, f"/kept/{number}?q=1")


async def same_on_one(running: Any, path: str) -> None:
    client = await running.connect()
    first = await ask(running, path, client)
    for _ in range(2):
        if b"'connection': 'close'" in first:
            break
        assert await ask(running, path, client) == first


async def test_content(serve: Serve) -> None:
    await same(serve, {name: f"content_by_lua_block {{ {act} }}" for name, act in ACTS.items()})


@pytest.mark.parametrize("phase", ["rewrite", "access"])
async def test_before_content(serve: Serve, phase: str) -> None:
    await same(
        serve,
        {
            name: f"""
                {phase}_by_lua_block {{ {act} }}
                content_by_lua_block {{ {CONTENT} }}"""
            for name, act in ACTS.items()
        },
    )


async def test_between_two_others(serve: Serve) -> None:
    await same(
        serve,
        {
            name: f"""
                rewrite_by_lua_block {{ n = 1 ngx.ctx.n = 1 }}
                access_by_lua_block {{ {act} }}
                content_by_lua_block {{ {CONTENT} }}
                header_filter_by_lua_block {{ ngx.header["X-Filter"] = ngx.status }}"""
            for name, act in ACTS.items()
        },
    )


async def test_logged(serve: Serve) -> None:
    await same(
        serve,
        {
            name: f"""
                content_by_lua_block {{ {act} }}
                log_by_lua_block {{ ngx.log(ngx.WARN, "status ", ngx.status, " ", ngx.ctx.n or "-") }}"""
            for name, act in ACTS.items()
        },
    )


SETTINGS = [
    "header_filter_by_lua_block { ngx.exit(403) }",
    "header_filter_by_lua_block { error('in a filter') }",
    "header_filter_by_lua_block { ngx.header.content_length = nil }",
    "body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:upper() }",
    "body_filter_by_lua_block { ngx.arg[2] = true }",
    "add_header X-A $uri; expires epoch;",
    "error_page 403 /other; access_by_lua_block { ngx.exit(403) }",
    "gzip on; gzip_min_length 1; gzip_types *;",
    "keepalive_requests 2;",
    "keepalive_timeout 0;",
    "default_type text/html; charset utf-8;",
    "server_tokens off;",
    "set $x 1; content_by_lua_block { ngx.say(ngx.var.x) }",
    "deny all;",
    "lua_need_request_body on;",
]


async def test_settings(serve: Serve) -> None:
    content = "content_by_lua_block { ngx.say('hello') }"
    await same(
        serve,
        {setting: setting + ("" if "content_by" in setting else content) for setting in SETTINGS},
        kept=False,
    )


async def test_keepalive_requests_count(serve: Serve) -> None:
    conf = nginx("keepalive_requests 3; location / { content_by_lua_block { ngx.say(1) } }")
    async with serve(conf) as running:
        client = await running.connect()
        kept = [(await client.get("/"))[1]["connection"] for _ in range(3)]
        assert kept == ["keep-alive", "keep-alive", "close"]
        assert await client.rest() == b""


async def test_bytes_of_the_next_request_stay(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.print(ngx.var.uri) } }")
    async with serve(conf) as running:
        client = await running.connect()
        head = "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n"
        for _ in range(2):
            await client.send("".join(head.format(n) for n in range(40)).encode())
            for n in range(40):
                assert (await client.response())[2] == f"/{n}".encode()


async def test_paths_beyond_the_memory(serve: Serve) -> None:
    conf = nginx(
        "keepalive_requests 5000; location / { content_by_lua_block { ngx.print(ngx.var.uri) } }"
    )
    async with serve(conf) as running:
        client = await running.connect()
        for n in [*range(1030), *range(5)]:
            assert (await client.get(f"/{n}"))[2] == f"/{n}".encode()


async def test_requests_that_run_when_the_worker_quits(serve: Serve) -> None:
    conf = nginx("location / { content_by_lua_block { ngx.print(1) } }")
    async with serve(conf) as running:
        client = await running.connect()
        for _ in range(2):
            assert (await client.get("/"))[1]["connection"] == "keep-alive"
        await client.send(b"GET / HTTP/1.1\r\nHo")
        while not any(not conn.idle for conn in running.worker.connections.values()):
            await trio.testing.wait_all_tasks_blocked()
        running.worker.quit()
        await client.send(b"st: a\r\n\r\n")
        assert (await client.response())[1]["connection"] == "close"
        assert await client.rest() == b""
