"""What signals do to the process and to system calls."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from trio_lua.process.signals import ACTIONS, action_of, receive, restart_calls


@pytest.mark.parametrize("restart", [True, False])
def test_lua_sa_restart(monkeypatch: pytest.MonkeyPatch, restart: bool) -> None:
    calls: list[tuple[int, bool]] = []
    monkeypatch.setattr(signal, "siginterrupt", lambda number, flag: calls.append((number, flag)))
    restart_calls(restart)
    assert calls == [(number, not restart) for number in ACTIONS]


@pytest.mark.parametrize("name", ["SIGALRM", "SIGIO", "SIGWINCH", "SIGUSR2"])
async def test_signals_that_are_only_logged(name: str, log: Any) -> None:
    number = signal.Signals[name]
    with receive() as signals:
        restart_calls(True)
        signal.raise_signal(number)
        async for received in signals:
            action_of(received, log)
            break
    assert log.lines == [f"[notice] signal {int(number)} ({number.name}) received, ignoring"]
