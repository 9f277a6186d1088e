"""Subrequests whose responses are part of their parent's, and those that Python code makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from serving import nginx
from serving import serve_task as serve

from trio_lua.lua.driver import detach
from trio_lua.phases.engine import Engine
from trio_lua.phases.subrequest import SubrequestCycle
from trio_lua.request.state import Request

__all__ = ["serve"]

Serve = Callable[..., Any]

#: What a directive written in Lua does.
PLACE = """
    local rt = require "trio_lua.rt"
    local function place(uri, ...) return rt.open_subrequest(rt.S.r, uri, ...) end
"""

SUBS = """
    location = /a { content_by_lua_block { ngx.print("a") ngx.sleep(2) ngx.print("A") } }
    location = /b { content_by_lua_block { ngx.print("b") ngx.sleep(1) ngx.print("B") } }
    location = /big { content_by_lua_block { ngx.sleep(1) for i = 1, 30 do ngx.print(("x"):rep(100000)) end } }
    location = /none { return 404; }
    location = /fails { content_by_lua_block { error("failed here") } }
    location = /deep { content_by_lua_block {
        local rt = require "trio_lua.rt"
        ngx.print("(")
        local id = rt.open_subrequest(rt.S.r, "/a")
        local other = rt.open_subrequest(rt.S.r, "/b")
        ngx.print(")")
        rt.run_subrequests(id, other)
    } }
    location = /filtered {
        header_filter_by_lua_block { ngx.header.X_Sub = "1" }
        body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:upper() }
        content_by_lua_block { ngx.print("f") }
    }
"""


def parent(code: str, more: str = "") -> str:
    return f"""
        error_page 404 /page;
        location = /page {{ return 200 page; }}
        location = /t {{ {more} content_by_lua_block {{ {PLACE} {code} }} }}
        {SUBS}
    """


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("ngx.print('1') rt.run_subrequests(place('/a')) ngx.print('2')", b"1aA2"),
        (
            "ngx.print('1') local a = place('/a') ngx.print('2') local b = place('/b') ngx.print('3')"
            " rt.run_subrequests(a, b) ngx.print('4')",
            b"1aA2bB34",
        ),
        (
            "local a = place('/a') local b = place('/deep') ngx.print('3') ngx.flush(false)"
            " rt.run_subrequests(a, b)",
            b"aA(aAbB)3",
        ),
        ("rt.run_subrequests(place('/none')) ngx.print('2')", b"page2"),
        ("rt.run_subrequests(place('/filtered')) ngx.print('g')", b"Fg"),
        (
            "local res = ngx.location.capture('/deep') ngx.print(res.body, tostring(res.truncated))",
            b"(aAbB)false",
        ),
        ("rt.run_subrequests(place('/a', nil, 'HEAD')) ngx.print('2')", b"aA2"),
    ],
)
async def test_output_is_in_order(
    serve: Serve, autojump_clock: trio.testing.MockClock, code: str, body: bytes
) -> None:
    async with serve(nginx(parent(code))) as running:
        client = await running.connect()
        for _ in range(2):
            status, headers, received = await client.get("/t")
            assert (status, received) == (200, body), running.log.text(4)
            assert "x-sub" not in headers


async def test_the_parents_filters_do_not_see_it(serve: Serve) -> None:
    more = "body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:gsub('f', 'x') }"
    code = "ngx.print('f') rt.run_subrequests(place('/filtered')) ngx.print('f')"
    async with serve(nginx(parent(code, more))) as running:
        client = await running.connect()
        assert (await client.get("/t"))[2] == b"xFx"


async def test_much_output_waits_for_its_turn_and_for_the_client(
    serve: Serve, autojump_clock: trio.testing.MockClock
) -> None:
    code = "rt.run_subrequests(place('/a'), place('/big'), place('/b'))"
    async with serve(nginx(parent(code))) as running:
        client = await running.connect()
        assert (await client.get("/t"))[2] == b"aA" + b"x" * 3_000_000 + b"bB"


async def test_what_is_placed_and_not_run_is_forgotten(serve: Serve) -> None:
    async with serve(nginx(parent("place('/a') ngx.print('x')"))) as running:
        client = await running.connect()
        for _ in range(2):
            assert (await client.get("/t"))[2] == b"x"
        assert running.worker.engine.subrequests.count == 0


async def test_a_failed_one_ends_the_connection(serve: Serve) -> None:
    code = "ngx.print('1') ngx.flush(true) rt.run_subrequests(place('/abort')) ngx.print('2')"
    more = "location = /abort { content_by_lua_block { ngx.exit(444) } }"
    async with serve(nginx(parent(code) + more)) as running:
        client = await running.connect()
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\n1\r\n1\r\n")


async def test_a_client_that_leaves(serve: Serve, autojump_clock: trio.testing.MockClock) -> None:
    code = "rt.run_subrequests(place('/big'), place('/big'))"
    async with serve(nginx(parent(code))) as running:
        client = await running.connect()
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.aclose()
        await trio.sleep(5)


# ---------------------------------------------------------------------- from Python


async def serve_python(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, handler: Callable[..., Any]
) -> bytes:
    """The body of a request whose content handler is ``handler(engine, request)``."""

    async def static(engine: Engine, request: Request, plan: Any) -> Any:
        await detach(request)
        await handler(engine, request)
        return engine._responses.conclude(request)

    monkeypatch.setattr(Engine, "_static", static)
    async with serve(nginx(f"location /t {{ }} {SUBS}")) as running:
        client = await running.connect()
        await client.get("/t")
        return (await client.get("/t"))[2]  # type: ignore[no-any-return]


async def test_python_handlers(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(engine: Engine, request: Request) -> None:
        subs = engine.subrequests
        await request.send(b"1")
        captured = subs.open(request, b"/b", capture=True)
        await subs.run(subs.open(request, b"/filtered"))
        await request.send(b"2")
        try:
            await subs.run_all([captured])
            await request.send(captured.body + b"%d" % captured.response_status)
        finally:
            subs.close(captured)

    assert await serve_python(serve, monkeypatch, handler) == b"1F2bB200"


async def test_python_handlers_and_depth(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    depths = []

    async def handler(engine: Engine, request: Request) -> None:
        try:
            sub = engine.subrequests.open(request, b"/t", capture=True)
        except SubrequestCycle:
            depths.append(request.lua.get(request.id, b"depth"))
            return
        await engine.subrequests.run(sub)

    assert await serve_python(serve, monkeypatch, handler) == b""
    assert depths == [51, 51]
