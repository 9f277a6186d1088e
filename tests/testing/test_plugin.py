"""The fixtures, used as users use them, and what they say when a test fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from trio_lua.testing import Client, LogRecords, Lua, LuaClock, LuaServer

GREETING = "ngx.say('hello ', ngx.var.arg_name or 'world')"


@pytest.mark.lua(GREETING)
async def test_request(lua_client: Client) -> None:
    response = await lua_client.get("/", params={"name": "Ann"})
    assert (response.status, response.reason, response.text) == (200, "OK", "hello Ann\n")
    assert response.headers["content-TYPE"] == "text/plain"


@pytest.mark.lua(
    config="""
    location /json {
        content_by_lua_block {
            ngx.req.read_body()
            local cjson = require "cjson"
            local data = cjson.decode(ngx.req.get_body_data())
            ngx.header["X-Type"] = ngx.var.content_type
            ngx.print(cjson.encode { sum = data.a + data.b })
        }
    }
    location /gone { return 410; }
    """
)
async def test_parts_and_json(lua_server: LuaServer) -> None:
    response = await lua_server.post("/json", json={"a": 1, "b": 2})
    assert response.json() == {"sum": 3}
    assert response.headers["x-type"] == "application/json"
    assert (await lua_server.get("/gone")).status == 410
    assert (await lua_server.client.head("/gone")).body == b""


@pytest.mark.lua("ngx.sleep(3600) ngx.say(ngx.now())")
async def test_an_hour_passes_at_once(lua_client: Client, lua_clock: LuaClock) -> None:
    response = await lua_client.get("/")
    assert float(response.text) == lua_clock.epoch + 3600
    assert lua_clock.now() == lua_clock.epoch + 3600


async def test_several_servers(make_lua_server: Any) -> None:
    one = await make_lua_server("ngx.print('one')")
    two = await make_lua_server("ngx.print('two')")
    assert [(await server.get("/")).text for server in (one, two)] == ["one", "two"]


@pytest.mark.lua("ngx.log(ngx.ERR, 'as expected') ngx.print(1)")
async def test_allowed_records(lua_client: Client, lua_log: LogRecords) -> None:
    lua_log.allow("as expected")
    await lua_client.get("/")
    [record] = lua_log.at("error")
    assert "as expected" in record.message
    assert "as expected" in lua_log
    assert lua_log.matching("^.lua. .*:2: as") == [record]


@pytest.mark.lua("ngx.print(ngx.worker.id(), ' ', require('cjson').encode({}))")
async def test_patches(lua_client: Client, lua_patch: Any) -> None:
    lua_patch("ngx.worker.id", "function() return 7 end")
    lua_patch("cjson:encode", "function() return 'patched' end")
    assert (await lua_client.get("/")).text == "7 patched"


async def test_code_without_a_server(lua: Lua, lua_clock: LuaClock) -> None:
    assert await lua.run("return 1 + 1") == 2
    assert await lua.run("return nil") is None
    assert await lua.run("") is None
    assert await lua.run("return 'a', { b = { 1, 2 } }, true") == ("a", {"b": [1, 2]}, True)
    assert await lua.run("ngx.sleep(60) return ngx.now()") == lua_clock.epoch + 60


async def test_raw_bytes_and_streams(make_lua_server: Any) -> None:
    server = await make_lua_server(GREETING)
    answer = await server.client.raw("GET / HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"hello world\n")
    async with server.client.stream() as stream:
        await stream.send_all(b"GET /?name=x HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        received = b""
        while received.count(b"hello x") < 2:
            received += await stream.receive_some()


async def test_a_real_port(make_lua_server: Any) -> None:
    server = await make_lua_server(GREETING)
    url = await server.listen()
    host, port = url.removeprefix("http://").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        received = b"".join([bytes(part) async for part in stream])
    assert received.endswith(b"hello world\n")


@pytest.fixture
def lua_options(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "counter.lua").write_text("return { next = function() return 42 end }")
    return {"package_path": f"{tmp_path}/?.lua;;"}


@pytest.fixture
def lua_conf() -> str:
    return "ngx.print('by the fixture')"


async def test_configuration_by_fixture(lua_client: Client) -> None:
    assert (await lua_client.get("/")).text == "by the fixture"


@pytest.mark.lua(config="location / { return 200 'by the marker'; }")
async def test_the_marker_goes_first(lua_client: Client) -> None:
    assert (await lua_client.get("/")).text == "by the marker"


@pytest.mark.lua("ngx.print(require('counter').next())")
async def test_options_are_overridden_by_fixture(lua_client: Client) -> None:
    assert (await lua_client.get("/")).text == "42"


async def test_a_thread_does_not_let_time_jump(lua_clock: LuaClock) -> None:
    with trio.move_on_after(5) as scope:
        await trio.to_thread.run_sync(lambda: sum(range(100_000)))
    assert not scope.cancelled_caught
    assert trio.current_time() == 0


# ----------------------------------------------------------------- failing tests

CONFTEST = "pytest_plugins = ['pytester']"


def run(pytester: pytest.Pytester, code: str) -> pytest.RunResult:
    pytester.makepyfile(
        "import pytest\nfrom trio_lua.testing import *\n" + code,
    )
    return pytester.runpytest_inprocess("-p", "no:cacheprovider")


def test_an_unexpected_error_fails(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        "@pytest.mark.lua('error(\"oops\")')\n"
        "async def test(lua_client):\n    assert (await lua_client.get('/')).status == 500\n",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["unexpected records in error.log:", "*content_by_lua*:2: oops*"])


def test_a_failure_shows_the_log(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        "@pytest.mark.lua('ngx.log(ngx.WARN, \"look here\")')\n"
        "async def test(lua_client):\n    assert (await lua_client.get('/')).status == 201\n",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*error.log*", "*warn*look here*"])


def test_a_global_of_a_module_fails(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("leaky.lua").write_text("local M = {}\n\nleaked = 1\nreturn M\n")
    result = run(
        pytester,
        "@pytest.mark.lua('require(\"leaky\")', package_path='./?.lua')\n"
        "async def test(lua_client):\n    await lua_client.get('/')\n",
    )
    result.stdout.fnmatch_lines(["*modules wrote global variables: leaked at ./leaky.lua:3*"])


def test_a_request_that_never_ends_fails(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        "@pytest.mark.lua(config='location / { content_by_lua_block { ngx.sleep(1e9) } }')\n"
        "async def test(lua_server):\n"
        "    stream = await lua_server.connect()\n"
        "    await stream.send_all(b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')\n",
    )
    assert result.ret != 0
