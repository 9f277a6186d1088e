"""The driver of plain sockets: what becomes a task, and what need not."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.abc
import trio.testing
from serving import Client, nginx, opener

from trio_lua.net.network import Address, SystemNetwork

serve = opener(parked=True)


class Peers(SystemNetwork):
    """Every connection leads to one of :attr:`peers`."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[socket.socket] = []

    def connect(
        self, address: Address, local: tuple[str, int] | None
    ) -> tuple[socket.socket, bool]:
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        self.peers.append(peer)
        return ours, True

    def answer(self, data: bytes) -> None:
        for peer in self.peers:
            peer.send(data)

    def close(self) -> None:
        for peer in self.peers:
            peer.close()


class Tasks(trio.abc.Instrument):
    """Counts the requests that have become tasks."""

    def __init__(self) -> None:
        self.count = 0
        self.then: Callable[[], None] = lambda: None

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if "ParkedDriver._task" in task.name:
            self.count += 1
            self.then()


CONF = """
    location /ask {
        content_by_lua_block {
            local sock = ngx.socket.tcp()
            assert(sock:connect("127.0.0.1", 1))
            for i = 1, tonumber(ngx.var.arg_lines or 1) do
                local line, err = sock:receive()
                if not line then
                    ngx.say(err)
                    return
                end
                ngx.print(line, ";")
            end
        }
    }
    location /answer {
        content_by_lua_block { require("python.peers").answer() }
    }
"""


def send(client: Client, *targets: str) -> None:
    """Send requests without giving the server a turn."""
    for target in targets:
        data = f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        os.write(client.stream.socket.fileno(), data)  # type: ignore[attr-defined]


@pytest.fixture
def peers() -> Iterator[Peers]:
    made = Peers()
    yield made
    made.close()


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


async def test_an_answer_that_comes_while_others_are_served(peers: Peers, tasks: Tasks) -> None:
    conf = nginx(CONF).expose("peers.answer", lambda: peers.answer(b"x\n"))
    async with serve(conf, network=peers) as running:
        asking, answering = [await running.connect() for _ in range(2)]
        trio.lowlevel.add_instrument(tasks)
        for _ in range(3):
            send(asking, "/ask")
            send(answering, "/answer")
            assert (await asking.response())[2] == b"x;"
            assert (await answering.response())[0] == 200
            peers.close()
            peers.peers.clear()
        trio.lowlevel.remove_instrument(tasks)
    assert tasks.count == 0


async def test_an_answer_that_comes_later(peers: Peers, tasks: Tasks) -> None:
    conf = nginx(CONF).expose("peers.answer", lambda: peers.answer(b"x\n"))
    async with serve(conf, network=peers) as running:
        client, other = [await running.connect() for _ in range(2)]
        trio.lowlevel.add_instrument(tasks)
        send(client, "/ask?lines=3")
        send(other, "/answer")  # the first line, and nothing for the second
        await trio.testing.wait_all_tasks_blocked()
        assert (await other.response())[0] == 200
        assert tasks.count == 1
        peers.answer(b"y\nz\n")
        assert (await client.response())[2] == b"x;y;z;"
        trio.lowlevel.remove_instrument(tasks)


async def test_the_other_end_is_closed_meanwhile(peers: Peers, tasks: Tasks) -> None:
    conf = nginx(CONF).expose("peers.answer", peers.close)
    async with serve(conf, network=peers) as running:
        asking, answering = [await running.connect() for _ in range(2)]
        trio.lowlevel.add_instrument(tasks)
        send(asking, "/ask", "/ask")
        send(answering, "/answer")
        assert (await asking.response())[2] == b"closed\n"
        await trio.testing.wait_all_tasks_blocked()
        peers.peers[-1].close()
        assert (await asking.response())[2] == b"closed\n"
        trio.lowlevel.remove_instrument(tasks)
    assert tasks.count == 1


async def test_many_waits_of_one_request_in_a_turn(peers: Peers, tasks: Tasks) -> None:
    """A peer that always answers in time must not keep the turn."""
    conf = nginx(
        """
        location / {
            content_by_lua_block {
                local socks = {}
                local sock = ngx.socket.tcp()
                assert(sock:connect("127.0.0.1", 1))
                for i = 1, 20 do
                    require("python.peers").later()
                    assert(sock:receive(1))
                end
                ngx.print("done")
            }
        }
        """
    )
    due: list[int] = []

    def later() -> None:
        due.append(1) if not tasks.count else peers.answer(b"x")

    tasks.then = lambda: peers.answer(b"x")
    async with serve(conf.expose("peers.later", later), network=peers) as running:
        client = await running.connect()

        # stands for a server that answers between the first look and the second
        sockets = running.worker.runtime.sockets
        receive = sockets._receive

        def look(number: int, size: int) -> object:
            if due:
                due.clear()
                peers.answer(b"x")
            return receive(number, size)

        sockets._receive = look
        trio.lowlevel.add_instrument(tasks)
        send(client, "/")
        assert (await client.response())[2] == b"done"
        trio.lowlevel.remove_instrument(tasks)
    assert tasks.count == 1


async def test_a_request_behind_one_that_was_a_task(peers: Peers, tasks: Tasks) -> None:
    async with serve(nginx(CONF), network=peers) as running:
        client = await running.connect()
        trio.lowlevel.add_instrument(tasks)
        send(client, "/ask", "/ask")
        for count in (1, 2):
            await trio.testing.wait_all_tasks_blocked()
            assert tasks.count == count
            peers.peers[-1].send(b"x\n")
            assert (await client.response())[2] == b"x;"
        trio.lowlevel.remove_instrument(tasks)
