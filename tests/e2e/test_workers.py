"""A master and its workers as real processes, under load: what a reload, a crash and a stop lose."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

LIMIT = 20.0

CONF = """
daemon on;
master_process on;
worker_processes 2;
worker_shutdown_timeout 10s;
{main}
error_log logs/error.log info;
pid logs/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    lua_worker_stuck_timeout 1s;
    {http}
    server {{
        listen {listen};
        location /pid {{ content_by_lua_block {{ ngx.say(ngx.worker.pid()) }} }}
        location /all {{
            content_by_lua_block {{
                ngx.say(ngx.worker.count(), " ", table.concat(ngx.worker.pids(), " "))
            }}
        }}
        location /slow {{ content_by_lua_block {{ ngx.sleep(0.3) ngx.say(ngx.worker.pid()) }} }}
        location /stuck {{
            content_by_lua_block {{
                local function stand_still()
                    local n = 0
                    while true do n = (n + 1) % 7 end
                end
                stand_still()
            }}
        }}
        {server}
    }}
}}
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other processes do."""
    with trio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.003)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Server:
    """``trio-lua-nginx`` with two workers, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "s.sock")
        self.address: Any = self.path
        self.pid = 0
        self.known: set[int] = set()
        for name in ("conf", "logs"):
            (folder / name).mkdir()

    def configure(
        self, main: str = "", http: str = "", server: str = "", listen: str | None = None
    ) -> None:
        text = CONF.format(
            main=main, http=http, server=server, listen=listen or f"unix:{self.path}"
        )
        (self.folder / "conf" / "nginx.conf").write_text(text)

    def command(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "trio_lua.cli.nginx", "-p", f"{self.folder}/", *arguments],
            check=True,
            timeout=LIMIT,
        )

    def start(self) -> None:
        self.command()
        self.pid = self.read_pid()
        self.known.add(self.pid)

    def read_pid(self) -> int:
        return int((self.folder / "logs" / "nginx.pid").read_text())

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def log(self) -> str:
        return (self.folder / "logs" / "error.log").read_text()

    def started(self) -> list[int]:
        """The pids of all workers that were ever started, in order."""
        return [int(pid) for pid in re.findall(r"start worker process (\d+)", self.log())]

    def connect(self) -> socket.socket:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        sock = socket.socket(family)
        sock.settimeout(LIMIT)
        try:
            sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def get(self, target: str) -> str:
        with self.connect() as sock:
            sock.sendall(f"GET {target} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            data = b""
            while chunk := sock.recv(65536):
                data += chunk
        return data.decode().partition("\r\n\r\n")[2].strip()

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not re.search(pattern, self.log()):
            assert time.monotonic() < deadline, f"no {pattern!r} in\n{self.log()}"
            time.sleep(0.005)

    def wait_for_end(self, pid: int) -> None:
        deadline = time.monotonic() + LIMIT
        while alive(pid):
            assert time.monotonic() < deadline, f"{pid} still runs:\n{self.log()}"
            time.sleep(0.005)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    pids = {server.pid, *server.known}
    if (tmp_path / "logs" / "error.log").exists():
        pids |= set(server.started())
    for pid in pids - {0}:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


@dataclass
class Load:
    """Clients that send one request after the other over kept connections, and what became of the requests."""

    server: Server
    clients: int = 64
    target: str = "/pid"
    answered: int = 0
    #: Requests that were sent and not answered.
    lost: int = 0
    #: Requests on a kept connection that was closed before any of the response had come: clients send these again.
    retried: int = 0
    refused: int = 0
    #: By whom, and when last.
    by: dict[str, int] = field(default_factory=dict)
    stopping: bool = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until :attr:`stopping`; each client then finishes its request."""
        async with trio.open_nursery() as nursery:
            for _ in range(self.clients):
                nursery.start_soon(self._client)
            task_status.started()

    async def until(self, answered: int) -> None:
        """Wait for so many more answers."""
        goal = self.answered + answered
        await until(lambda: self.answered >= goal)

    async def _connect(self) -> trio.SocketStream | None:
        address = self.server.address
        try:
            if isinstance(address, str):
                return await trio.open_unix_socket(address)
            sock = trio.socket.socket()
            await sock.connect(address)
            return trio.SocketStream(sock)
        except OSError:
            self.refused += 1
            await trio.sleep(0.01)
            return None

    async def _client(self) -> None:
        request = f"GET {self.target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        stream = None
        used = False
        while not self.stopping:
            if stream is None:
                stream, used = await self._connect(), False
                if stream is None:
                    continue
            data = b""
            try:
                await stream.send_all(request)
                while b"\n" not in data.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2]:
                    chunk = await stream.receive_some()
                    if not chunk:
                        raise trio.BrokenResourceError
                    data += chunk
            except trio.BrokenResourceError:
                if used and not data:
                    self.retried += 1
                else:
                    self.lost += 1
                await stream.aclose()
                stream = None
                continue
            self.answered += 1
            who = (
                data.split()[-2].decode() if data.split()[-1] == b"0" else data.split()[-1].decode()
            )
            self.by[who] = self.by.get(who, 0) + 1
            used = True
            if b"Connection: close" in data:
                await stream.aclose()
                stream = None
        if stream is not None:
            await stream.aclose()

    def report(self, what: str) -> str:
        return (
            f"{what}: {self.answered} answered, {self.lost} lost, {self.retried} sent again, "
            f"{self.refused} refused, by {len(self.by)} workers"
        )


async def test_reload_under_load_loses_nothing(server: Server) -> None:
    server.configure()
    server.start()
    load = Load(server)
    async with trio.open_nursery() as nursery:
        await nursery.start(load.run)
        await load.until(500)
        for number in range(1, 3):
            os.kill(server.pid, signal.SIGHUP)
            await until(lambda wanted=2 + 2 * number: len(server.started()) == wanted)
            old = server.started()[-4:-2]
            await until(lambda old=old: not any(map(alive, old)))
            await load.until(500)
        load.stopping = True
    print(load.report("two reloads under load"))
    assert (load.lost, load.retried, load.refused) == (0, 0, 0), load.report("reload")
    assert "[alert]" not in server.log()


async def test_a_killed_worker_loses_only_what_it_ran(server: Server) -> None:
    # connections come and go, so that the replacement gets its share
    server.configure(http="keepalive_requests 20;")
    server.start()
    load = Load(server)
    async with trio.open_nursery() as nursery:
        await nursery.start(load.run)
        await load.until(500)
        victim, other = server.started()
        os.kill(victim, signal.SIGKILL)
        begun = time.monotonic()
        await until(lambda: len(server.started()) == 3)
        replacement = str(server.started()[2])
        await until(lambda: replacement in load.by)
        recovered = time.monotonic() - begun
        load.stopping = True
    print(load.report("a worker killed"), f"; its replacement answered after {recovered:.3f} s")
    assert load.refused == 0
    # at most what each connection of that worker was waiting for
    assert load.lost + load.retried <= load.clients
    assert alive(other)
    assert (
        f"[alert] {server.pid}#{server.pid}: worker process {victim} exited on signal 9"
        in server.log()
    )


async def test_quit_finishes_what_runs(server: Server) -> None:
    server.configure()
    server.start()
    load = Load(server, clients=32, target="/slow")
    async with trio.open_nursery() as nursery:
        await nursery.start(load.run)
        await load.until(32)
        await trio.sleep(0.1)
        load.stopping = True
        os.kill(server.pid, signal.SIGQUIT)
    server.wait_for_end(server.pid)
    print(load.report("a graceful stop"))
    assert load.lost == 0
    assert load.answered >= 64
    assert not server.has("s.sock")
    assert not server.has("logs/nginx.pid")


def test_a_stuck_worker_says_where_and_is_replaced(server: Server) -> None:
    server.configure()
    server.start()
    with server.connect() as sock:
        sock.sendall(b"GET /stuck HTTP/1.0\r\nHost: x\r\n\r\n")
        server.wait_for("has not answered for [12] s, killing it")
        server.wait_for("exited on signal 9")
        assert sock.recv(1) == b""
    assert "it runs GET /stuck\nstack traceback:\n\tcontent_by_lua(nginx.conf:" in server.log()
    assert ": in function 'stand_still'\n" in server.log()
    server.wait_for(r"(start worker process (.|\n)*){3}")
    assert len(server.get("/all").split()) == 3


def test_an_orphaned_worker_ends(server: Server) -> None:
    server.configure()
    server.start()
    workers = server.started()
    os.kill(server.pid, signal.SIGKILL)
    for pid in workers:
        server.wait_for_end(pid)
    assert "the master process is gone" in server.log()


async def test_a_new_executable_under_load(server: Server) -> None:
    server.configure()
    server.start()
    load = Load(server, clients=16)
    async with trio.open_nursery() as nursery:
        await nursery.start(load.run)
        await load.until(200)
        os.kill(server.pid, signal.SIGUSR2)
        await until(lambda: len(server.started()) == 4)
        await until(lambda: server.has("logs/nginx.pid"))
        successor = server.read_pid()
        server.known.add(successor)
        assert successor != server.pid
        assert server.has("logs/nginx.pid.oldbin")
        os.kill(server.pid, signal.SIGQUIT)
        await until(lambda: not alive(server.pid))
        await load.until(200)
        load.stopping = True
    print(load.report("a new executable"))
    assert (load.lost, load.refused) == (0, 0)
    os.kill(successor, signal.SIGQUIT)
    server.wait_for_end(successor)
    assert not server.has("s.sock")


async def test_divided_sockets(server: Server) -> None:
    """With ``reuseport`` a reload and a killed worker do not lose what waits in the queues either."""
    server.address = ("127.0.0.1", free_port())
    server.configure(listen=f"127.0.0.1:{server.address[1]} reuseport")
    server.start()
    load = Load(server, clients=16)
    async with trio.open_nursery() as nursery:
        await nursery.start(load.run)
        await load.until(200)
        os.kill(server.pid, signal.SIGHUP)
        await until(lambda: len(server.started()) == 4)
        await until(lambda: not any(map(alive, server.started()[:2])))
        await load.until(200)
        load.stopping = True
    print(load.report("a reload with reuseport"))
    assert (load.lost, load.retried, load.refused) == (0, 0, 0)
    os.kill(server.pid, signal.SIGTERM)
    server.wait_for_end(server.pid)
