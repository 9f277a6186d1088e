"""The network of tests: peers, names, misbehaviour, and what it says when Lua code does something else."""

from __future__ import annotations

import math
import re

import pytest
import trio
import trio.testing

from trio_lua.testing import Client, LogRecords, Lua, LuaClock, LuaNetwork, NetworkFailure

SOCKET = """
local sock = ngx.socket.tcp()
sock:settimeouts(1000, 1000, 1000)
local ok, err = sock:connect("peer", 7)
if not ok then return "connect", err end
local bytes, err = sock:send("hello\\n")
if not bytes then return "send", err end
local line, err = sock:receive()
if not line then return "receive", err end
sock:setoption("tcp-nodelay", true)
sock:setkeepalive()
return line
"""


async def echo(stream: trio.abc.Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def test_a_handler_and_keepalive(lua: Lua, lua_network: LuaNetwork) -> None:
    peer = lua_network.tcp("peer", 7, echo)
    assert await lua.run(SOCKET) == "hello"
    assert (
        await lua.run(
            "local s = ngx.socket.tcp() s:connect('peer', 7) local n = s:getreusedtimes() s:close() return n"
        )
        == 1
    )
    assert peer.accepted == 1
    assert lua_network.queries == ["peer"]


@pytest.mark.lua(allow_leaks=["sockets"])
@pytest.mark.parametrize(
    ("kind", "what", "seconds"),
    [
        ("refuse", ("connect", "connection refused"), 0),
        ("timeout", ("connect", "timeout"), 1),
        ("silent", ("receive", "timeout"), 1),
        ("reset", ("receive", "connection reset by peer"), 0),
    ],
)
async def test_misbehaviour(
    lua: Lua,
    lua_network: LuaNetwork,
    lua_log: LogRecords,
    kind: str,
    what: tuple[str, str],
    seconds: int,
) -> None:
    getattr(lua_network, kind)("peer", 7)
    lua_log.allow("")
    assert await lua.run(SOCKET) == what
    assert trio.current_time() == seconds


@pytest.mark.lua(allow_leaks=["sockets"])
async def test_slow_peers(lua: Lua, lua_network: LuaNetwork, lua_log: LogRecords) -> None:
    lua_network.tcp("peer", 7, echo).slow(0.9, connecting=0.9)
    assert await lua.run(SOCKET) == "hello"
    assert trio.current_time() == 1.8
    lua_network.tcp("other", 7, echo)
    lua_network.slow("other", 7, 1.1)
    lua_log.allow("timed out")
    assert await lua.run(SOCKET.replace("peer", "other")) == ("receive", "timeout")


async def test_an_unknown_address(lua: Lua, lua_network: LuaNetwork, lua_log: LogRecords) -> None:
    lua_network.tcp("peer", 8, echo)
    lua_log.allow("lua_network")
    assert await lua.run(SOCKET) == ("connect", "connection refused")
    assert 'add it with lua_network.tcp("peer", 7, handler)' in lua_log
    assert await lua.run(SOCKET.replace("peer", "127.0.0.1")) == ("connect", "connection refused")
    assert 'lua_network.pass_through("127.0.0.1", 7)' in lua_log
    code = "return ngx.socket.tcp():connect('unix:/x.sock')"
    assert await lua.run(code) == (None, "no such file or directory")


@pytest.mark.lua(allow_leaks=["sockets"])
async def test_names(lua: Lua, lua_network: LuaNetwork, lua_log: LogRecords) -> None:
    lua_network.dns("gone")
    code = "return ngx.socket.tcp():connect('{}', 80)"
    assert await lua.run(code.format("gone")) == (
        None,
        "gone could not be resolved (3: Host not found)",
    )
    assert not lua_log.unexpected()
    lua_log.allow("lua_network.dns")
    await lua.run(code.format("unheard.of"))
    assert 'the test has no host "unheard.of"' in lua_log
    lua_network.dns("slow", "10.0.0.1", seconds=math.inf)
    assert await lua.run(code.format("slow")) == (
        None,
        "slow could not be resolved (110: Operation timed out)",
    )


async def test_the_next_address_is_tried(
    lua: Lua, lua_network: LuaNetwork, lua_log: LogRecords
) -> None:
    lua_network.dns("peer", "10.0.0.1", "10.0.0.2")
    lua_network.timeout("10.0.0.1", 7)
    lua_network.tcp("10.0.0.2", 7, echo)
    assert await lua.run(SOCKET) == "hello"
    assert trio.current_time() == 0.25


async def test_addresses_and_unix_sockets(lua: Lua, lua_network: LuaNetwork) -> None:
    lua_network.tcp("127.0.0.1", 7, echo)
    lua_network.tcp("[::1]", 7, echo)
    lua_network.tcp("unix:/tmp/x.sock", 0, echo)
    assert await lua.run(SOCKET.replace("peer", "127.0.0.1")) == "hello"
    assert await lua.run(SOCKET.replace("peer", "[::1]")) == "hello"
    assert await lua.run(SOCKET.replace('"peer", 7', '"unix:/tmp/x.sock"')) == "hello"


@pytest.mark.lua(allow_leaks=["sockets"])
async def test_scripts(lua: Lua, lua_network: LuaNetwork, lua_log: LogRecords) -> None:
    lua_network.script("peer", 7).expect("hel").expect(re.compile(rb"l.\n")).wait(0.5).send("a\n")
    lua_network.script("peer", 7).expect("hello\n").close()
    code = SOCKET.replace("sock:setkeepalive()", "sock:close()")
    assert await lua.run(code) == "a"
    assert trio.current_time() == 0.5
    assert await lua.run(code) == ("receive", "closed")
    lua_network.check()
    lua_log.allow("scripts for 2 connections only")
    assert await lua.run(code) == ("connect", "connection refused")
    assert len(lua_log.unexpected()) == 0


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("hullo", "expected b'hullo', received b'hello\\n'"),
        ("hello\nyou", "but the client closed the connection after b'hello\\n'"),
        ("hel", "nothing more was expected, but there is b'lo\\n'"),
    ],
)
async def test_scripts_that_are_not_followed(step: str, message: str, lua_clock: LuaClock) -> None:
    from trio_lua.testing import configuration, open_lua

    log = LogRecords()
    network = LuaNetwork()
    network.script("peer", 7).expect(step)
    async with open_lua(configuration(), log=log, epoch=0, network=network) as lua:
        await lua.run(SOCKET.replace("local line, err", "do sock:close() return end local line"))
        await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(NetworkFailure, match=re.escape(message)):
        network.check()


def test_a_connection_that_is_not_made() -> None:
    with (
        pytest.raises(NetworkFailure, match="peer:7: connection 1 was expected and not made"),
        LuaNetwork() as network,
    ):
        network.script("peer", 7)


@pytest.mark.lua(allow_leaks=["sockets"])
async def test_datagrams(lua: Lua, lua_network: LuaNetwork, lua_log: LogRecords) -> None:
    peer = lua_network.udp("peer", 53, lambda data: [data, data.upper()]).slow(1)
    statsd = lua_network.udp("127.0.0.1", 8125)
    code = """
    local sock = ngx.socket.udp()
    sock:setpeername("peer", 53)
    sock:send("hi")
    local one, two = sock:receive(), sock:receive()
    local stats = ngx.socket.udp()
    stats:setpeername("127.0.0.1", 8125)
    stats:send("a:1|c")
    return one, two
    """
    assert await lua.run(code) == ("hi", "HI")
    assert trio.current_time() == 1
    await trio.testing.wait_all_tasks_blocked()
    assert (peer.received, statsd.received) == ([b"hi"], [b"a:1|c"])
    lua_log.allow("lua_network.udp")
    code = "return ngx.socket.udp():setpeername('127.0.0.1', 9)"
    assert await lua.run(code) == (None, "connection refused")


async def test_the_real_network(lua: Lua, lua_network: LuaNetwork) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    lua_network.pass_through("127.0.0.1", port)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, listeners)
        code = SOCKET.replace('"peer", 7', f'"127.0.0.1", {port}').replace("setkeepalive", "close")
        assert await lua.run(code) == "hello"
        nursery.cancel_scope.cancel()


@pytest.mark.lua(
    """
    local sock = ngx.socket.tcp()
    sock:connect("peer", 7)
    sock:send("hello\\n")
    ngx.print(sock:receive())
    sock:close()
    """
)
async def test_requests(lua_client: Client, lua_network: LuaNetwork) -> None:
    lua_network.tcp("peer", 7, echo)
    assert (await lua_client.get("/")).text == "hello"
