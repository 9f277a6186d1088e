"""Public libraries, unmodified, against real servers.

None of their files is part of the repository: the environment variable TRIO_LUA_RESTY_PATH names where they are, in
the form of ``lua_package_path``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from serving import MemoryLog, Running, nginx

from trio_lua.server.worker import Worker

LIBRARIES = os.environ.get("TRIO_LUA_RESTY_PATH", "")

needs_libraries = pytest.mark.skipif(not LIBRARIES, reason="TRIO_LUA_RESTY_PATH is not set")


def started(command: list[str], path: Path) -> Iterator[Path]:
    """A server that listens on a unix socket."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                with socket.socket(socket.AF_UNIX) as sock:
                    if sock.connect_ex(str(path)) == 0:
                        break
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.05)
            yield path
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("redis")
    path = folder / "s"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""]
    yield from started([*command, "--dir", str(folder)], path)


@pytest.fixture(scope="module")
def memcached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("memcached") / "s"
    user = ["-u", "root"] if os.getuid() == 0 else []
    yield from started(["memcached", "-s", str(path), "-a", "0777", *user], path)


async def run(code: str, more: str = "") -> list[str]:
    conf = nginx(
        f"location /t {{ content_by_lua_block {{ {code} }} }} {more}",
        f'lua_package_path "{LIBRARIES};;";',
    )
    log = MemoryLog()
    async with trio.open_nursery() as nursery:
        worker = Worker(conf, error_log=log)
        await nursery.start(worker.run, [])
        running = Running(worker, log, True)
        with trio.fail_after(30):
            client = await running.connect()
            status, _, data = await client.get("/t")
            assert status == 200, log.text()
            await client.aclose()
        assert log.text(4) == ""
        nursery.cancel_scope.cancel()
    return data.decode().splitlines()


async def test_redis_by_hand(redis: Path) -> None:
    code = f"""
        local sock = ngx.socket.tcp()
        for i = 1, 3 do
            assert(sock:connect("unix:{redis}"))
            assert(sock:send("*2\\r\\n$4\\r\\nINCR\\r\\n$1\\r\\nn\\r\\n"))
            ngx.say(sock:receive(), " ", sock:getreusedtimes())
            assert(sock:setkeepalive())
        end
    """
    assert await run(code) == [":1 0", ":2 1", ":3 2"]


async def test_memcached_by_hand(memcached: Path) -> None:
    code = f"""
        local sock = ngx.socket.tcp()
        assert(sock:connect("unix:{memcached}"))
        assert(sock:send({{ "set k 0 0 ", 5, "\\r\\n", {{ "hel", "lo" }}, "\\r\\n" }}))
        ngx.say(sock:receive())
        assert(sock:send("get k\\r\\n"))
        ngx.say(sock:receiveuntil("END\\r\\n")():gsub("\\r\\n", "|"))
    """
    assert await run(code) == ["STORED", "VALUE k 0 5|hello|2"]


@needs_libraries
async def test_lua_resty_redis(redis: Path) -> None:
    code = f"""
        local redis = require "resty.redis"
        local red = redis:new()
        red:set_timeouts(1000, 1000, 1000)
        assert(red:connect("unix:{redis}"))
        ngx.say(red:set("dog", "an animal"), " ", red:get("dog"))
        ngx.say(red:get("none") == ngx.null)
        red:init_pipeline()
        red:set("cat", "Marry")
        red:get("cat")
        red:lpush("list", "a", "b")
        red:lrange("list", 0, -1)
        local results = red:commit_pipeline()
        ngx.say(results[2], " ", results[3], " ", table.concat(results[4], ","))
        ngx.say(select(2, red:eval("return redis.error_reply('no')", 0)))
        red:multi()
        red:incr("x")
        red:incr("x")
        ngx.say(table.concat(red:exec(), ","))
        ngx.say(red:set_keepalive(10000, 10))
        local one, two = redis:new(), redis:new()
        assert(one:connect("unix:{redis}"))
        ngx.say(one:get_reused_times())
        assert(two:connect("unix:{redis}"))
        assert(one:subscribe("news"))
        ngx.thread.spawn(function() two:publish("news", "hello") end)
        ngx.say(table.concat(one:read_reply(), " "))
        one:close()
    """
    assert await run(code) == [
        "OK an animalnil",
        "true",
        "Marry 2 b,a",
        "ERR no",
        "1,2",
        "1",
        "1",
        "message news hello",
    ]


@needs_libraries
async def test_lua_resty_memcached(memcached: Path) -> None:
    code = f"""
        local memcached = require "resty.memcached"
        local memc = memcached:new()
        memc:set_timeout(1000)
        assert(memc:connect("unix:{memcached}"))
        ngx.say(memc:flush_all())
        ngx.say(memc:set("dog", 32))
        ngx.say(memc:get("dog"))
        ngx.say(memc:incr("dog", 2))
        ngx.say(memc:add("dog", 1))
        ngx.say(memc:get({{ "dog", "cat" }}).dog[1])
        ngx.say(memc:delete("dog"), memc:get("dog"))
        ngx.say(memc:set_keepalive())
    """
    assert await run(code) == [
        "1",
        "1",
        "320",
        "34",
        "nilNOT_STORED",
        "34",
        "1nilnilnil",
        "1",
    ]


async def http_server(stream: trio.SocketStream) -> None:
    """Answers with what it was asked, in chunks."""
    buffer = b""
    async for data in stream:
        buffer += bytes(data)
        while b"\r\n\r\n" in buffer:
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            line = head.partition(b"\r\n")[0]
            answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            answer += b"%x\r\n%b\r\n3\r\nend\r\n0\r\n\r\n" % (len(line), line)
            await stream.send_all(answer)


@needs_libraries
async def test_lua_resty_http() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, http_server, listeners)
        code = f"""
            local http = require "resty.http"
            local httpc = http.new()
            local res = assert(httpc:request_uri("http://127.0.0.1:{port}/a?b=c", {{ method = "GET" }}))
            ngx.say(res.status, " ", res.body)
            assert(httpc:connect({{ scheme = "http", host = "127.0.0.1", port = {port} }}))
            ngx.say(httpc:get_reused_times())
            local res = assert(httpc:request({{ path = "/stream" }}))
            local chunks = {{}}
            for chunk in res.body_reader, 4 do chunks[#chunks + 1] = chunk end
            ngx.say(table.concat(chunks, "|"))
            ngx.say(httpc:set_keepalive())
        """
        lines = await run(code)
        nursery.cancel_scope.cancel()
    assert lines == [
        "200 GET /a?b=c HTTP/1.1end",
        "1",
        "GET |/str|eam |HTTP|/1.1|end",
        "1",
    ]


@needs_libraries
async def test_lua_resty_websocket(tmp_path: Path) -> None:
    path = tmp_path / "ws"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    conf: Any = nginx(
        f"""
        location /t {{ content_by_lua_block {{
            local client = require "resty.websocket.client"
            local wb = client:new({{ max_payload_len = 100000 }})
            assert(wb:connect("ws://unix:{path}:/ws"))
            assert(wb:send_text("hello"))
            ngx.say(wb:recv_frame())
            assert(wb:send_binary(string.rep("x", 70000)))
            ngx.say(#wb:recv_frame())
            assert(wb:send_ping("p"))
            ngx.say(wb:recv_frame())
            assert(wb:send_close(1000, "bye"))
            ngx.say(wb:recv_frame())
        }} }}
        location /ws {{ content_by_lua_block {{
            local server = require "resty.websocket.server"
            local wb = assert(server:new({{ max_payload_len = 100000 }}))
            while true do
                local data, kind, err = wb:recv_frame()
                if not data then break end
                if kind == "close" then wb:send_close(1000, "seen") break end
                if kind == "ping" then wb:send_pong(data)
                elseif kind == "text" then wb:send_text(data)
                else wb:send_binary(data) end
            end
        }} }}
        """,
        f'lua_package_path "{LIBRARIES};;";',
    )
    log = MemoryLog()
    async with trio.open_nursery() as nursery:
        worker = Worker(conf, error_log=log)
        await nursery.start(worker.run, [(None, sock)])
        running = Running(worker, log, True)
        with trio.fail_after(30):
            client = await running.connect()
            status, _, data = await client.get("/t")
            assert status == 200, log.text()
            await client.aclose()
        nursery.cancel_scope.cancel()
    assert data.decode().splitlines() == [
        "hellotextnil",
        "70000",
        "ppongnil",
        "seenclose1000",
    ]
