from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

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
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run threads' work in place: else "all tasks are blocked" would be a matter of timing."""

    async def inline(function: Callable[..., Any], *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


@pytest.fixture
def log() -> Recorder:
    return Recorder()
