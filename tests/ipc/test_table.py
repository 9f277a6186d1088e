"""Who has which slot."""

from __future__ import annotations

import os

import pytest

from trio_lua.errors import TrioLuaError
from trio_lua.ipc.table import MAX_SLOTS, State, Table


def test_slots_are_used_again_for_another_purpose() -> None:
    table = Table()
    assert [table.claim(0), table.claim(1), table.claim(None)] == [0, 1, 2]
    table.set_pid(1, 77)
    entry = table[1]
    assert (entry.pid, entry.id, entry.state, entry.incarnation) == (77, 1, State.WORKER, 1)
    assert table[2].id is None
    table.set_state(1, State.LEAVING)
    assert table.incarnation(1) == 1
    assert [entry.slot for entry in table.used()] == [0, 1, 2]
    table.set_state(1, State.FREE)
    assert table.incarnation(1) == 0
    assert [entry.slot for entry in table.used()] == [0, 2]
    assert table.claim(5) == 1
    entry = table[1]
    assert (entry.pid, entry.id, entry.state, entry.incarnation) == (0, 5, State.WORKER, 2)
    assert len(table) == 3


def test_other_processes_see_it() -> None:
    table = Table()
    child = os.fork()
    if not child:
        os._exit(table.claim(9))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert table[0].id == 9


def test_no_more() -> None:
    table = Table()
    for slot in range(MAX_SLOTS):
        assert table.claim(slot) == slot
    with pytest.raises(TrioLuaError, match="no more than 1024 processes"):
        table.claim(0)
