"""The examples that use sockets, as a user starts them, but for ports and addresses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doc_pages import ROOT, Session
from real_servers import DATABASE, Service, free_port

Start = Callable[..., Session]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an example by name, with variables of the environment."""
    session = Session(tmp_path)

    def start_it(name: str, **environment: str) -> Session:
        (session.folder / "examples").symlink_to(ROOT / "examples")
        conf = (ROOT / "examples" / name / "nginx.conf").read_text()
        for port in set(re.findall(r"127\.0\.0\.1:(\d+)", conf)):
            free = 0 if port == "8080" else free_port()
            conf = conf.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
        (session.folder / "nginx.conf").write_text(conf)
        session.environment.update(environment)
        session.run_command("trio-lua serve nginx.conf", "trio-lua 0.1.0 serves nginx.conf on ...")
        return session

    yield start_it
    session.close()


def test_redis_counter(start: Start, redis: Service) -> None:
    session = start("redis-counter", REDIS=f"127.0.0.1:{redis.port}")
    session.run_command("curl 127.0.0.1:8080/a", "/a: 1 requests; visitors: 1")
    session.run_command("curl 127.0.0.1:8080/a", "/a: 2 requests; visitors: 1")
    session.run_command("curl 127.0.0.1:8080/b", "/b: 1 requests; visitors: 1")
    session.run_command("curl 127.0.0.1:8080/top", "2 /a\n1 /b")
    with socket.create_connection(("127.0.0.1", session.port), 10) as watcher:
        watcher.sendall(b"GET /watch HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        while b"listening" not in received:
            received += watcher.recv(4096)
        session.run_command("curl 127.0.0.1:8080/say?text=ahoy", "1 listen")
        while b"ahoy" not in received:
            received += watcher.recv(4096)


def test_redis_counter_without_redis(start: Start, tmp_path: Path) -> None:
    session = start("redis-counter", REDIS=f"unix:{tmp_path}/none")
    session.run_command("curl 127.0.0.1:8080/a", "...500 Internal Server Error...")


def test_mysql_api(start: Start, mariadb: Service) -> None:
    libraries = os.environ.get("TRIO_LUA_RESTY_PATH", "")
    if "resty-mysql" not in libraries:
        pytest.skip("lua-resty-mysql is not in TRIO_LUA_RESTY_PATH")
    session = start(
        "mysql-api",
        LUA_PATH=f"{libraries};;",
        MYSQL_PATH=str(mariadb.path),
        MYSQL_USER=DATABASE,
        MYSQL_PASSWORD="secret",
        MYSQL_DATABASE=DATABASE,
    )
    session.run_command("curl 127.0.0.1:8080/notes", "[]")
    session.run_command(
        """curl 127.0.0.1:8080/notes -d '{"text": "it'"'"'s \\"milk\\""}'""", "{..."
    )
    [note] = json.loads(session._curl(["127.0.0.1:8080/notes"]))
    assert (note["id"], note["text"]) == (1, 'it\'s "milk"')
    assert json.loads(session._curl(["127.0.0.1:8080/notes/1"])) == note
    session.run_command("curl -i 127.0.0.1:8080/notes/2", 'HTTP/1.1 404 Not Found...such note"}')
    session.run_command("curl -i 127.0.0.1:8080/notes -d x", "HTTP/1.1 400 Bad Request...")
    session.run_command("curl -i 127.0.0.1:8080/notes/1 -d x", "HTTP/1.1 405 Not Allowed...")


def frame(text: str) -> bytes:
    """A text of a client, masked."""
    data, mask = text.encode(), b"\x01\x02\x03\x04"
    size = (
        struct.pack("!B", 0x80 | len(data))
        if len(data) < 126
        else struct.pack("!BH", 0xFE, len(data))
    )
    return b"\x81" + size + mask + bytes(c ^ mask[i % 4] for i, c in enumerate(data))


class Talker:
    """A client of the chat."""

    def __init__(self, port: int, name: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 10)
        self._file = self._sock.makefile("rb")
        key = base64.b64encode(name.encode().ljust(16)).decode()
        self._sock.sendall(
            f"GET /chat?name={name} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._file.readline()
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: " + base64.b64encode(digest) in head

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def hear(self) -> tuple[int, bytes]:
        """The next frame: its first byte and its data."""
        kind, size = self._file.read(2)
        if size == 126:
            [size] = struct.unpack("!H", self._file.read(2))
        return kind, self._file.read(size)

    def texts(self, count: int) -> list[str]:
        return [self.hear()[1].decode() for _ in range(count)]

    def close(self) -> None:
        self._file.close()
        self._sock.close()


def test_websocket_chat(start: Start) -> None:
    session = start("websocket-chat")
    session.run_command("curl 127.0.0.1:8080/", "...new WebSocket...")
    session.run_command("curl -i 127.0.0.1:8080/chat", "HTTP/1.1 400 Bad Request...")
    ann, bob = Talker(session.port, "Ann"), None
    try:
        assert ann.texts(1) == ["Ann came in"]
        bob = Talker(session.port, "Bob")
        assert bob.texts(1) == ["Bob came in"]
        assert ann.texts(1) == ["Bob came in"]
        ann.send(frame("hello " + "x" * 200))
        assert ann.texts(1) == bob.texts(1) == ["Ann: hello " + "x" * 200]
        # a message in two frames, with a ping between
        bob.send(b"\x01\x82\0\0\0\0he" + b"\x89\x81\0\0\0\0p" + b"\x80\x81\0\0\0\0y")
        assert bob.hear() == (0x8A, b"p")
        assert ann.texts(1) == bob.texts(1) == ["Bob: hey"]
        bob.send(b"\x88\x82\0\0\0\0\x03\xe8")
        assert bob.hear() == (0x88, b"\x03\xe8")
        assert ann.texts(1) == ["Bob left"]
    finally:
        ann.close()
        if bob is not None:
            bob.close()


def test_parallel_fetch(start: Start) -> None:
    session = start("parallel-fetch")
    page = json.loads(session._curl(["127.0.0.1:8080/?city=Rome"]))
    assert re.fullmatch(r"\d+ ms", page.pop("took"))
    assert page == {"weather": {"city": "Rome", "sky": "blue"}, "news": ["nothing new"]}
    session.run_command("curl 127.0.0.1:8080/first", '["nothing new"]')
