"""A configuration ready to be forked, short of forking it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from trio_lua.config.nginx import loads
from trio_lua.errors import LuaError
from trio_lua.process import environment
from trio_lua.process.cycle import Cycle
from trio_lua.process.scoreboard import Scoreboard
from trio_lua.process.sockets import Listeners
from trio_lua.process.worker import Share, WorkerApplication


def cycle(log: Any, http: str = "", main: str = "") -> Cycle:
    text = f"{main} events {{}} http {{ access_log off; {http} server {{ listen 127.0.0.1:80; }} }}"
    return Cycle(loads(text), log, Listeners())


@pytest.mark.parametrize(
    ("code", "wanted"), [("()", True), ("(8)", True), ("(0)", False), (" -- not called", False)]
)
def test_a_privileged_agent(log: Any, code: str, wanted: bool) -> None:
    init = (
        f"init_by_lua_block {{\nlocal _ = require('ngx.process').enable_privileged_agent{code}\n}}"
    )
    application = WorkerApplication(cycle(log, init, "worker_processes 2;"))
    application.close()
    assert application.wants_agent == wanted
    complaint = "0 worker_connection is not enough, privileged agent process cannot be spawned"
    assert (f"[alert] {complaint}" in log.lines) == (code == "(0)")


def test_init_by_lua_fails(log: Any) -> None:
    with pytest.raises(LuaError, match="init_by_lua error"):
        WorkerApplication(cycle(log, "init_by_lua_block { error('no') }"))


def test_reopened_logs_are_given_to_the_user_that_writes_them(
    log: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((path, uid, gid)))
    path = str(tmp_path / "access.log")
    text = f"events {{}} http {{ access_log {path}; server {{ listen 127.0.0.1:80; }} }}"
    account: environment.Account = ("www", os.getuid() + 1, 1)
    application = WorkerApplication(Cycle(loads(text), log, Listeners()), account=account)
    os.rename(path, f"{path}.1")
    application.reopen_logs()
    application.close()
    assert os.path.exists(path)
    assert given == [(path, os.getuid() + 1, -1)]


def test_a_fair_share() -> None:
    board = Scoreboard(3, 3)
    for slot, load in enumerate((0, 40, 80)):
        board.set_pid(slot, slot + 1, 1.0)
        board.set_load(slot, load)
    share = Share(board, 1)
    assert not share.leaves(1)
    assert share.leaves(2)
    board.set_load(0, 40)
    assert not share.leaves(46)
    assert share.leaves(47)
    share.publish(50)
    assert board.least_load() == 40
