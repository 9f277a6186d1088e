"""``trio-lua`` as a process: signals, addresses, exit statuses, what it prints."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

LIMIT = 15.0

needs_scripts = pytest.mark.skipif(
    find_spec("trio_lua.server.script") is None, reason="scripts are not there yet"
)


class Process:
    """A running command; its error stream is collected from the start."""

    def __init__(self, arguments: list[str], **options: object) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "trio_lua", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload]
        )
        self.err = ""

    def wait_for(self, text: str) -> str:
        """Read the error stream up to a text; returns all of it."""
        assert self.popen.stderr is not None
        deadline = time.monotonic() + LIMIT
        while text not in self.err:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.popen.stderr], [], [], max(left, 0))
            data = os.read(self.popen.stderr.fileno(), 65536).decode() if ready else ""
            assert data, f"no {text!r} in {self.err!r}"
            self.err += data
        return self.err

    def end(self) -> tuple[int, str, str]:
        """Wait for the end: status, output, error stream."""
        out, err = self.popen.communicate(timeout=LIMIT)
        self.err += err
        return self.popen.returncode, out, self.err

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal and wait for the end."""
        self.popen.send_signal(number)
        return self.end()


Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts ``trio-lua``; whatever still runs at the end is killed."""
    running: list[Process] = []

    def start(*arguments: str, **options: object) -> Process:
        process = Process(list(arguments), **options)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


def get(path: str, target: str = "/") -> str:
    """The body of a response over a Unix socket."""
    return finish(ask(path, target))


def ask(path: str, target: str = "/") -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(LIMIT)
    try:
        sock.connect(path)
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    except OSError:
        sock.close()
        raise
    return sock


def finish(sock: socket.socket) -> str:
    data = b""
    with sock:
        while chunk := sock.recv(65536):
            data += chunk
    head, _, body = data.decode().partition("\r\n\r\n")
    if "chunked" in head:
        body = "".join(body.split("\r\n")[1::2])
    return body


def serving(process: Process) -> str:
    return process.wait_for("(Ctrl-C stops it)")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_code_of_the_command_line(start: Start, tmp_path: Path, number: int) -> None:
    path = f"{tmp_path}/s.sock"
    process = start("serve", "-e", 'ngx.say("hello ", ngx.var.uri)', "-b", f"unix:{path}")
    serving(process)
    assert get(path, "/a") == "hello /a\n"
    status, out, err = process.stop(number)
    assert (status, out) == (0, "")
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_application_with_everything(start: Start, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "greet.lua").write_text("return function(n) return 'hi ' .. n end")
    app = tmp_path / "app.lua"
    app.write_text('ngx.log(ngx.WARN, "asked") ngx.say(require("greet")(ngx.var.arg_n))')
    path = f"{tmp_path}/s.sock"
    process = start(
        *("serve", str(app), "-b", f"unix:{path}", "-b", "127.0.0.1:0"),
        *("--access-log", "-", "--error-log", f"{tmp_path}/e.log", "--log-level", "warn"),
    )
    assert "http://127.0.0.1:" in serving(process)
    assert get(path, "/?n=you") == "hi you\n"
    status, out, _ = process.stop()
    assert status == 0
    assert '"GET /?n=you HTTP/1.1" 200' in out
    assert "[warn]" in (tmp_path / "e.log").read_text()
    assert ": asked, client: " in (tmp_path / "e.log").read_text()


def test_running_requests_are_finished(start: Start, tmp_path: Path) -> None:
    path = f"{tmp_path}/s.sock"
    code = 'ngx.print("begun ") ngx.flush(true) ngx.sleep(0.2) ngx.print("done")'
    process = start("serve", "-e", code, "-b", f"unix:{path}")
    serving(process)
    sock = ask(path)
    data = b""
    while b"begun" not in data:
        data += sock.recv(65536)
    process.popen.send_signal(signal.SIGQUIT)
    with sock:
        while chunk := sock.recv(65536):
            data += chunk
    assert b"done" in data
    assert process.end()[0] == 0


def test_reload_by_file_change(start: Start, tmp_path: Path) -> None:
    app = tmp_path / "app.lua"
    app.write_text('ngx.say("one")')
    path = f"{tmp_path}/s.sock"
    process = start("serve", "app.lua", "--reload", "-b", f"unix:{path}", cwd=tmp_path)
    serving(process)
    assert get(path) == "one\n"
    app.write_text('ngx.say("two!")')
    os.utime(app, (1, 1))
    process.wait_for("app.lua changed, starting anew")
    deadline = time.monotonic() + LIMIT
    body = ""
    while body != "two!\n":
        assert time.monotonic() < deadline
        # the old worker may close a connection before its first request has arrived
        with contextlib.suppress(ConnectionResetError):
            body = get(path)
    assert process.stop()[0] == 0


@pytest.mark.parametrize("workers", [(), ("-w", "1")])
def test_runaway_recursion_through_c(
    start: Start, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    """The C stack is large enough for as many levels as Lua's stack has."""
    code = """
        local function f() return (string.gsub("a", "a", f)) end
        ngx.say(select(2, pcall(f)))
        """
    path = f"{tmp_path}/s.sock"
    process = start("serve", "-e", code, "-b", f"unix:{path}", *workers)
    serving(process)
    assert get(path) == "stack overflow\n"
    assert process.stop()[0] == 0


def test_inherited_socket(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd = sock.fileno()
        process = start("serve", "-e", 'ngx.say("x")', "-b", f"fd://{fd}", pass_fds=[fd])
        serving(process)
        with socket.create_connection(sock.getsockname(), LIMIT) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert process.stop()[0] == 0


def test_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        status, out, err = start("serve", "-e", "ngx.say(1)", "-b", f"127.0.0.1:{port}").end()
    assert (status, out) == (1, "")
    assert err.endswith(f"bind() to 127.0.0.1:{port} failed (98: Address already in use)\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("serve", 2, "nothing to serve"),
        ("serve missing.lua", 78, "trio-lua: {}/missing.lua: No such file or directory\n"),
        ("serve missing.conf", 78, "missing.conf"),
        ("check missing.conf", 78, "missing.conf"),
        ("run missing.lua", 1, "trio-lua: missing.lua: No such file or directory\n"),
        ("nope", 2, "No such command"),
    ],
)
def test_mistakes(start: Start, tmp_path: Path, line: str, status: int, message: str) -> None:
    code, out, err = start(*line.split(), cwd=tmp_path).end()
    assert (code, out) == (status, "")
    assert message.format(tmp_path) in err
    assert "Traceback" not in err


def test_check(start: Start, tmp_path: Path) -> None:
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        """events {}
http {
    init_by_lua_block {
        local x = = 1
    }
    server {
        listen 127.0.0.1:1;
        location / { content_by_lua_file app.lua; }
        location /b { content_by_lua 'ngx.say("'; }
    }
}
"""
    )
    (tmp_path / "app.lua").write_text("\n\nreturn (\n")
    status, out, err = start("check", "nginx.conf", cwd=tmp_path).end()
    assert (status, out) == (78, "")
    assert [line.split(": ")[0] for line in err.splitlines()] == [
        "nginx.conf:4",
        "app.lua:4",
        "nginx.conf:9",
        "trio-lua",
    ]
    conf.write_text("events {}\nhttp { server { listen 127.0.0.1:1; } }\n")
    status, out, err = start("check", "nginx.conf", cwd=tmp_path).end()
    assert (status, out, err) == (0, "nginx.conf: no errors\n", "")


def test_configuration_with_a_further_address(start: Start, tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text(
        f"""events {{}}
env KEPT;
http {{
    access_log off;
    server {{
        listen unix:{tmp_path}/one.sock;
        location / {{ content_by_lua_block {{ ngx.say(os.getenv("KEPT"), os.getenv("HOME")) }} }}
    }}
}}
"""
    )
    process = start(
        *("serve", "nginx.conf", "-b", f"unix:{tmp_path}/two.sock"),
        cwd=tmp_path,
        env={**os.environ, "KEPT": "yes", "HOME": "/home"},
    )
    serving(process)
    assert get(f"{tmp_path}/one.sock") == "yesnil\n"
    assert get(f"{tmp_path}/two.sock") == "yesnil\n"
    assert process.stop()[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["nginx.conf"]


@needs_scripts
def test_script(start: Start, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "m.lua").write_text("return { v = 7 }")
    (tmp_path / "s.lua").write_text(
        "#!/usr/bin/env trio-lua\nngx.sleep(0.001)\nngx.say(arg[0], arg[1], require('m').v)\n"
    )
    status, out, err = start("run", "-I", "lib", "s.lua", "a", cwd=tmp_path).end()
    assert (status, out, err) == (0, "s.luaa7\n", "")


@needs_scripts
def test_code_as_script(start: Start) -> None:
    status, out, err = start("run", "-e", "print(ngx.md5('x'))").end()
    assert (status, out, err) == (0, "9dd4e461268c8034f5c8564e155c67a6\n", "")


@needs_scripts
def test_failing_script(start: Start, tmp_path: Path) -> None:
    (tmp_path / "s.lua").write_text("\nerror('oops')\n")
    status, out, err = start("run", "s.lua", cwd=tmp_path).end()
    assert (status, out) == (1, "")
    assert err.startswith("trio-lua: s.lua:2: oops\nstack traceback:\n")
    assert "Traceback (most recent call last)" not in err


@needs_scripts
def test_interrupted_script(start: Start) -> None:
    process = start("run", "-e", "io.stderr:write('ready') io.stderr:flush() ngx.sleep(60)")
    process.wait_for("ready")
    status, _, err = process.stop(signal.SIGINT)
    assert status == 130
    assert "Traceback" not in err


def test_many_clients_while_stopping(start: Start, tmp_path: Path) -> None:
    """Stopping in the middle of traffic neither hangs nor prints anything."""
    path = f"{tmp_path}/s.sock"
    process = start("serve", "-e", 'ngx.sleep(0.001) ngx.say("x")', "-b", f"unix:{path}", "-q")
    deadline = time.monotonic() + LIMIT
    while True:
        # the file is there a moment before the socket listens
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            get(path)
            break
        assert time.monotonic() < deadline
    stopping = threading.Event()

    def client() -> None:
        while not stopping.is_set():
            try:
                get(path)
            except OSError:
                return

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    get(path)
    status, _, err = process.stop()
    stopping.set()
    for thread in threads:
        thread.join(LIMIT)
    assert (status, err) == (0, "")
