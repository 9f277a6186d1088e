from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
from trio_lua.process.daemon import daemonize
ready = daemonize()
what, path = sys.argv[1:]
if what == "fail":
    sys.exit(3)
if what == "fail quietly":
    os._exit(0)
if what == "die":
    os.kill(os.getpid(), 9)
with open(path + ".new", "w") as file:
    file.write(f"{os.getpid()} {os.getsid(0)} {os.getpgrp()} {os.readlink('/proc/self/fd/0')}"
               f" {os.readlink('/proc/self/fd/1')}")
os.rename(path + ".new", path)
ready.notify()
ready.notify()
"""


def run(what: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, what, str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_parent_leaves_when_the_child_is_ready(tmp_path: Path) -> None:
    done = run("serve", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid, sid, group, stdin, stdout = (tmp_path / "out").read_text().split()
    assert pid == sid == group
    assert stdin == stdout == "/dev/null"


@pytest.mark.parametrize(("what", "code"), [("fail", 3), ("fail quietly", 1), ("die", 1)])
def test_failed_start_is_the_status(tmp_path: Path, what: str, code: int) -> None:
    assert run(what, tmp_path / "out").returncode == code
