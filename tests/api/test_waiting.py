"""``lua_strict_phases``: what may wait in the phases in which OpenResty's handlers may not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from serving import Running, nginx, row, serve
from upstream import echo, silent, upstream

__all__ = ["serve"]

Serve = Callable[..., Any]

OFF = "lua_strict_phases off; lua_socket_log_errors off;"

#: A round trip to a peer that sends back what it receives, as a function of the text.
ASK = """
    local function ask(text)
        local sock = ngx.socket.tcp()
        assert(sock:connect("127.0.0.1", PORT))
        assert(sock:send(text .. "\\n"))
        local line = assert(sock:receive())
        assert(sock:setkeepalive())
        return line
    end
"""

#: Each phase's handler, and where what it has done can be seen: in the body, a header or the error log.
HANDLERS = {
    "set": ("set_by_lua_block $x { ASK return ask('set') }", "body"),
    "header_filter": (
        "header_filter_by_lua_block { ASK ngx.header.X = ask('header_filter') }",
        "x",
    ),
    "body_filter": (
        "body_filter_by_lua_block { ASK if ngx.arg[1] ~= '' then ngx.arg[1] = ask(ngx.arg[1]):upper() end }",
        "body",
    ),
    "log": ("log_by_lua_block { ASK ngx.log(ngx.WARN, 'got ', ask('log')) }", "log"),
}

#: Who makes the response that the filters filter.
CONTENTS = {
    "handler that waits": "content_by_lua_block { ngx.sleep(0.1) ngx.print(ngx.var.x) }",
    "flush": "content_by_lua_block { ngx.print(ngx.var.x) ngx.flush(true) ngx.eof() }",
    "user thread": "content_by_lua_block { ngx.thread.spawn(function() ngx.sleep(0.1) ngx.print(ngx.var.x) end) }",
    "return": "return 200 $x;",
    "exit": "content_by_lua_block { ngx.print(ngx.var.x) ngx.exit(200) }",
    "file": "root FOLDER; try_files /page =404;",
}


def pages(text: str, port: int, folder: Path | None = None) -> Any:
    text = text.replace("ASK", ASK).replace("PORT", str(port)).replace("FOLDER", str(folder))
    return nginx(text, OFF)


async def settled(running: Running, seconds: float = 10) -> None:
    """Let all requests come to their end, on virtual time."""
    await trio.sleep(seconds)
    assert running.worker.runtime.vm.export("live")() == (0, 0)


@pytest.mark.parametrize("phase", HANDLERS)
async def test_sockets(serve: Serve, tmp_path: Path, autojump_clock: object, phase: str) -> None:
    (tmp_path / "page").write_text("plain")
    handler, place = HANDLERS[phase]
    before = "" if phase == "set" else "set $x plain;"
    text = "".join(
        f"location /{number} {{ {before} {handler} {content} }}"
        for number, content in enumerate(CONTENTS.values())
    )
    async with upstream(echo) as peer, serve(pages(text, peer.port, tmp_path)) as running:
        client = await running.connect()
        for number, content in enumerate(CONTENTS):
            with row(content):
                running.log.clear()
                for _ in range(2):
                    status, headers, body = await client.get(f"/{number}")
                    assert status == 200
                    await settled(running, 1)
                    expected = {"set": "set", "body_filter": "PLAIN"}.get(phase, "plain")
                    assert body.decode() == (
                        expected if content != "file" else expected.replace("set", "plain")
                    )
                    if place == "x":
                        assert headers["x"] == phase
                if place == "log":
                    assert running.log.text(5).count("got log") == 2
                assert running.log.text(4) == ""
                assert peer.accepted == 1


async def test_error_pages_and_redirects(serve: Serve, autojump_clock: object) -> None:
    text = """
        header_filter_by_lua_block { ngx.sleep(1) ngx.header.X = ngx.status }
        body_filter_by_lua_block { ngx.sleep(1) ngx.arg[1] = ngx.arg[1]:upper() }
        error_page 500 /error;
        location /error { return 200 sorry; }
        location /t { content_by_lua_block { error("x") } }
        location /gone { return 410; }
        location /moved { return 301 /t; }
    """
    async with serve(pages(text, 0)) as running:
        for path, status, part in (
            ("/t", 500, b"SORRY"),
            ("/gone", 410, b"410 GONE"),
            ("/moved", 301, b"MOVED PERMANENTLY"),
        ):
            client = await running.connect()
            answer = await client.get(path)
            assert answer[0] == status
            assert answer[1]["x"] == str(status)
            assert part in answer[2]


async def test_header_filter_that_exits(serve: Serve, autojump_clock: object) -> None:
    text = """
        location /t {
            header_filter_by_lua_block { ngx.sleep(1) if ngx.status == 200 then return ngx.exit(403) end }
            content_by_lua_block { ngx.say("x") }
        }
    """
    async with serve(pages(text, 0)) as running:
        status, _, data = await (await running.connect()).get("/t")
        assert status == 403
        assert b"403 Forbidden" in data


async def test_rewrite_programs_go_on_where_they_were(serve: Serve, autojump_clock: object) -> None:
    text = """
        location /t {
            set $list "";
            set_by_lua_block $a { ngx.sleep(1) return "a" }
            set $list "$list$a";
            if ($a = a) {
                set_by_lua_block $b { ngx.sleep(1) return "b" }
                set $list "$list$b";
                set_by_lua $c 'ngx.sleep(1) return ngx.arg[1] .. "c"' $b;
                set $list "$list$c";
            }
            if ($b = c) { return 404; }
            set_by_lua_block $d { ngx.sleep(1) return "d" }
            return 200 "$list$d";
        }
        location /failing { set_by_lua_block $x { ngx.sleep(1) error("no") } return 200 x; }
    """
    async with serve(pages(text, 0)) as running:
        client = await running.connect()
        assert (await client.get("/t?x=1"))[::2] == (200, b"abbcd")
        assert (await client.get("/failing"))[0] == 500
        assert "failed to run set_by_lua*: set_by_lua" in running.log.text()


async def test_pieces_keep_their_order(serve: Serve, autojump_clock: object) -> None:
    """Light threads that print at once: one filter after the other, and each with its own ngx.arg."""
    text = """
        location /t {
            header_filter_by_lua_block { ngx.sleep(0.02) ngx.ctx.heads = (ngx.ctx.heads or 0) + 1 }
            body_filter_by_lua_block {
                local piece = ngx.arg[1]
                ngx.sleep(tonumber(piece) and (5 - tonumber(piece)) / 50 or 0)
                if piece ~= "" then ngx.arg[1] = ngx.arg[1] .. ngx.get_phase() .. ngx.ctx.heads .. "," end
            }
            content_by_lua_block {
                local phases = {}
                for i = 1, 4 do
                    ngx.thread.spawn(function() ngx.print(i) end)
                    phases[i] = ngx.get_phase()
                end
                ngx.thread.wait(ngx.thread.spawn(function()
                    ngx.sleep(0.04)
                    ngx.print(ngx.get_phase())
                end))
                ngx.print(table.concat(phases, " "))
            }
        }
    """
    async with serve(pages(text, 0)) as running:
        clients = [await running.connect() for _ in range(3)]
        bodies: list[bytes] = []
        async with trio.open_nursery() as nursery:
            for client in clients:

                async def get(client: Any = client) -> None:
                    bodies.append((await client.get("/t"))[2])

                nursery.start_soon(get)
        for body in bodies:
            pieces = body.decode().split(",")
            assert pieces[0] == "1body_filter1"
            texts = [1, 2, 3, 4, "content", "content content content content"]
            assert sorted(pieces) == sorted(["", *(f"{text}body_filter1" for text in texts)])


async def test_killed_at_work(serve: Serve, autojump_clock: object) -> None:
    """A filter whose thread is killed takes its piece with it, and so the response cannot be kept."""
    text = """
        location /t {
            body_filter_by_lua_block { if ngx.arg[1] == "x" then ngx.sleep(100) end }
            content_by_lua_block {
                ngx.send_headers()
                ngx.flush()
                local thread = ngx.thread.spawn(function() ngx.print("x") end)
                ngx.thread.kill(thread)
                ngx.log(ngx.WARN, "said ", tostring(ngx.print("y")))
            }
        }
    """
    async with serve(pages(text, 0)) as running:
        client = await running.connect()
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        assert "said nil" in running.log.text()


async def test_coroutines_inside(serve: Serve, autojump_clock: object) -> None:
    text = """
        location /t {
            header_filter_by_lua_block {
                local numbers = coroutine.wrap(function()
                    for i = 1, 3 do
                        ngx.sleep(1)
                        coroutine.yield(i)
                    end
                end)
                coroutine.yield()
                ngx.header.X = numbers() + numbers() + numbers()
            }
            body_filter_by_lua_block { coroutine.wrap(function() error("inside") end)() }
            content_by_lua_block { ngx.say("x") }
        }
    """
    async with serve(pages(text, 0)) as running:
        client = await running.connect()
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.rest()
        assert re.search(r"failed to run body_filter_by_lua\*: .*inside", running.log.text(4))


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ("header_filter_by_lua_block { ngx.sleep(1) error('no') }", "failed to run header_filter"),
        ("body_filter_by_lua_block { ngx.sleep(1) error('no') }", "failed to run body_filter"),
        ("log_by_lua_block { ngx.sleep(1) error('no') }", "failed to run log_by_lua*: log_by_lua"),
        ("log_by_lua_file /none.lua;", "failed to run log_by_lua*: failed to load external"),
    ],
)
async def test_failures(serve: Serve, autojump_clock: object, handler: str, message: str) -> None:
    text = f"location /t {{ {handler} content_by_lua_block {{ ngx.say(1) }} }}"
    async with serve(pages(text, 0)) as running:
        client = await running.connect()
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await client.rest()
        assert message in running.log.text(4)


async def test_locks(serve: Serve, autojump_clock: object) -> None:
    text = """
        location /t {
            log_by_lua_block {
                local semaphore = require "ngx.semaphore"
                gate = gate or semaphore.new()
                ngx.log(ngx.WARN, "waited ", tostring(gate:wait(10)))
            }
            content_by_lua_block {
                local semaphore = require "ngx.semaphore"
                gate = semaphore.new()
                ngx.timer.at(1, function() gate:post() end)
            }
        }
    """
    async with serve(pages(text, 0)) as running:
        await (await running.connect()).get("/t")
        await settled(running)
        assert "waited true" in running.log.text()


async def test_client_that_leaves(serve: Serve, autojump_clock: object) -> None:
    """The request is cancelled at what its filter waits for: nothing stays."""
    text = f"""
        location /t {{
            lua_check_client_abort on;
            header_filter_by_lua_block {{ {ASK} ask("x") }}
            content_by_lua_block {{ ngx.say("x") }}
        }}
    """
    async with upstream(silent) as peer, serve(pages(text, peer.port)) as running:
        client = await running.connect()
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.open == 1
        await client.aclose()
        await settled(running)
        assert running.worker.runtime.sockets.open == 0


class TestInitWorker:
    async def test_before_the_first_request(self, serve: Serve, autojump_clock: object) -> None:
        async with upstream(echo) as peer:
            http = f"""
                {OFF}
                init_worker_by_lua_block {{
                    {ASK.replace("PORT", str(peer.port))}
                    ngx.sleep(5)
                    package.loaded.settings = {{ name = ask("ready") }}
                }}
            """
            conf = nginx(
                "location /t { content_by_lua_block { ngx.say(require('settings').name) } }", http
            )
            async with serve(conf) as running:
                assert (await (await running.connect()).get("/t"))[2] == b"ready\n"
                assert running.worker.runtime.sockets.open == 0
                assert running.log.text(4) == ""

    async def test_its_globals_are_everybodys(self, serve: Serve) -> None:
        http = OFF + "init_worker_by_lua_block { answer = 42 ngx.sleep(0) also = answer }"
        conf = nginx("location /t { content_by_lua_block { ngx.say(answer, also) } }", http)
        async with serve(conf) as running:
            assert (await (await running.connect()).get("/t"))[2] == b"4242\n"

    async def test_failure(self, serve: Serve, autojump_clock: object) -> None:
        http = OFF + "init_worker_by_lua_block { ngx.sleep(1) error('no') }"
        async with serve(nginx("location /t { return 200; }", http)) as running:
            assert (await (await running.connect()).get("/t"))[0] == 200
            assert re.search(
                r"init_worker_by_lua.* error: .*no\nstack traceback:", running.log.text(4)
            )


@pytest.mark.parametrize("phase", HANDLERS)
async def test_strict_by_default(serve: Serve, phase: str) -> None:
    handler = HANDLERS[phase][0].replace("ASK", ASK).replace("PORT", "1")
    text = f"location /t {{ {handler} content_by_lua_block {{ ngx.say(1) }} }}"
    async with serve(nginx(text)) as running:
        client = await running.connect()
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await client.rest()
        assert f"API disabled in the context of {phase}_by_lua*" in running.log.text(4)
