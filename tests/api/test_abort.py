"""Clients that leave while their requests are served."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from serving import Client, Running, nginx, serve
from upstream import silent, upstream

__all__ = ["serve"]

Serve = Callable[..., Any]


def page(code: str, settings: str = "lua_check_client_abort on;") -> Any:
    log = "log_by_lua_block { ngx.log(ngx.WARN, 'status ', ngx.status) }"
    return nginx(f"location /t {{ {settings} {log} content_by_lua_block {{ {code} }} }}")


async def begin(running: Running) -> Client:
    client = await running.connect()
    await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
    await trio.testing.wait_all_tasks_blocked()
    return client


async def settle() -> None:
    for _ in range(5):
        await trio.testing.wait_all_tasks_blocked()


SLEEP = "ngx.sleep(1) ngx.log(ngx.WARN, 'went on')"


async def test_off(serve: Serve, autojump_clock: Any) -> None:
    async with serve(page(SLEEP, "")) as running:
        client = await begin(running)
        await client.aclose()
        await trio.sleep(2)
        assert "went on" in running.log.text()


async def test_the_handler_is_stopped(serve: Serve, autojump_clock: Any) -> None:
    async with serve(page(SLEEP)) as running:
        client = await begin(running)
        await client.aclose()
        await trio.sleep(2)
        log = running.log.text()
        assert "client prematurely closed connection" in log
        assert "went on" not in log
        assert "status 499" in log


async def test_threads_that_wake_at_once(serve: Serve, autojump_clock: Any) -> None:
    """The clock may come to them before the request's new task has begun."""
    code = "ngx.sleep(0) ngx.thread.spawn(function() ngx.sleep(0) end) ngx.say('x')"
    async with serve(page(code)) as running:
        client = await running.connect()
        for _ in range(20):
            assert (await client.get("/t"))[2] == b"x\n"


async def test_threads_that_can_go_on_come_first(serve: Serve, autojump_clock: Any) -> None:
    code = """
        ngx.thread.spawn(function() ngx.sleep(0) ngx.say("slept") end)
        ngx.thread.spawn(require("python.m").wait)
        ngx.say("went on")
        """

    async def wait() -> None:
        await trio.sleep(1)

    async with serve(page(code).expose("m.wait", wait)) as running:
        client = await running.connect()
        for _ in range(20):
            assert (await client.get("/t"))[2] == b"went on\nslept\n"


async def test_the_status_that_was_sent_stays(serve: Serve, autojump_clock: Any) -> None:
    async with serve(page("ngx.say('x') ngx.flush(true)" + SLEEP)) as running:
        client = await begin(running)
        await client.aclose()
        await trio.sleep(2)
        assert "status 200" in running.log.text()


async def test_a_client_that_stays(serve: Serve, autojump_clock: Any) -> None:
    async with serve(page("ngx.sleep(1) ngx.say('done')")) as running:
        client = await begin(running)
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")  # pipelined
        assert (await client.response())[2] == b"done\n"
        assert (await client.response())[2] == b"done\n"
        assert (await client.get("/t"))[2] == b"done\n"
        assert "prematurely" not in running.log.text()


async def test_a_body_that_comes_late(serve: Serve, autojump_clock: Any) -> None:
    code = "ngx.sleep(1) ngx.req.read_body() ngx.say(ngx.req.get_body_data())"
    async with serve(page(code)) as running:
        client = await running.connect()
        await client.send(b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
        await settle()
        await client.send(b"abc")
        await trio.sleep(2)
        await client.send(b"def")
        assert (await client.response())[2] == b"abcdef\n"


async def test_callback(serve: Serve, autojump_clock: Any) -> None:
    code = """
        ngx.say(ngx.on_abort(function() ngx.log(ngx.WARN, "called") end))
        ngx.say(ngx.on_abort(function() end))
        ngx.sleep(1)
        ngx.log(ngx.WARN, "went on")
    """
    async with serve(page(code)) as running:
        client = await begin(running)
        assert (await client.response())[2] == b"1\nnilduplicate call\n"
        assert "called" not in running.log.text()
        client = await begin(running)
        await client.aclose()
        await trio.sleep(2)
        log = running.log.text()
        assert log.index("called") < log.rindex("went on")


async def test_callback_that_ends_the_request(serve: Serve, autojump_clock: Any) -> None:
    code = """
        ngx.on_abort(function()
            ngx.sleep(0.1)
            ngx.log(ngx.WARN, "called")
            ngx.exit(499)
        end)
    """
    async with serve(page(code + SLEEP)) as running:
        client = await begin(running)
        await client.aclose()
        await trio.sleep(2)
        log = running.log.text()
        assert "called" in log
        assert "went on" not in log
        assert "status 499" in log


async def test_callback_needs_the_directive(serve: Serve) -> None:
    code = """
        ngx.say(ngx.on_abort(function() end))
        ngx.say(select(2, pcall(ngx.on_abort)))
    """
    async with serve(page(code, "")) as running:
        client = await begin(running)
        assert (await client.response())[2].decode().splitlines() == [
            "nillua_check_client_abort is off",
            "bad argument #1 to 'on_abort' (Lua function expected)",
        ]


def left(running: Running) -> tuple[int, ...]:
    """What a process has: descriptors, tasks, sockets of Lua code, requests and light threads."""
    sockets = running.worker.runtime.sockets
    tasks = trio.lowlevel.current_statistics().tasks_living
    fds = len(os.listdir("/proc/self/fd"))
    return fds, tasks, sockets.open, *running.worker.runtime.vm.export("live")()


async def test_several_sockets_and_threads_of_clients_that_leave(serve: Serve) -> None:
    async with upstream(silent) as peer:
        code = f"""
            local sock = ngx.socket.connect("127.0.0.1", {peer.port})
            ngx.thread.spawn(function() sock:receive() end)
            ngx.socket.connect("127.0.0.1", {peer.port}):receive()
        """
        async with serve(page(code)) as running:
            client = await begin(running)
            await client.aclose()
            await settle()
            before = left(running)
            assert before[2:] == (0, 0, 0)
            clients = [await running.connect() for _ in range(20)]
            for client in clients:
                await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
            await settle()
            assert running.worker.runtime.sockets.open == 40
            for client in clients:
                await client.aclose()
            await settle()
            running.clients.clear()
            assert left(running) == before


# fewer on the driver that is not in production: each has several tasks there
@pytest.mark.parametrize(("serve", "rounds"), [("parked", 10), ("task", 1)], indirect=["serve"])
async def test_5000_that_leave_in_a_socket_call(serve: Serve, rounds: int) -> None:
    # the system makes the connections, so that no task of the test's own takes part
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        code = f'local s = ngx.socket.connect("127.0.0.1", {port}) s:receive()'
        conf = nginx(
            f"location /t {{ lua_check_client_abort on; content_by_lua_block {{ {code} }} }}",
            prefix="",
        )
        async with serve(conf) as running:
            client = await begin(running)
            await client.aclose()
            await settle()
            before = left(running)
            assert before[2:] == (0, 0, 0)
            for _ in range(rounds):
                clients = []
                for _ in range(500):
                    ours, theirs = socket.socketpair()
                    running.worker.serve_socket(theirs)
                    ours.sendall(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
                    clients.append(ours)
                await trio.testing.wait_all_tasks_blocked()
                assert left(running)[2:] == (500, 500, 500)
                for ours in clients:
                    ours.close()
                await settle()
                with contextlib.suppress(BlockingIOError):
                    while True:
                        listener.accept()[0].close()
            assert left(running) == before
