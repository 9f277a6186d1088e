"""``trio-lua-nginx`` as a process, driven as init scripts and test harnesses drive nginx."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_lua import __version__

LIMIT = 15.0

STAMP = r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d "


def until(condition: object, what: str) -> None:
    """Wait until a function gives something true."""
    assert callable(condition)
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not reaped yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Root:
    """A prefix directory, as Test::Nginx lays it out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sock = f"{folder}/s.sock"
        self.pids: list[int] = []
        for name in ("conf", "logs", "html"):
            (folder / name).mkdir()

    def conf(self, content: str, main: str = "", http: str = "", listen: str = "") -> None:
        (self.folder / "conf" / "nginx.conf").write_text(
            f"""worker_processes 1;
daemon on;
master_process off;
error_log {self.folder}/logs/error.log debug;
pid {self.folder}/logs/nginx.pid;
{main}
http {{
    access_log off;
    default_type text/plain;
    {http}
    server {{
        listen {listen or "unix:" + self.sock};
        location /t {{ {content} }}
    }}
}}
events {{ worker_connections 64; }}
"""
        )

    def say(self, text: str, **parts: str) -> None:
        self.conf(f"content_by_lua_block {{ ngx.say('{text}') }}", **parts)

    def run(
        self, *arguments: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command as the harness does, up to its end."""
        return subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "trio_lua.cli.nginx",
                    "-e",
                    f"{self.folder}/logs/error.log",
                ),
                *("-p", f"{self.folder}/", "-c", f"{self.folder}/conf/nginx.conf", *arguments),
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            env=env,
        )

    def start(self, **options: dict[str, str]) -> int:
        """Start in the background; returns the process id."""
        done = self.run(**options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        pid = int((self.folder / "logs" / "nginx.pid").read_text())
        self.pids.append(pid)
        assert alive(pid)
        return pid

    def log(self) -> str:
        return (self.folder / "logs" / "error.log").read_text()

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(LIMIT)
        try:
            sock.connect(self.sock)
        except OSError:
            sock.close()
            raise
        return sock

    def get(self, target: str = "/t") -> str:
        with self.connect() as sock:
            sock.sendall(f"GET {target} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            data = b""
            while chunk := sock.recv(65536):
                data += chunk
        return data.decode().partition("\r\n\r\n")[2]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    root = Root(tmp_path)
    yield root
    for pid in root.pids:
        if alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_background(root: Root) -> None:
    """It answers as soon as the command has returned, and stops at once."""
    root.say("hi")
    pid = root.start()
    assert root.get() == "hi\n"
    assert os.getsid(pid) == pid
    done = root.run("-s", "stop")
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: not alive(pid), "it still runs")
    assert sorted(os.listdir(root.folder / "logs")) == ["error.log"]
    assert not os.path.exists(root.sock)
    lines = root.log().splitlines()
    patterns = [
        rf"\[notice\] {pid}#{pid}: nginx/1\.22\.1 \(trio_lua {re.escape(__version__)}\)",
        r"\[notice\] \d+#\d+: signal process started",
        rf"\[notice\] {pid}#{pid}: signal 15 \(SIGTERM\) received, exiting",
        rf"\[notice\] {pid}#{pid}: exit",
    ]
    for pattern in patterns:
        assert any(re.match(STAMP + pattern + "$", line) for line in lines), (pattern, lines)


def test_error_log_lines(root: Root) -> None:
    root.conf('content_by_lua_block {\n ngx.log(ngx.ERR, "oops") ngx.say(ngx.var.pid) }')
    pid = root.start()
    assert root.get("/t?a") == f"{pid}\n"
    pattern = (
        rf"{STAMP}\[error\] {pid}#{pid}: \*1 \[lua\] content_by_lua\(nginx\.conf:\d+\):2: oops, "
        r'client: unix:, server: , request: "GET /t\?a HTTP/1\.0", host: "x"$'
    )
    assert re.search(pattern, root.log(), re.MULTILINE)


def test_quit_with_idle_connections(root: Root) -> None:
    root.say("hi")
    pid = root.start()
    with root.connect() as idle:
        idle.sendall(b"GET /t HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"hi" in idle.recv(65536)
        os.kill(pid, signal.SIGQUIT)
        until(lambda: not alive(pid), "it still runs")
    assert "gracefully shutting down" in root.log()


def test_reload(root: Root) -> None:
    """The harness's way: USR1, then HUP, until the new configuration answers."""
    root.say("one")
    pid = root.start()
    assert root.get() == "one\n"
    (root.folder / "logs" / "error.log").rename(root.folder / "logs" / "old.log")
    root.say("two")
    os.kill(pid, signal.SIGUSR1)
    until((root.folder / "logs" / "error.log").exists, "no new log")
    os.kill(pid, signal.SIGHUP)
    body = ""

    def answered() -> bool:
        nonlocal body
        with contextlib.suppress(ConnectionResetError):
            body = root.get()
        return body == "two\n"

    until(answered, "the old configuration still answers")
    assert alive(pid)
    assert "reconfiguring" in root.log()
    root.conf("nonsense on;")
    assert root.run("-s", "reload").returncode == 1
    os.kill(pid, signal.SIGHUP)
    until(lambda: 'unknown directive "nonsense" in ' in root.log(), "no message")
    assert root.get() == "two\n"


def test_unknown_directive(root: Root) -> None:
    root.conf("nonsense on;")
    done = root.run()
    message = f'unknown directive "nonsense" in {root.folder}/conf/nginx.conf:13'
    assert done.returncode == 1
    assert done.stderr == f"nginx: [emerg] {message}\n"
    assert re.search(rf"{STAMP}\[emerg\] (\d+)#\1: {re.escape(message)}$", root.log(), re.MULTILINE)
    assert not (root.folder / "logs" / "nginx.pid").exists()


def test_failed_init(root: Root) -> None:
    root.say("hi", http="init_by_lua_block { error('no way') }")
    done = root.run()
    assert done.returncode == 1
    assert "init_by_lua error: init_by_lua" in done.stderr
    assert "no way" in root.log()
    assert os.listdir(root.folder / "logs") == ["error.log"]
    assert not os.path.exists(root.sock)


def test_address_in_use_is_fine_for_a_test(root: Root) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        root.say("hi", listen=f"127.0.0.1:{sock.getsockname()[1]}")
        assert root.run("-t").returncode == 0


def test_address_that_cannot_be_bound(root: Root) -> None:
    root.say("hi", listen="192.0.2.1:8000")
    done = root.run()
    failure = "bind() to 192.0.2.1:8000 failed (99: Cannot assign requested address)"
    assert done.returncode == 1
    assert done.stderr == f"nginx: [emerg] {failure}\n"
    assert root.log().endswith(f"{failure}\n")


def test_configuration_test(root: Root) -> None:
    root.say("hi", http="init_by_lua_block { error('not run') }")
    file = f"{root.folder}/conf/nginx.conf"
    done = root.run("-t")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        f"nginx: the configuration file {file} syntax is ok\n"
        f"nginx: configuration file {file} test is successful\n"
    )
    done = root.run("-tq")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = root.run("-T", "-q")
    assert done.stdout.startswith(f"# configuration file {file}:\nworker_processes 1;\n")
    assert done.stderr == ""
    done = root.run("-t", "-g", "nonsense;")
    assert done.returncode == 1
    assert done.stderr == (
        'nginx: [emerg] unknown directive "nonsense" in command line\n'
        f"nginx: configuration file {file} test failed\n"
    )


def test_missing_configuration(root: Root) -> None:
    done = root.run("-t")
    file = f"{root.folder}/conf/nginx.conf"
    assert done.returncode == 1
    assert done.stderr == (
        f'nginx: [emerg] open() "{file}" failed (2: No such file or directory)\n'
        f"nginx: configuration file {file} test failed\n"
    )


def test_signal_without_a_server(root: Root) -> None:
    root.say("hi")
    pidfile = f"{root.folder}/logs/nginx.pid"
    done = root.run("-s", "stop")
    assert done.returncode == 1
    message = f'open() "{pidfile}" failed (2: No such file or directory)'
    assert done.stderr == f"nginx: [error] {message}\n"
    Path(pidfile).write_text("")
    done = root.run("-s", "quit")
    assert done.stderr == f'nginx: [error] invalid PID number "" in "{pidfile}"\n'


def test_unwritable_error_log(root: Root) -> None:
    root.say("hi")
    done = root.run("-t", "-e", f"{root.folder}/no/error.log")
    assert done.returncode == 0
    assert done.stderr.startswith(
        "nginx: [alert] could not open error log file: "
        f'open() "{root.folder}/no/error.log" failed (2: No such file or directory)\n'
    )


def test_environment(root: Root) -> None:
    variables = "os.getenv('HOME'), os.getenv('KEPT'), os.getenv('SET'), os.getenv('TZ')"
    root.conf(f"content_by_lua_block {{ ngx.say({variables}) }}", main="env KEPT; env SET=value;")
    root.start(env={**os.environ, "HOME": "/home", "KEPT": "kept", "TZ": "UTC"})
    assert root.get() == "nilkeptvalueUTC\n"


def test_foreground(root: Root) -> None:
    root.say("hi")
    text = (root.folder / "conf" / "nginx.conf").read_text()
    (root.folder / "conf" / "nginx.conf").write_text(text.replace("daemon on;\n", ""))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "trio_lua.cli.nginx", "-p", f"{root.folder}"),
            *("-c", "conf/nginx.conf", "-g", "daemon off;"),
        ]
    )
    try:
        pid_file = root.folder / "logs" / "nginx.pid"
        until(lambda: pid_file.exists() and pid_file.read_text() == f"{process.pid}\n", "no pid")
        assert root.get() == "hi\n"
        process.send_signal(signal.SIGQUIT)
        assert process.wait(LIMIT) == 0
    finally:
        process.kill()
        process.wait()


def test_error_stream_goes_to_the_log(root: Root) -> None:
    root.conf("content_by_lua_block { io.stderr:write('to stderr\\n') ngx.say('ok') }")
    root.start()
    assert root.get() == "ok\n"
    assert "\nto stderr\n" in root.log()
