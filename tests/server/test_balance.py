"""Workers that accept from the same socket leave connections to those that have fewer."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.lowlevel
from serving import MemoryLog, config, location

from trio_lua.net.poller import supported
from trio_lua.server.worker import Worker

pytestmark = pytest.mark.skipif(not supported(), reason="no parked connections here")


class StubBalance:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: list[int] = []
        self.published: list[int] = []

    def leaves(self, connections: int) -> bool:
        self.asked.append(connections)
        return connections >= self.limit

    def publish(self, connections: int) -> None:
        self.published.append(connections)


async def test_what_nobody_else_takes_is_taken_after_all(autojump_clock: object) -> None:
    balance = StubBalance(limit=2)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with trio.open_nursery() as nursery:
            worker = Worker(config([location("/", "ngx.print(1)")]), error_log=MemoryLog())
            worker.balance = balance
            await nursery.start(worker.run, [(None, sock.dup())])
            clients = [
                await trio.open_tcp_stream("127.0.0.1", sock.getsockname()[1]) for _ in range(20)
            ]
            for client in clients:
                await client.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for client in clients:
                assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
            assert len(worker.connections) == 20
            for client in clients:
                await client.aclose()
            nursery.cancel_scope.cancel()
    assert balance.asked[0] == 0
    assert max(balance.asked) >= 2
    assert balance.published[-1] == 20


async def test_a_worker_that_quits_meanwhile_takes_nothing(autojump_clock: object) -> None:
    balance = StubBalance(limit=0)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with trio.open_nursery() as nursery:
            worker = Worker(config([location("/", "ngx.print(1)")]), error_log=MemoryLog())
            worker.balance = balance
            await nursery.start(worker.run, [(None, sock.dup())])
            client = await trio.open_tcp_stream("127.0.0.1", sock.getsockname()[1])
            with trio.fail_after(5):
                while not balance.asked:
                    await trio.lowlevel.checkpoint()
            worker.quit()
        assert not worker.connections
        await client.aclose()
