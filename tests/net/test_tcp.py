"""Stream sockets without Lua: destinations, several addresses, attempts that hang."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
from upstream import echo, upstream

from trio_lua.net.errors import SocketError
from trio_lua.net.network import Network, SystemNetwork
from trio_lua.net.poller import Watcher
from trio_lua.net.tcp import TcpSocket, parse_destination


class Names:
    """A resolver that knows one answer."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = list(addresses)

    async def resolve(self, name: str) -> list[str]:
        if not self._addresses:
            await trio.sleep_forever()
        return self._addresses


class Hanging(SystemNetwork):
    """A network in which connections to 127.0.0.2 are never made."""

    async def connected(self, sock: socket.socket, address: Any) -> None:
        if address[1][0] == "127.0.0.2":
            await trio.sleep_forever()
        await super().connected(sock, address)


@pytest.mark.parametrize(
    ("host", "text", "address"),
    [
        ("127.0.0.1", "127.0.0.1:80", (socket.AF_INET, ("127.0.0.1", 80))),
        ("127.0.0.1:81", "127.0.0.1:81", (socket.AF_INET, ("127.0.0.1", 81))),
        ("[::1]", "[::1]:80", (socket.AF_INET6, ("::1", 80))),
        ("unix:/a", "unix:/a", (socket.AF_UNIX, b"/a")),
        ("UNIX:a", "UNIX:a", (socket.AF_UNIX, b"a")),
        ("example.org", "example.org:80", None),
    ],
)
def test_destinations(host: str, text: str, address: Any) -> None:
    found = parse_destination(host, 80)
    assert (found.text, found.address) == (text, address)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "no host"),
        (":80", "no host"),
        ("a:b", "invalid port"),
        ("a:99999", "invalid port"),
        ("::1", "invalid port"),
        ("[::1", "invalid host"),
        ("[:x]", "invalid IPv6 address"),
        ("unix:", "no path in the unix domain socket"),
        ("unix:" + "x" * 108, "too long path in the unix domain socket"),
    ],
)
def test_malformed_destinations(host: str, reason: str) -> None:
    with pytest.raises(SocketError) as caught:
        parse_destination(host, 80)
    assert caught.value.text == f'failed to parse host name "{host}": {reason}'


def named(port: int, network: Network | None = None) -> TcpSocket:
    link = TcpSocket(network or SystemNetwork(), Watcher(), None)
    link.destination = parse_destination("some.name", port)
    assert not link.connect_nowait()
    return link


async def test_the_next_address_when_one_refuses() -> None:
    async with upstream(echo) as peer:
        link = named(peer.port)
        await link.connect(1, Names("127.0.0.2", "127.0.0.1"), 1)
        assert link.sock is not None
        assert link.sock.getpeername()[0] == "127.0.0.1"
        link.close()


async def test_the_first_error_when_all_refuse() -> None:
    async with upstream(echo) as peer:
        port = peer.port
    with pytest.raises(SocketError, match="connection refused") as caught:
        await named(port).connect(1, Names("127.0.0.1", "127.0.0.2"), 1)
    assert caught.value.log is not None


async def test_the_next_address_when_one_hangs(
    autojump_clock: Any,
) -> None:
    network = Hanging()
    async with upstream(echo) as peer:
        link = named(peer.port, network)
        await link.connect(10, Names("127.0.0.2", "127.0.0.1"), 1)
        assert trio.current_time() < 10
        link.close()
        link = named(peer.port, network)
        with pytest.raises(SocketError, match="timeout") as caught:
            await link.connect(10, Names("127.0.0.2"), 1)
        text = f"lua tcp socket connect timed out, when connecting to 127.0.0.2:{peer.port}"
        assert caught.value.log == text
        link = named(peer.port, network)
        with pytest.raises(SocketError) as caught:
            await link.connect(10, Names(), 1)
        assert caught.value.text == "some.name could not be resolved (110: Operation timed out)"
