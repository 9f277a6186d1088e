"""Random programs of the module trio in Lua against the same programs on Trio itself.

All durations of a program are different, so that nothing happens at the same time and both have one order.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thoroughness import examples

if TYPE_CHECKING:
    from conftest import Lua

#: A step: a name and, for those that have one, a body or bodies.
Step = tuple[Any, ...]

leaf = st.sampled_from([("sleep",), ("sleep",), ("defer",), ("checkpoint",), ("error",), ("op",)])


def inner(bodies: st.SearchStrategy[list[Step]]) -> st.SearchStrategy[list[Step]]:
    step = st.one_of(
        leaf,
        st.tuples(st.sampled_from(["move_on", "shield", "try", "cancel", "fail"]), bodies),
        st.tuples(st.just("nursery"), bodies, st.lists(bodies, max_size=3)),
    )
    return st.lists(step, max_size=4)


programs = st.recursive(st.lists(leaf, max_size=3), inner, max_leaves=14)

Log = list[tuple[float, str]]


class Durations:
    """The same numbers for both programs."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def next(self, most: float = 5) -> float:
        return round(self._random.uniform(0.01, most), 6)


# ----------------------------------------------------------------------------------------- on Trio


class Number:
    """Numbers the steps in the order of the text."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


def annotate(steps: list[Step], durations: Durations, number: Number) -> list[Any]:
    """Give each step its number and its duration."""
    out = []
    for name, *bodies in steps:
        mark, seconds = number.next(), durations.next(8 if name == "move_on" else 5)
        inside = [annotate(bodies[0], durations, number)] if bodies else []
        if name == "nursery":
            # children begin at times of their own
            inside.append([annotate([("sleep",), *body], durations, number) for body in bodies[1]])
        out.append((name, mark, seconds, inside))
    return out


class OnTrio:
    def __init__(self, steps: list[Any]) -> None:
        self.log: Log = []
        self.steps = steps

    def note(self, text: str) -> None:
        self.log.append((round(trio.current_time(), 4), text))

    async def main(self) -> None:
        with trio.CancelScope() as scope:
            try:
                await self.body(self.steps)
            except Exception:
                self.note("failed")
        assert not scope.cancelled_caught
        self.note("end")

    async def body(self, steps: list[Any]) -> None:
        defers: list[int] = []
        try:
            for step in steps:
                await self.step(step, defers)
        finally:
            for mark in reversed(defers):
                self.note(f"{mark} deferred")

    async def step(self, step: Any, defers: list[int]) -> None:
        name, mark, seconds, inside = step
        if name in ("sleep", "op"):
            await trio.sleep(seconds)
            self.note(f"{mark} slept")
        elif name == "defer":
            defers.append(mark)
        elif name == "checkpoint":
            await trio.lowlevel.checkpoint()
        elif name == "error":
            raise ValueError(mark)
        elif name in ("move_on", "cancel", "shield"):
            scope = trio.CancelScope(shield=name == "shield")
            if name == "move_on":
                scope.deadline = trio.current_time() + seconds
            elif name == "cancel":
                scope.cancel()
            with scope:
                await self.body(inside[0])
            self.note(f"{mark} {scope.cancelled_caught}")
        elif name == "fail":
            with trio.fail_after(seconds):
                await self.body(inside[0])
        elif name == "try":
            try:
                await self.body(inside[0])
            except Exception:
                self.note(f"{mark} caught")
        else:
            async with trio.open_nursery() as nursery:
                for child in inside[1]:
                    nursery.start_soon(self.body, child)
                await self.body(inside[0])
            self.note(f"{mark} {nursery.cancel_scope.cancelled_caught}")


# ------------------------------------------------------------------------------------------ in Lua

PRELUDE = """
    local trio = require "trio"
    local function note(mark, text) out(trio.current_time(), mark .. " " .. tostring(text)) end
    local function body(f) return function() return trio.CancelScope():run(f) end end
    """


def lua_code(steps: list[Any]) -> str:
    """The steps as a function. Each body has a scope of its own, for what it defers."""
    lines = ["body(function()"]
    for name, mark, seconds, inside in steps:
        first = lua_code(inside[0]) if inside else ""
        if name == "sleep":
            lines.append(f"ngx.sleep({seconds!r}) note({mark}, 'slept')")
        elif name == "op":
            lines.append(f"rt.suspend(0, {seconds!r}) note({mark}, 'slept')")
        elif name == "defer":
            lines.append(f"trio.defer(note, {mark}, 'deferred')")
        elif name == "checkpoint":
            lines.append("trio.checkpoint()")
        elif name == "error":
            lines.append(f"error({mark})")
        elif name == "move_on":
            lines.append(
                f"note({mark}, (trio.move_on_after({seconds!r}, {first})).cancelled_caught)"
            )
        elif name == "cancel":
            lines.append(
                "do local scope = trio.CancelScope() scope:cancel()"
                f" scope:run({first}) note({mark}, scope.cancelled_caught) end"
            )
        elif name == "shield":
            lines.append(
                "do local scope = trio.CancelScope { shield = true }"
                f" scope:run({first}) note({mark}, scope.cancelled_caught) end"
            )
        elif name == "fail":
            lines.append(f"trio.fail_after({seconds!r}, {first})")
        elif name == "try":
            lines.append(f"if not pcall({first}) then note({mark}, 'caught') end")
        else:
            children = " ".join(f"nursery:start_soon({lua_code(c)})" for c in inside[1])
            lines.append(
                "do local scope trio.open_nursery(function(nursery) scope = nursery.cancel_scope "
                f"{children} return ({first})() end) note({mark}, scope.cancelled_caught) end"
            )
    return "\n".join([*lines, "end)"])


async def operation(_owner: object, seconds: float) -> tuple[()]:
    await trio.sleep(seconds)
    return ()


def in_lua(lua: Lua, steps: list[Any]) -> Log:
    async def main() -> Log:
        lua.rt.driver._ops[0] = operation
        assert await lua.run(
            f"{PRELUDE} if not pcall({lua_code(steps)}) then out(trio.current_time(), 'failed') end"
            " out(trio.current_time(), 'end')"
        ) in (None,)
        log = [
            (round(float(at), 4), text.replace("true", "True").replace("false", "False"))
            for at, text in lua.take()
        ]
        assert lua.rt.vm.export("live")()[1] == 0
        assert not lua.rt.driver._runs
        await trio.sleep(100)
        assert lua.take() == []
        return log

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def normal(log: Log) -> Log:
    """In the order of times; what several do at one time may come in any order."""
    return sorted((round(at, 3), text) for at, text in log)


@settings(max_examples=examples(300), suppress_health_check=list(HealthCheck), derandomize=True)
@given(program=programs, seed=st.integers(0, 1000))
def test_programs(lua: Lua, program: list[Step], seed: int) -> None:
    steps = annotate(program, Durations(seed), Number())
    model = OnTrio(steps)
    trio.run(model.main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert normal(in_lua(lua, steps)) == normal(model.log)
