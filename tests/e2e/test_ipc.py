"""Workers as processes that send each other alerts: the example, with one of its workers killed."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_pages import ROOT

LIMIT = 30.0


class Server:
    """``trio-lua serve`` with the example's configuration on a free port."""

    def __init__(self, folder: Path) -> None:
        conf = (ROOT / "examples" / "ipc" / "nginx.conf").read_text()
        (folder / "nginx.conf").write_text(conf.replace("127.0.0.1:8080", "127.0.0.1:0"))
        self._log = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trio_lua", "serve", "nginx.conf"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
        )
        self.url = ""

    def wait(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until a pattern is in the log so many times; what it is then, and the log is begun anew."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + LIMIT
        while len(found := re.findall(pattern, self._log)) < count:
            ready, _, _ = select.select(
                [self.process.stderr], [], [], max(deadline - time.monotonic(), 0)
            )
            data = os.read(self.process.stderr.fileno(), 65536).decode() if ready else ""
            assert data, f"no {count} x {pattern!r} in {self._log!r}"
            self._log += data
        self._log = ""
        assert len(found) == count
        return found

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=LIMIT) as answer:
            text: str = answer.read().decode()
        return text

    def workers(self) -> dict[int, int]:
        """Their pids by number."""
        found = re.findall(r"^(\d) (\d+)", self.get("/workers"), re.MULTILINE)
        return {int(number): int(pid) for number, pid in found}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    with server.process:
        try:
            server.url = server.wait(r"http://127\.0\.0\.1:\d+")[0]
            yield server
        finally:
            server.process.terminate()
            assert server.process.wait(LIMIT) == 0


def test_the_example(server: Server) -> None:
    workers = server.workers()
    assert sorted(workers) == [0, 1, 2, 3]
    pid = workers[2]
    assert server.get(f"/send/{pid}/moin") == f"sent to {pid}\n"
    (line,) = server.wait(rf"\n.* {pid} replies: .*")
    sender = re.search(r"(\d+)#", line)
    assert sender is not None
    assert int(sender[1]) in workers.values()
    assert "hello to you, too; you said moin" in line

    assert server.get("/broadcast/moin") == "sent to all\n"
    replies = server.wait(r"(\d+) replies: hello to you, too; you said moin", 4)
    assert sorted(map(int, replies)) == sorted(workers.values())
    assert re.fullmatch(r"(\d: \d timers, .* KB\n){4}", server.get("/load"))

    # its replacement has its place, and everybody knows
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + LIMIT
    while (after := server.workers()).get(2) in (pid, None):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert {**after, 2: 0} == {**workers, 2: 0}
    assert server.get(f"/send/{after[2]}/moin") == f"sent to {after[2]}\n"
    server.wait(rf"{after[2]} replies: ")
    with pytest.raises(urllib.error.HTTPError):
        server.get(f"/send/{pid}/moin")
