"""The fixtures, used as users use them, and what they say when a test fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    assert response.seconds == 3600
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


@pytest.mark.lua("ngx.exit(403)", phase="access")
async def test_code_in_another_phase(lua_client: Client) -> None:
    assert (await lua_client.get("/")).status == 403


@pytest.mark.lua("ngx.header.x = ngx.get_phase()", phase="header_filter")
async def test_content_behind_a_filter(lua_client: Client) -> None:
    response = await lua_client.get("/")
    assert (response.headers["x"], response.text) == ("header_filter", "content")


async def test_no_such_phase(make_lua_server: Any) -> None:
    with pytest.raises(ValueError, match="no handler of the phase 'start'; there are rewrite, "):
        await make_lua_server("ngx.say(1)", phase="start")


@pytest.mark.lua(
    config="location / { content_by_lua_block { ngx.print(ngx.shared.d:incr('n', 1)) } }",
    http_config="lua_shared_dict d 100k;",
)
async def test_shared_dictionaries(lua_client: Client, lua_shared: Any) -> None:
    lua_shared["d"]["n"] = 41
    assert (await lua_client.get("/")).text == "42"
    assert lua_shared["d"]["n"] == 42


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


async def test_files_without_a_server(lua: Lua, tmp_path: Path) -> None:
    path = tmp_path / "sum.lua"
    path.write_text("return 1 + 2")
    assert await lua.load(path) == 3


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


CONF_OF_A_MACHINE = """
user nobody_at_all;
pid /run/nowhere/nginx.pid;
error_log /nowhere/error.log;
events {}
http {
    log_format short '$remote_addr $status';
    access_log /nowhere/access.log short;
    server {
        listen 80;
        location / { return 200; }
        location /own {
            error_log /nowhere/own.log;
            access_log /nowhere/$host.log short;
            content_by_lua_block { ngx.log(ngx.ERR, "own") }
        }
    }
}
"""


async def test_logs_are_in_memory(make_lua_server: Any, lua_log: LogRecords) -> None:
    """Whatever the configuration of a machine says, and records of all levels can fail a test."""
    lua_log.allow("own")
    server = await make_lua_server(CONF_OF_A_MACHINE)
    await server.get("/")
    await server.get("/own")
    assert server.access_logs == {
        "/nowhere/access.log": ["127.0.0.1 200"],
        "/nowhere/localhost.log": ["127.0.0.1 200"],
    }
    assert len(lua_log.at("error")) == 1


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
        # which has its own name for the same
        assert await trio.Path(__file__).exists()
    assert not scope.cancelled_caught
    assert trio.current_time() == 0


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 100))
@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.lua(
    "count = (count or 0) + 1 ngx.sleep(100) ngx.say(ngx.var.arg_n * ngx.var.arg_f, count)"
)
async def test_properties(lua_client: Client, number: int, factor: int) -> None:
    """Each example has a server and a run of its own."""
    response = await lua_client.get("/", params={"n": str(number), "f": str(factor)})
    assert response.text == f"{number * factor}1\n"
    assert response.seconds == 100


# ----------------------------------------------------------------- failing tests


FAILING = """
import pytest


@pytest.mark.lua("error('oops')")
async def test_unexpected_error(lua_client):
    assert (await lua_client.get("/")).status == 500


@pytest.mark.lua(
    config='''
    location / {
        content_by_lua_block {
            ngx.log(ngx.WARN, "look here")
            ngx.thread.spawn(function()
                ngx.sleep(1e9)
            end)
            ngx.say("half")
            ngx.flush(true)
            ngx.sleep(1e8)
        }
    }
    location /err { content_by_lua_block {
        local t = nil
        return t.x
    } }
    '''
)
async def test_failure(lua_server):
    await lua_server.get("/err")
    stream = await lua_server.connect()
    await stream.send_all(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    await stream.receive_some()
    assert False


async def test_failing_lua(lua):
    await lua.run("local function f() error('no') end\\nf()")


@pytest.mark.lua("require('leaky')", package_path="./?.lua")
async def test_global(lua_client):
    await lua_client.get("/")


@pytest.mark.lua("require('leaky')", package_path="./?.lua", allow_leaks=["globals"])
async def test_allowed(lua_client):
    await lua_client.get("/")


@pytest.mark.lua("\\nngx.timer.at(3600, function() end)")
async def test_timer(lua_client):
    await lua_client.get("/")


SPAWN = "ngx.thread.spawn(function()\\nngx.sleep(1e9)\\nend) ngx.sleep(1e9)"


@pytest.mark.lua(SPAWN)
async def test_threads(lua_server):
    stream = await lua_server.connect()
    await stream.send_all(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    async with __import__("trio").open_nursery():
        await lua_server.settle()


@pytest.mark.lua("ngx.say('half') ngx.flush(true) error('no more')")
async def test_incomplete(lua_client):
    await lua_client.get("/")


@pytest.mark.lua(config="location / { contnt_by_lua_block { ngx.say(1) } }")
async def test_configuration(lua_client):
    pass


async def test_nothing(lua_client):
    pass


@pytest.mark.lua("ngx.say(1)")
async def test_patch(lua_patch):
    lua_patch("ngx.nothing.id", "7")


@pytest.mark.lua("local client = require('client')\\nclient.fetch()", package_path="./?.lua")
async def test_socket(lua_client, lua_network):
    lua_network.silent("peer", 7)
    await lua_client.get("/")
"""


def test_failures_that_a_person_can_read(pytester: pytest.Pytester) -> None:
    """One run for all of them: a run is slow."""
    pytester.path.joinpath("leaky.lua").write_text("local M = {}\n\nleaked = 1\nreturn M\n")
    pytester.path.joinpath("client.lua").write_text(
        "return { fetch = function()\n"
        "    local sock = ngx.socket.tcp()\n"
        "    assert(sock:connect('peer', 7))\n"
        "end }\n"
    )
    pytester.makepyfile(FAILING)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=10, errors=1)
    lines = result.stdout
    lines.fnmatch_lines(["unexpected records in error.log:", "*content_by_lua*:2: oops*"])
    # a failure shows requests, the log with source lines, and what threads do
    lines.fnmatch_lines(
        [
            "*- requests -*",
            "GET /err: 500 Internal Server Error",
            "*- error.log -*",
            "*attempt to index local 't'*",
            "* 3 | return t.x",
            "*warn*look here*",
            "*- Lua threads -*",
            "entry thread * of GET / at content_by_lua(*):8, sleeping*",
            "* 8 | ngx.sleep(1e8)",
            "user thread * of GET / at content_by_lua(*):4, sleeping*",
            "* 4 | ngx.sleep(1e9)",
        ]
    )
    lines.fnmatch_lines(
        [
            "E*LuaError: test:1: no*",
            "*- Lua traceback -*",
            "*test:1: in function 'f'",
            "* 1 | local function f()*",
        ]
    )
    lines.fnmatch_lines(
        [
            "*IncompleteResponse: the server closed * middle * 200 OK, 5 bytes of the body",
            "*- requests -*",
            "half",
            "... (the connection was closed here)",
            "*no more*",
        ]
    )
    # what happens inside of the kit is left out
    lines.fnmatch_lines(
        [
            'ConfigError: unknown directive "contnt_by_lua_block" in nginx.conf:6',
            'did you mean "content_by_lua_block"?',
            "*",
            "ValueError: nothing to serve: *",
            "*",
            ">       lua_patch(*",
            "E       trio_lua.errors.LuaError: there is no nothing",
        ],
    )
    lines.no_fnmatch_line("*trio_lua/testing/vm.py*")
    lines.fnmatch_lines(
        ["left behind:", "*leaked*, written at ./leaky.lua:3 < content*:2*", "* 3 | leaked = 1"]
    )
    lines.fnmatch_lines(["*a timer of 3600 s that has not fired, made at content*:3*"])
    lines.fnmatch_lines(["*user thread*sleeping*, spawned at content*:2*"])
    lines.fnmatch_lines(
        ["*a socket neither closed nor kept alive, connected at ./client.lua:3 < content*:3*"]
    )


def test_settings_of_a_project(pytester: pytest.Pytester) -> None:
    """What pytest's configuration says, and options of the command line."""
    path = pytester.path
    pytester.makeini(
        "[pytest]\nlua_conf = conf/nginx.conf\nlua_prefix = .\nlua_package_path = modules/?.lua"
    )
    for folder in ("conf", "modules", "lua"):
        path.joinpath(folder).mkdir()
    path.joinpath("conf/nginx.conf").write_text(
        """
        events {}
        http {
            lua_package_path "$prefix/lua/?.lua;;";
            server {
                listen 80;
                location / { content_by_lua_block { ngx.sleep(2) ngx.print(require("two").three) } }
            }
        }
        """
    )
    path.joinpath("lua/two.lua").write_text("return { three = 1 + require('one') }")
    path.joinpath("modules/one.lua").write_text("return 2")
    path.joinpath("one_spec.lua").write_text(
        "describe('one', function() it('is 2', function() assert.equal(2, require('one')) end) end)"
    )
    pytester.makepyfile(
        """
        import pytest
        import trio_lua
        from trio_lua.testing import LuaClock

        @pytest.fixture
        def lua_clock():
            return LuaClock(epoch=86400)

        async def test_conf(lua_client, lua):
            assert await lua.run("return jit.status(), ngx.time()") == (False, 86400)
            assert (await lua_client.get("/")).text == "3"
            assert False
        """
    )
    options = ("-p", "no:cacheprovider", "--lua-jit=off", "--lua-trace")
    result = pytester.runpytest_inprocess(*options)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- trace -*",
            "*0.000   #1 GET /",
            "*0.000   #1   content",
            "*2.000   #1   content done",
            "*2.000   #1 200, 2.000 s",
        ]
    )
