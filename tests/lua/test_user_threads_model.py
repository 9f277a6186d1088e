"""Random programs of user threads against a model of OpenResty's scheduler, over the bare VM.

``tests/api/test_thread_programs.py`` runs larger ones in a whole worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thoroughness import examples
from thread_programs import PRELUDE, Model, Program, Step, exchanged, functions, lua_code

from trio_lua.lua.driver import Outcome

if TYPE_CHECKING:
    from conftest import Lua


async def operation(_owner: object, seconds: float) -> tuple[()]:
    await trio.sleep(seconds)
    return ()


def run(lua: Lua, program: list[Step]) -> tuple[Any, list[str]]:
    """Run a program on virtual time: its outcome and what it prints; nothing of it may be left."""

    async def main() -> tuple[Any, list[str]]:
        result = await lua.run(PRELUDE + lua_code(program))
        out = [text for (text,) in lua.take()]
        driver = lua.rt.driver
        assert lua.rt.vm.export("live")()[1] == 0
        assert not driver._runs
        await trio.sleep(100)
        assert lua.take() == []
        if result is None:
            return "done", out
        return {Outcome.EXIT: result[1], Outcome.FAILED: "failed"}[result[0]], out

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


unhurried = settings(
    max_examples=examples(300), suppress_health_check=list(HealthCheck), derandomize=True
)


@unhurried
@given(program=functions)
def test_programs(lua: Lua, program: list[Step]) -> None:
    model = Model(Program(tuple(program)))
    assert run(lua, program) == (model.outcome, [text for _, text in model.out])


@unhurried
@given(program=functions)
def test_programs_with_operations(lua: Lua, program: list[Step]) -> None:
    """In which turn of the clock an operation ends is open, so that only the end is compared."""
    lua.rt.driver._ops[0] = operation
    program = exchanged(program, {"sleep": "op"})
    outcome, out = run(lua, program)
    assert outcome in ("done", 403, "failed")
    assert run(lua, program) == (outcome, out)


@unhurried
@given(program=functions, seconds=st.integers(0, 6), operations=st.booleans())
def test_cancelled_programs(lua: Lua, program: list[Step], seconds: int, operations: bool) -> None:
    lua.rt.driver._ops[0] = operation
    if operations:
        program = exchanged(program, {"sleep": "op"})

    async def main() -> None:
        with trio.move_on_after(seconds + 0.5):
            await lua.run(PRELUDE + lua_code(program))
        lua.take()
        assert lua.rt.vm.export("live")()[1] == 0
        assert not lua.rt.driver._runs
        await trio.sleep(100)
        assert lua.take() == []

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
