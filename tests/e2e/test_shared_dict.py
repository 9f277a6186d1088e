"""A dictionary used by several processes at once, some of which are killed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("dictionary_processes.py")


def run(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_four_processes_at_once() -> None:
    assert run("share", "1", "3000") == "12000 steps\n"


def test_killed_in_the_middle() -> None:
    """Nobody waits for the dead, and what they left is in order or empty."""
    output = run("kill", "1", "40")
    assert re.fullmatch(r"40 kills, \d+ in an operation, \d+ with damage\n", output)
