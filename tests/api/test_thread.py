"""User threads of requests: what becomes of the response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from serving import nginx

Serve = Callable[..., Any]
Clock = trio.testing.MockClock


def content(code: str, more: str = "") -> Any:
    return nginx(f"location / {{ content_by_lua_block {{ {code} }} }} {more}")


async def test_the_response_ends_with_the_last_thread(serve: Serve, autojump_clock: Clock) -> None:
    code = """
        for i = 1, 3 do ngx.thread.spawn(function() ngx.sleep(i) ngx.say(i) end) end
        ngx.say("entry")
        """
    async with serve(content(code)) as running:
        client = await running.connect()
        for _ in range(2):
            assert (await client.get("/"))[::2] == (200, b"entry\n1\n2\n3\n")
        assert trio.current_time() == pytest.approx(6)


@pytest.mark.parametrize("phase", ["rewrite", "access"])
async def test_the_phase_ends_with_the_last_thread(
    serve: Serve, autojump_clock: Clock, phase: str
) -> None:
    conf = nginx(f"""location / {{
        {phase}_by_lua_block {{ ngx.thread.spawn(function() ngx.sleep(1) ngx.ctx.x = "set" end) }}
        content_by_lua_block {{ ngx.say(ngx.ctx.x) }}
    }}""")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[::2] == (200, b"set\n")


@pytest.mark.parametrize(
    ("call", "status", "body"),
    [
        ("ngx.exit(403)", 403, b"Forbidden"),
        ("ngx.redirect('/other')", 302, b"Found"),
        ("ngx.exec('/other')", 200, b"other"),
    ],
)
async def test_departure_of_a_user_thread(
    serve: Serve, autojump_clock: Clock, call: str, status: int, body: bytes
) -> None:
    code = f"ngx.thread.spawn(function() ngx.sleep(1) {call} end) ngx.sleep(5) ngx.say('no')"
    conf = content(code, "location /other { content_by_lua_block { ngx.say('other') } }")
    async with serve(conf) as running:
        client = await running.connect()
        answer = await client.get("/")
        assert answer[0] == status
        assert body in answer[2]
        assert trio.current_time() < 4
        assert running.log.text(4) == ""


async def test_subrequests_of_threads(serve: Serve, autojump_clock: Clock) -> None:
    code = """
        local function f(i) ngx.say(ngx.location.capture("/sub?" .. i).body) end
        local threads = {}
        for i = 1, 4 do threads[i] = ngx.thread.spawn(f, i) end
        for i = 1, 4 do ngx.thread.wait(threads[i]) end
        """
    conf = content(
        code, "location /sub { content_by_lua_block { ngx.sleep(1) ngx.print(ngx.var.args) } }"
    )
    async with serve(conf) as running:
        client = await running.connect()
        status, _, body = await client.get("/")
        assert (status, sorted(body)) == (200, sorted(b"1\n2\n3\n4\n"))
        assert trio.current_time() < 2


async def test_exit_and_kill_with_pending_subrequests(serve: Serve, autojump_clock: Clock) -> None:
    code = """
        local t = ngx.thread.spawn(function() ngx.location.capture("/sub") ngx.say("captured") end)
        ngx.say(ngx.thread.kill(t))
        ngx.say(pcall(ngx.exit, 200))
        """
    conf = content(code, "location /sub { content_by_lua_block { ngx.sleep(1) } }")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == (
            b"nilpending subrequests\nfalseattempt to abort with pending subrequests\ncaptured\n"
        )


async def test_stopping_the_worker_ends_the_threads(autojump_clock: Clock) -> None:
    from serving import Client, MemoryLog

    from trio_lua.server.worker import Worker

    code = "ngx.thread.spawn(function() ngx.location.capture('/sub') end) ngx.sleep(50)"
    conf = content(code, "location /sub { content_by_lua_block { ngx.sleep(50) } }")
    log = MemoryLog()
    async with trio.open_nursery() as nursery:
        worker = Worker(conf, error_log=log, parked=False)
        await nursery.start(worker.run, [])
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(worker.serve_stream, theirs)
        await Client(ours).send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert "left" not in log.text()
    assert log.text(4) == ""
