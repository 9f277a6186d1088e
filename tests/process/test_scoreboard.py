from __future__ import annotations

import os

from trio_lua.process.scoreboard import Scoreboard


def test_it_is_shared() -> None:
    board = Scoreboard(3, 2)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        board.set_pid(1, 11)
        board.beat(1, 5.0)
        os.write(writing, b".")
        os._exit(0)
    assert os.read(reading, 1) == b"."
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
    assert board.pids() == (11,)
    assert board.last_beat(1) == 5.0


def test_pids_are_those_of_workers_that_run() -> None:
    board = Scoreboard(3, 2)
    for slot in range(3):
        board.set_pid(slot, slot + 10, 1.0)
    assert board.pids() == (10, 11)
    board.set_pid(0, 0)
    assert board.pids() == (11,)


def test_the_least_load_is_that_of_workers_that_accept() -> None:
    board = Scoreboard(3, 2)
    for slot in range(3):
        board.set_pid(slot, slot + 10, 1.0)
    board.set_load(2, 0)
    board.set_load(1, 5)
    assert board.least_load() == 5
    board.set_load(0, 3)
    assert board.least_load() == 3
    board.set_load(0, None)
    assert board.least_load() == 5
    # who takes the place of another does not accept yet
    board.set_pid(1, 20)
    assert board.least_load() > 1 << 60
