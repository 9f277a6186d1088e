"""Code as users write it against the public API. pytest runs it, and .ci/run checks its types with mypy --strict."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trio_lua
from trio_lua import testing

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: Any, _kind: Any) -> Any:
        return value


# ---------------------------------------------------------------------- embedding


async def test_embedding() -> None:
    conf = trio_lua.from_lua("ngx.say('hello')")
    assert_type(conf, trio_lua.Config)
    log: list[str] = []

    class Log:
        level = 8

        def log(self, level: int, message: bytes, connection: int = 0) -> None:
            log.append(message.decode())

        def reopen(self) -> None: ...

        def close(self) -> None: ...

    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[trio_lua.Server]) -> None:
            await trio_lua.serve(conf, listeners=[], error_log=Log(), task_status=task_status)

        server: trio_lua.Server = await nursery.start(serve)
        assert_type(server.urls, tuple[str, ...])
        server.quit()


class Meter(trio_lua.Observer):
    """A user's observer."""

    def __init__(self) -> None:
        self.spans: dict[trio_lua.ObservedOperation, float] = {}
        self.done: list[tuple[str, int]] = []

    def request_finished(self, request: trio_lua.ObservedRequest) -> None:
        assert_type(request.status, int)
        assert_type(request.variable("bytes_sent"), str | None)
        self.done.append((request.target, request.status))

    def phase_finished(self, phase: trio_lua.ObservedPhase) -> None:
        assert_type(phase.request, trio_lua.ObservedRequest)
        assert_type(phase.outcome, str)

    def operation_finished(self, operation: trio_lua.ObservedOperation) -> None:
        assert_type(operation.request, trio_lua.ObservedRequest | None)
        self.spans[operation] = operation.seconds


async def test_an_app_and_its_functions() -> None:
    async def fetch(name: str, *, limit: int = 1) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"name": name, "limit": limit}

    app = trio_lua.ConfigBuilder(error_log=("stderr", "crit"))
    app.http(lua_shared_dict=("d", "100k"), types={"text/html": ["html", "htm"]})
    app.expose("db.fetch", fetch, errors=(KeyError, ValueError))
    server = app.server(listen=["127.0.0.1:8000"], server_name="a.test")
    place = server.location("/", content_by_lua="ngx.print(require('python.db').fetch('x').name)")
    place.if_("$arg_debug", "=", "1", return_=404)
    config = app.build()
    assert_type(config, trio_lua.Config)
    assert_type(config.expose("tax.of", lambda price: price, text=True), trio_lua.Config)
    meter = Meter()
    async with trio.open_nursery() as nursery:
        serve = partial(trio_lua.serve, config, listeners=[], observers=[meter])
        running: trio_lua.Server = await nursery.start(serve)
        response = await running.request("GET", "/", params={"a": "b"}, headers={"X": "y"})
        assert_type(response, trio_lua.Response)
        assert_type(response.headers, trio_lua.Headers)
        assert_type(response.text, str)
        running.shared["d"]["n"] = 1
        assert_type(running.shared["d"]["n"], bytes | int | float | bool)
        running.quit()
    assert response.text == "x"
    assert meter.done == [("/?a=b", 200)]


def test_errors() -> None:
    try:
        trio_lua.loads("nonsense;")
    except trio_lua.ConfigError as error:
        assert_type(str(error), str)
    else:
        pytest.fail("that is no configuration")


# ------------------------------------------------------------------------ testing


@pytest.fixture
def lua_conf() -> str:
    return "ngx.print(ngx.shared.d and 1 or 'none')"


async def test_fixtures(
    lua_server: testing.LuaServer,
    lua_client: testing.Client,
    lua_log: testing.LogRecords,
    lua_clock: testing.LuaClock,
    lua_network: testing.LuaNetwork,
) -> None:
    response = await lua_client.get("/", params={"a": "b"}, headers=[("X", "y")])
    assert_type(response, testing.Response)
    assert_type(response.status, int)
    assert_type(response.headers["server"], str)
    assert_type(response.body, bytes)
    assert_type(lua_log.at("warn"), list[testing.LogRecord])
    assert_type(lua_clock.now(), float)
    assert_type(lua_server.client_from("10.0.0.1"), testing.Client)

    async def echo(stream: trio.abc.Stream) -> None:
        while data := await stream.receive_some():
            await stream.send_all(data)

    assert_type(lua_network.tcp("a", 1, echo), testing.Peer)
    assert_type(lua_network.redis("b").commands, list[list[str]])
    answers = lua_network.http("c", 80, {"/": lambda request: testing.Answer(request.json())})
    assert_type(answers.requests, list[testing.HttpRequest])
    lua_network.udp("d", 53, lambda data: [data, data])


def test_without_pytest(tmp_path: Path) -> None:
    clock = testing.LuaClock()

    async def main() -> str:
        async with testing.open_server("ngx.sleep(60) ngx.print('x')", clock=clock) as server:
            return (await server.get("/")).text

    assert_type(testing.run(main, clock=clock), str)

    async def script() -> Any:
        conf = testing.configuration(package_path=f"{tmp_path}/?.lua")
        with testing.LuaNetwork() as network:
            log = testing.LogRecords()
            async with testing.open_lua(conf, log=log, epoch=0, network=network) as lua:
                assert_type(lua, testing.Lua)
                return await lua.run("return 1")

    assert testing.run(script) == 1


async def fixture_of_a_user(lua_server: testing.LuaServer) -> AsyncIterator[testing.Client]:
    yield lua_server.client_from("10.0.0.1")
