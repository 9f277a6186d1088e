"""``trio_lua.serve`` inside a program of somebody else."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from serving import MemoryLog

import trio_lua
from trio_lua import Config, ConfigError, ListenError, LuaError, Server, from_lua, serve

REQUEST = b"GET /x HTTP/1.0\r\n\r\n"


def hello(**directives: Any) -> Config:
    return from_lua("ngx.say('hello ', ngx.var.uri)", listen="127.0.0.1:0", **directives)


async def answer(stream: trio.abc.Stream) -> bytes:
    async with stream:
        await stream.send_all(REQUEST)
        received = b""
        while part := await stream.receive_some():
            received += part
        return received


async def test_reports_its_addresses_and_serves() -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, hello())
        [(host, port)] = server.addresses
        assert host == "127.0.0.1"
        assert port
        assert server.urls == (f"http://127.0.0.1:{port}",)
        response = await answer(await trio.open_tcp_stream(host, port))
        assert response.endswith(b"\r\n\r\nhello /x\n")
        assert f"\r\nServer: trio-lua/{trio_lua.__version__}\r\n".encode() in response
        nursery.cancel_scope.cancel()
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream(host, port)


async def test_quit_lets_it_return() -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, hello())
        server.quit()


async def test_several_in_one_run_are_strangers() -> None:
    code = "count = (count or 0) + 1 package.loaded.shared = (package.loaded.shared or 0) + 1 ngx.print(package.loaded.shared)"
    async with trio.open_nursery() as nursery:
        servers = [
            await nursery.start(serve, from_lua(code, listen="127.0.0.1:0")) for _ in range(2)
        ]
        for server in servers:
            response = await answer(await trio.open_tcp_stream(*server.addresses[0]))
            assert response.endswith(b"\r\n\r\n1")
        nursery.cancel_scope.cancel()


async def test_streams() -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            lambda task_status: serve(hello(), listeners=[], task_status=task_status)
        )
        assert server.addresses == ()
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(server.serve_stream, theirs)
        assert (await answer(ours)).endswith(b"hello /x\n")
        nursery.cancel_scope.cancel()


async def test_sockets_and_listeners_are_taken_over() -> None:
    plain = socket.create_server(("127.0.0.1", 0))
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            lambda task_status: serve(hello(), listeners=[plain, listener], task_status=task_status)
        )
        assert len(server.addresses) == 2
        for host, port in server.addresses:
            response = await answer(await trio.open_tcp_stream(host, port))
            assert response.endswith(b"hello /x\n")
        nursery.cancel_scope.cancel()
    assert plain.fileno() == -1
    assert listener.socket.fileno() == -1


async def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    config = from_lua("ngx.print(1)", listen=f"unix:{path}")
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, config)
        assert server.addresses == (str(path),)
        response = await answer(await trio.open_unix_socket(path))
        assert response.endswith(b"\r\n\r\n1")
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_port_in_use() -> None:
    log = MemoryLog()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = from_lua("return", listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ListenError):
            await serve(config, error_log=log)
    assert "Address already in use" in log.text()


async def test_init_by_lua_fails() -> None:
    with pytest.raises(LuaError, match=r"init_by_lua error: .*: oops"):
        await serve(hello(init_by_lua="error('oops')"))


async def test_a_configuration_that_cannot_be_used() -> None:
    config = from_lua("return", listen="127.0.0.1:0", access_log="/nowhere/a.log")
    with pytest.raises(ConfigError, match=r"/nowhere/a.log"):
        await serve(config)


async def test_cancelling_cancels_the_requests() -> None:
    config = from_lua("ngx.sleep(1e6)", listen="127.0.0.1:0")
    log = MemoryLog()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            lambda task_status: serve(config, error_log=log, task_status=task_status)
        )
        client = await trio.open_tcp_stream(*server.addresses[0])
        await client.send_all(REQUEST)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        assert await client.receive_some() == b""
    await client.aclose()
    assert log.lines == []


def test_names_are_found_without_loading_them() -> None:
    assert set(trio_lua.__all__) <= set(dir(trio_lua))
    for name in trio_lua.__all__:
        assert getattr(trio_lua, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trio_lua.nothing  # type: ignore[attr-defined]


async def test_bundled_modules_are_known() -> None:
    config = trio_lua.loads("events {} http { server { location / { echo hello; } } }")
    app = trio_lua.ConfigBuilder()
    app.server().location("/", echo="hello")
    for known in (config, app.build()):
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(partial(serve, known, listeners=[]))
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve_stream, theirs)
            assert (await answer(ours)).endswith(b"\r\n\r\nhello\n")
            nursery.cancel_scope.cancel()


def test_errors_name_the_line_of_the_program() -> None:
    app = trio_lua.ConfigBuilder()
    app.server(echo_nothing="x")
    with pytest.raises(ConfigError, match='unknown directive "echo_nothing"') as caught:
        app.build()
    assert caught.value.file == __file__


async def test_shared_dictionaries(autojump_clock: trio.testing.MockClock) -> None:
    config = from_lua(
        "ngx.print(ngx.shared.d:get('x'))",
        listen="127.0.0.1:0",
        lua_shared_dict=("d", "64k"),
        init_by_lua="ngx.shared.d:set('since', ngx.time()) ngx.shared.d:rpush('list', 1)",
    )
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            lambda task_status: serve(config, listeners=[], task_status=task_status)
        )
        assert list(server.shared) == ["d"]
        shared = server.shared["d"]
        assert (shared.name, shared.capacity, len(shared)) == ("d", 64 << 10, 2)
        assert isinstance(shared["since"], int)
        shared.set("x", "for a minute", ttl=60)
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(server.serve_stream, theirs)
        assert (await answer(ours)).endswith(b"for a minute")
        assert b"x" in shared
        await trio.sleep(61)
        assert "x" not in shared
        assert shared.get("x") is None
        shared.update({b"a": 1, b"b": False, b"c": 0.5})
        assert {key: shared[key] for key in (b"a", b"b", b"c")} == {b"a": 1, b"b": False, b"c": 0.5}
        assert set(shared) == {b"since", b"list", b"a", b"b", b"c"}
        assert shared.pop("a") == 1
        with pytest.raises(KeyError):
            del shared["a"]
        with pytest.raises(KeyError):
            shared["a"]
        with pytest.raises(ValueError, match="is a list"):
            shared["list"]
        with pytest.raises(ValueError, match="empty key"):
            shared[""] = 1
        with pytest.raises(ValueError, match="bad value type"):
            shared["a"] = []  # type: ignore[assignment]
        with pytest.raises(ValueError, match="exptime"):
            shared.set("a", 1, ttl=-1)
        with pytest.raises(MemoryError, match="no memory"):
            shared["a"] = b"x" * 100_000
        assert shared.free_space < shared.capacity
        shared.clear()
        assert len(shared) == 0
        nursery.cancel_scope.cancel()


# ------------------------------------------------------------------- requests from inside

ECHO = """
ngx.req.read_body()
ngx.header["X-Client"] = ngx.var.remote_addr
ngx.print(
    ngx.req.get_method(), " ", ngx.var.request_uri, " ", ngx.var.http_x or "-", " ", ngx.req.get_body_data() or "-"
)
"""


async def serve_inside(config: Config, *, task_status: trio.TaskStatus[Server]) -> None:
    await serve(config, listeners=[], task_status=task_status)


async def test_requests_from_inside() -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve_inside, from_lua(ECHO))
        response = await server.request("GET", "/a", params={"b": "c d"}, headers={"X": "y"})
        assert (response.status, response.text) == (200, "GET /a?b=c+d y -")
        assert response.headers["x-client"] == "127.0.0.1"
        response = await server.request("PUT", "/\N{SNOWMAN}", json=[1], client="10.0.0.7")
        assert response.text == "PUT /%E2%98%83 - [1]"
        assert response.headers["X-Client"] == "10.0.0.7"
        with pytest.raises(ValueError, match="line break"):
            await server.request("GET", "/", headers={"X": "y\r\nHost: other"})
        server.quit()
    with pytest.raises(trio.ClosedResourceError):
        await server.request("GET", "/")


async def test_a_request_from_inside_that_is_cancelled() -> None:
    code = "ngx.on_abort(function() ngx.shared.d:set('gone', 1) ngx.exit(499) end) ngx.sleep(1e6)"
    config = from_lua(code, lua_shared_dict=("d", "100k"), lua_check_client_abort=True)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve_inside, config)
        async with trio.open_nursery() as clients:
            clients.start_soon(server.request, "GET", "/")
            await trio.testing.wait_all_tasks_blocked()
            clients.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert server.shared["d"]["gone"] == 1
        server.quit()


async def test_apps_ask_each_other() -> None:
    """An exposed function leads from one to the other."""
    async with trio.open_nursery() as nursery:
        inner: Server = await nursery.start(serve_inside, from_lua("ngx.print(ngx.var.arg_n * 2)"))

        async def ask(number: int) -> str:
            return (await inner.request("GET", "/", params={"n": str(number)})).text

        config = from_lua("ngx.print('twice: ', require('python.inner').ask(21))")
        outer: Server = await nursery.start(serve_inside, config.expose("inner.ask", ask))
        assert (await outer.request("GET", "/")).text == "twice: 42"
        nursery.cancel_scope.cancel()


async def test_observers() -> None:
    class Counter(trio_lua.Observer):
        statuses: list[int] = []  # noqa: RUF012

        def request_finished(self, request: trio_lua.ObservedRequest) -> None:
            self.statuses.append(request.status)

    counter = Counter()
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[Server]) -> None:
            await serve(
                from_lua("ngx.exit(tonumber(ngx.var.arg_status))"),
                listeners=[],
                observers=[counter],
                task_status=task_status,
            )

        server: Server = await nursery.start(run)
        for status in (200, 404):
            await server.request("GET", f"/?status={status}")
        server.quit()
    assert counter.statuses == [200, 404]
