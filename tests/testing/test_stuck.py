"""Tests that wait for what cannot come fail, and say what they wait for."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import trio

from trio_lua.testing import Lua, LuaClock, Stuck, open_server, run, stuck


async def for_ever() -> None:
    await trio.sleep_forever()


def test_a_task() -> None:
    with pytest.raises(Stuck) as caught:
        run(for_ever)
    message = str(caught.value)
    assert message.startswith("stuck: every task waits")
    assert "test_stuck.py:" in message
    assert "in for_ever" in message
    assert "| await trio.sleep_forever()" in message
    assert "lua_clock.hold()" in message


def test_a_handler() -> None:
    async def main() -> None:
        async with open_server("local sleep = require('trio').sleep_forever\nsleep()") as server:
            await server.get("/here")

    with pytest.raises(Stuck) as caught:
        run(main)
    message = str(caught.value)
    assert "entry thread 1 of GET /here at content_by_lua(" in message
    assert "   3 | sleep()" in message


def test_beside_a_periodic_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stuck, "_MAX_JUMPS", 100)

    async def main() -> None:
        config = "location / { content_by_lua_block { require('trio').sleep_forever() } }"
        every = "init_worker_by_lua_block { ngx.timer.every(60, function() end) }"
        async with open_server(config=config, http_config=every) as server:
            await server.get("/here")

    with pytest.raises(Stuck, match=r"jumped 100 times, to 6000 s(.|\n)*GET /here at content_by"):
        run(main)


def test_a_deadline_is_enough() -> None:
    async def main() -> float:
        with trio.move_on_after(3600):
            await trio.sleep_forever()
        return trio.current_time()

    assert run(main) == 3600


def test_the_outside() -> None:
    """A connection from outside, a thread, and whatever the test holds the clock for."""

    async def main() -> None:
        async with open_server("ngx.say(1)") as server:
            url = await server.listen()
            host, port = url.removeprefix("http://").split(":")
            answers: list[bytes] = []

            def ask() -> None:
                with socket.create_connection((host, int(port))) as sock:
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    answers.append(sock.makefile("rb").read())

            await trio.to_thread.run_sync(ask)
            assert answers[0].endswith(b"\r\n\r\n1\n")

    run(main)

    clock = LuaClock()

    async def held() -> None:
        event, token = trio.Event(), trio.lowlevel.current_trio_token()
        with clock.hold():
            threading.Timer(0.001, lambda: token.run_sync_soon(event.set)).start()
            await event.wait()

    run(held, clock=clock)


async def test_a_socket_that_leads_outside_is_waited_for(lua_clock: LuaClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.getsockname()[1])
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        assert await stream.receive_some() == b""
        thread.join()
        await stream.aclose()


FAILING = """
import pytest
import trio


@pytest.mark.lua("require('trio').sleep_forever()")
async def test_handler(lua_client):
    await lua_client.get("/")


@pytest.fixture
async def late(lua_server):
    yield
    await trio.Event().wait()


@pytest.mark.lua("ngx.say(1)")
async def test_teardown(late):
    pass


async def test_code(lua):
    await lua.run("require('trio').sleep_forever()")
"""

SPEC = """
describe("a spec", function()
    it("waits", function()
        require("trio").sleep_forever()
    end)
end)
"""


def test_reports(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    pytester.path.joinpath("wait_spec.lua").write_text(SPEC)
    # the mode in which pytest-trio looks at all items
    pytester.makeini("[pytest]\ntrio_mode = true")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=4)
    lines = result.stdout
    lines.fnmatch_lines(
        [
            "stuck: every task waits*",
            "*.py:7 in test_handler",
            "*entry thread 1 of GET / at content_by_lua*",
            "* | require('trio').sleep_forever()",
            "*- requests -*",
        ]
    )
    lines.fnmatch_lines(["*.py:* in late", "* | await trio.Event().wait()"])
    lines.fnmatch_lines(["*at test:1, waiting for an operation*"])
    lines.fnmatch_lines(["*at wait_spec.lua:4, waiting*", "*4 | require*sleep_forever()"])
    assert "Traceback" not in lines.str()


async def test_a_clock_of_pytest_trio(autojump_clock: Any, lua: Lua) -> None:
    assert await lua.run("ngx.sleep(60) return 1") == 1
