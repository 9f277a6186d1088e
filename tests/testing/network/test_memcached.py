"""The small memcached, spoken to by bytes."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from talking import talk_to

from trio_lua.testing import LuaClock, MemcachedPeer

EPOCH = 1_700_000_000


def peer_of(data: dict[str, str] | None = None) -> MemcachedPeer:
    return MemcachedPeer("memcached", data or {}, lambda: trio.current_time() + EPOCH)


@pytest.mark.parametrize(
    ("commands", "answers"),
    [
        ("set a 5 0 2\nxy\nget a b", "STORED|VALUE a 5 2|xy|END"),
        (
            "set a 0 0 1\n1\nset b 0 0 1\n2\nget a b",
            "STORED|STORED|VALUE a 0 1|1|VALUE b 0 1|2|END",
        ),
        ("add a 0 0 1\n1\nadd a 0 0 1\n2\nreplace b 0 0 1\n1", "STORED|NOT_STORED|NOT_STORED"),
        ("append a 0 0 1\n1", "NOT_STORED"),
        (
            "set a 7 0 1\n1\nappend a 0 0 1\n2\nprepend a 0 0 1\n0\nget a",
            "STORED|STORED|STORED|VALUE a 7 3|012|END",
        ),
        ("set a 0 0 1\n1\ngets a", "STORED|VALUE a 0 1 1|1|END"),
        (
            "set a 0 0 1\n1\ncas a 0 0 1 9\n2\ncas a 0 0 1 1\n3\ncas b 0 0 1 1\n2\nget a",
            "STORED|EXISTS|STORED|NOT_FOUND|VALUE a 0 1|3|END",
        ),
        ("set a 0 0 2\n10\nincr a 5\ndecr a 20\nincr b 1", "STORED|15|0|NOT_FOUND"),
        (
            "set a 0 0 1\nx\nincr a 1\nincr a -1",
            "STORED|CLIENT_ERROR cannot increment or decrement non-numeric value"
            "|CLIENT_ERROR invalid numeric delta argument",
        ),
        ("set a 0 0 20\n18446744073709551615\nincr a 2", "STORED|1"),
        ("set a 0 0 1\n1\ndelete a\ndelete a\nget a", "STORED|DELETED|NOT_FOUND|END"),
        ("set a 0 0 1\n1\ntouch a 5\ntouch b 5", "STORED|TOUCHED|NOT_FOUND"),
        ("set a 0 0 1\n1\ngat 5 a\ngats 5 a b", "STORED|VALUE a 0 1|1|END|VALUE a 0 1 1|1|END"),
        ("set a 0 0 1 noreply\n1\nincr a 1 noreply\nget a", "VALUE a 0 1|2|END"),
        ("set a 0 -1 1\n1\nget a", "STORED|END"),
        ("set a 0 0 1\n1\nflush_all\nget a\nverbosity 1", "STORED|OK|END|OK"),
        (
            "get\nnonsense\nset\nset a 0 x 1\n1",
            "ERROR|ERROR|ERROR|CLIENT_ERROR bad command line format",
        ),
        ("set a 0 0 1\nxyz", "CLIENT_ERROR bad data chunk|ERROR"),
        (f"get {'k' * 251}", "CLIENT_ERROR bad command line format"),
        ("version\nquit\nversion", "VERSION 1.6.9"),
        ("stats reset\nstats items", "RESET|END"),
    ],
)
async def test_commands(commands: str, answers: str) -> None:
    assert "|".join(await talk_to(peer_of().serve, commands)) == answers


async def test_keys_expire_on_the_runs_clock(autojump_clock: Any) -> None:
    peer = peer_of()
    moment = EPOCH + 7200
    await talk_to(peer.serve, f"set a 0 60 1\n1\nset b 0 {moment} 1\n2\nset c 0 0 1\n3")
    await trio.sleep(59)
    assert peer.keys() == ["a", "b", "c"]
    await trio.sleep(1)
    assert "a" not in peer
    await trio.sleep(7200)
    assert peer.keys() == ["c"]
    await talk_to(peer.serve, "flush_all 10")
    await trio.sleep(10)
    assert peer.keys() == []


async def test_what_a_test_sees() -> None:
    peer = peer_of({"dog": "an animal"})
    assert peer["dog"] == "an animal"
    peer["cat"] = b"Marry"
    assert "Marry" in await talk_to(peer.serve, "get cat")
    assert peer.commands == ["get cat"]
    with pytest.raises(KeyError):
        peer["mouse"]
    assert "STAT curr_items 2" in await talk_to(peer.serve, "stats")


def test_datagrams() -> None:
    peer = MemcachedPeer("memcached", {"a": "1"}, lambda: 0.0)
    frame = b"\0\x07\0\0\0\1\0\0"
    assert peer.datagram(frame + b"get a\r\n") == frame + b"VALUE a 0 1\r\n1\r\nEND\r\n"


@pytest.mark.lua(
    """
    local sock = ngx.socket.tcp()
    assert(sock:connect("cache", 11211))
    sock:send("incr visits 1\\r\\n")
    ngx.print(sock:receive())
    sock:close()
    """
)
async def test_from_lua(lua_client: Any, lua_network: Any, lua_clock: LuaClock) -> None:
    peer = lua_network.memcached("cache", 11211, {"visits": "41"})
    assert (await lua_client.get("/")).text == "42"
    assert peer["visits"] == "42"
