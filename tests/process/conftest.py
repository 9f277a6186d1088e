from __future__ import annotations

import pytest

from trio_lua.log.error_log import NAMES


class Recorder:
    """An error log that keeps what it gets."""

    def __init__(self) -> None:
        self.level = 8
        self.lines: list[str] = []
        self.reopened = 0
        self.closed = False

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        self.lines.append(f"[{NAMES[level]}] {message.decode()}")

    def reopen(self) -> None:
        self.reopened += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def log() -> Recorder:
    return Recorder()
