"""The resolver of the ``resolver`` directive, against a name server of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from trio_lua.net.dns import DnsResolver, parse_server, system_servers
from trio_lua.net.errors import SocketError
from trio_lua.net.resolver import SystemResolver, resolve


class NameServer:
    """Answers from a table: name and type to records; a number is a response code, None is silence."""

    def __init__(self, records: dict[tuple[str, str], Any]) -> None:
        self.records = records
        self.asked: list[tuple[str, str]] = []
        self.port = 0

    async def serve(self, sock: Any) -> None:
        while True:
            data, peer = await sock.recvfrom(4096)
            query = dns.message.from_wire(data)
            [question] = query.question
            key = (question.name.to_text().rstrip("."), dns.rdatatype.to_text(question.rdtype))
            self.asked.append(key)
            answer = dns.message.make_response(query)
            records = self.records.get(key, [])
            if records is None:
                continue
            if isinstance(records, int):
                answer.set_rcode(records)
            else:
                for record in records:
                    part = answer.authority if record[3] == "SOA" else answer.answer
                    part.append(dns.rrset.from_text(*record))
            await sock.sendto(answer.to_wire(), peer)


@contextlib.asynccontextmanager
async def name_server(records: dict[tuple[str, str], Any]) -> AsyncIterator[NameServer]:
    server = NameServer(records)
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        server.port = sock.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, sock)
            yield server
            nursery.cancel_scope.cancel()


RECORDS: dict[tuple[str, str], Any] = {
    ("a.test", "A"): [
        ("a.test.", 60, "IN", "A", "127.0.0.1", "127.0.0.2"),
    ],
    ("a.test", "AAAA"): [("a.test.", 30, "IN", "AAAA", "::1")],
    ("alias.test", "A"): [
        ("alias.test.", 60, "IN", "CNAME", "a.test."),
        ("a.test.", 60, "IN", "A", "127.0.0.3"),
    ],
    ("far.test", "A"): [("far.test.", 20, "IN", "CNAME", "further.test.")],
    ("further.test", "A"): [("further.test.", 60, "IN", "CNAME", "a.test.")],
    ("far.test", "AAAA"): [("far.test.", 20, "IN", "CNAME", "nobody.test.")],
    ("round.test", "A"): [("round.test.", 60, "IN", "CNAME", "about.test.")],
    ("about.test", "A"): [("about.test.", 60, "IN", "CNAME", "round.test.")],
    ("self.test", "A"): [("self.test.", 60, "IN", "CNAME", "self.test.")],
    ("lost.test", "A"): [("lost.test.", 60, "IN", "CNAME", "none.test.")],
    ("ended.test", "A"): [
        ("ended.test.", 60, "IN", "CNAME", "a.test."),
        ("test.", 60, "IN", "SOA", "ns.test. me.test. 1 2 3 4 5"),
    ],
    ("none.test", "A"): 3,
    ("none.test", "AAAA"): 3,
    ("broken.test", "A"): 2,
    ("refused.test", "A"): 5,
    ("silent.test", "A"): None,
}


async def test_addresses_and_how_long_they_are_kept(autojump_clock: Any) -> None:
    async with name_server(RECORDS) as server:
        resolver = DnsResolver([("127.0.0.1", server.port)])
        first = await resolver.resolve("a.test")
        assert sorted(first) == ["127.0.0.1", "127.0.0.2", "::1"]
        assert len(server.asked) == 2
        again = await resolver.resolve("A.test")
        assert sorted(again) == sorted(first)
        assert again[0] != first[0]
        assert len(server.asked) == 2
        await trio.sleep(31)
        await resolver.resolve("a.test")
        assert len(server.asked) == 4


async def test_aliases_in_several_answers(autojump_clock: Any) -> None:
    async with name_server(RECORDS) as server:
        resolver = DnsResolver([("127.0.0.1", server.port)])
        for _ in range(2):
            assert sorted(await resolver.resolve("far.test")) == ["127.0.0.1", "127.0.0.2"]
        names = [name for name, kind in server.asked if kind == "A"]
        assert names == ["far.test", "further.test", "a.test"]
        # what is kept the shortest time decides
        await trio.sleep(21)
        server.asked.clear()
        await resolver.resolve("far.test")
        assert server.asked


async def test_an_alias_of_no_address_is_asked_for_once() -> None:
    async with name_server(RECORDS) as server:
        with pytest.raises(SocketError):
            await DnsResolver([("127.0.0.1", server.port)], ipv6=False).resolve("ended.test")
        assert server.asked == [("ended.test", "A")]


async def test_options(autojump_clock: Any) -> None:
    async with name_server(RECORDS) as server:
        resolver = DnsResolver([("127.0.0.1", server.port)], valid=5, ipv6=False)
        assert await resolver.resolve("alias.test") == ["127.0.0.3"]
        await trio.sleep(6)
        await resolver.resolve("alias.test")
        assert server.asked == [("alias.test", "A")] * 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.test", "3: Host not found"),
        ("empty.test", "3: Host not found"),
        ("broken.test", "2: Server failure"),
        ("refused.test", "5: Operation refused"),
        ("a..b", "3: Host not found"),
        ("round.test", "3: Host not found"),
        ("self.test", "3: Host not found"),
        ("lost.test", "3: Host not found"),
        ("ended.test", "3: Host not found"),
    ],
)
async def test_failures(name: str, reason: str) -> None:
    async with name_server(RECORDS) as server:
        resolver = DnsResolver([("127.0.0.1", server.port)], ipv6=False)
        with pytest.raises(SocketError) as caught:
            await resolver.resolve(name)
        assert caught.value.text == f"{name} could not be resolved ({reason})"


async def test_a_silent_server(autojump_clock: Any) -> None:
    async with name_server(RECORDS) as server, name_server({("silent.test", "A"): 3}) as other:
        resolver = DnsResolver([("127.0.0.1", server.port)], ipv6=False)
        with pytest.raises(SocketError) as caught:
            await resolve(resolver, "silent.test", 12)
        text = "silent.test could not be resolved (110: Operation timed out)"
        assert caught.value.text == text
        assert len(server.asked) == 3
        resolver = DnsResolver([("127.0.0.1", server.port), ("127.0.0.1", other.port)], ipv6=False)
        with pytest.raises(SocketError, match="3: Host not found"):
            await resolve(resolver, "silent.test", 12)


async def test_one_question_for_many(autojump_clock: Any) -> None:
    async with name_server(RECORDS) as server:
        resolver = DnsResolver([("127.0.0.1", server.port)])
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(resolver.resolve, "a.test")
        assert len(server.asked) == 2


async def test_who_asks_may_leave(autojump_clock: Any) -> None:
    async with name_server({("late.test", "A"): None}) as server:
        resolver = DnsResolver([("127.0.0.1", server.port)], ipv6=False)
        with trio.move_on_after(1):
            await resolver.resolve("late.test")
        server.records[("late.test", "A")] = [("late.test.", 1, "IN", "A", "127.0.0.4")]
        assert await resolver.resolve("late.test") == ["127.0.0.4"]


@pytest.mark.parametrize(
    ("word", "server"),
    [
        ("127.0.0.1", ("127.0.0.1", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("[::1]", ("::1", 53)),
        ("[::1]:5353", ("::1", 5353)),
    ],
)
def test_server_addresses(word: str, server: tuple[str, int]) -> None:
    assert parse_server(word) == server


def test_servers_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("search a b\nnameserver 10.0.0.1\n# nameserver 10.0.0.2\nnameserver ::1\n")
    assert system_servers(str(path)) == ["10.0.0.1", "::1"]
    assert system_servers(str(tmp_path / "none")) == []


async def test_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(name: str, *_args: Any, **_options: Any) -> list[Any]:
        if name == "no.test":
            raise OSError("unknown")
        return [(0, 0, 0, "", ("127.0.0.1", 0)), (0, 0, 0, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    assert await SystemResolver().resolve("a.test") == ["127.0.0.1"]
    with pytest.raises(SocketError, match=r'no resolver defined to resolve "no\.test"'):
        await SystemResolver().resolve("no.test")
