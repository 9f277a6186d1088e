"""The examples about thread pools, served as a user does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doc_pages import ROOT, Session


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Session]]:
    """Serves an example by its name."""
    session = Session(tmp_path)

    def start(name: str) -> Session:
        (session.folder / "examples").symlink_to(ROOT / "examples")
        conf = (ROOT / "examples" / name / "nginx.conf").read_text()
        (session.folder / "nginx.conf").write_text(conf.replace("127.0.0.1:8080", "127.0.0.1:0"))
        session.run_command("trio-lua serve nginx.conf", "trio-lua 0.1.0 serves nginx.conf on ...")
        return session

    yield start
    session.close()


def test_cpu_bound(serve: Callable[[str], Session]) -> None:
    session = serve("cpu-bound")
    session.run_command("curl 127.0.0.1:8080/hash -d secret", "pbkdf2-sha1$10000$...")
    # RFC 6070
    stored = "pbkdf2-sha1$4096$salt$4b007901b765489abead49d926f721d065a429c1"
    session.run_command(f"curl 127.0.0.1:8080/check -d '{stored}\npassword'", "right")
    session.run_command(f"curl 127.0.0.1:8080/check -d '{stored}\nPassword'", "wrong")
    session.run_command("curl 127.0.0.1:8080/check -d '\n'", "wrong")
    session.run_command("curl -i 127.0.0.1:8080/check", "HTTP/1.1 400 ...")
    session.run_command("curl 127.0.0.1:8080/", "running: 0, waiting: 0, done: 4")


def test_blocking_io(serve: Callable[[str], Session]) -> None:
    session = serve("blocking-io")
    readme = (ROOT / "examples" / "blocking-io" / "README.md").read_text()
    session.run_command("curl 127.0.0.1:8080/", "hello")
    session.run_command("curl 127.0.0.1:8080/sleep?seconds=0", "exit status 0")
    session.run_command(
        "curl 127.0.0.1:8080/lines",
        f"README.md: {readme.count(chr(10))} lines\nnginx.conf: ... lines\nlua/pieces.lua: ... lines",
    )
    session.run_command("curl 127.0.0.1:8080/pieces", readme)
