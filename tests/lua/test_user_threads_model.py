"""Random programs of user threads against a model of OpenResty's scheduler.

A program is a tree of functions made of simple steps. The model runs it with plain generators, a run queue and a
sorted list of sleepers, as the C code does it with coroutines, posted threads and timers; Lua must print the same.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thoroughness import examples

from trio_lua.lua.driver import Outcome

if TYPE_CHECKING:
    from conftest import Lua

#: One step of a function. "spawn" has a body and gives the function's next child.
Step = tuple[str, Any]

simple = st.one_of(
    st.tuples(st.just("sleep"), st.integers(0, 5)),
    st.just(("yield", None)),
    st.tuples(st.just("wait"), st.lists(st.integers(0, 3), min_size=1, max_size=3)),
    st.tuples(st.just("kill"), st.integers(0, 3)),
    st.tuples(st.just("status"), st.integers(0, 3)),
    st.tuples(st.just("sem_wait"), st.integers(0, 5)),
    st.tuples(st.just("post"), st.integers(1, 3)),
    st.just(("nested", None)),
)
rare = st.sampled_from([("error", None), ("exit", 403), ("return", None)])


def bodies(children: st.SearchStrategy[list[Step]]) -> st.SearchStrategy[list[Step]]:
    spawn = st.tuples(st.just("spawn"), children)
    step = st.one_of(simple, simple, spawn, spawn)
    return st.builds(lambda a, b: a + b, st.lists(step, max_size=7), st.lists(rare, max_size=1))


programs = st.recursive(st.lists(simple, max_size=3), bodies, max_leaves=12)


# ------------------------------------------------------------------------------------------- the model


class Thread:
    def __init__(self, name: str, parent: Thread | None) -> None:
        self.name = name
        self.parent = parent
        self.body: Generator[tuple[Any, ...], Any, str] | None = None
        self.children: list[Thread] = []
        self.state = self.shown = "running"
        self.waiting_for: list[Thread] = []
        self.ok = True
        self.value: Any = None
        self.sleeping: list[Any] | None = None


class Exit(Exception):
    pass


class Model:
    """What a program prints, and its outcome."""

    def __init__(self, program: list[Step]) -> None:
        self.out: list[str] = []
        self.queue: deque[tuple[Thread, Any]] = deque()
        self.heap: list[list[Any]] = []
        self.seq = 0
        self.now = 0
        self.units = 0
        self.waiters: deque[Thread] = deque()
        self.posted = False
        self.failed = False
        entry = Thread("0", None)
        entry.body = self.function(entry, program)
        self.threads = [entry]
        try:
            self.resume(entry, None)
            self.drain()
            while self.alive():
                self.turn()
            self.outcome: Any = "failed" if self.failed else "done"
        except Exit:
            self.outcome = "exit"

    def alive(self) -> bool:
        return not self.failed and any(t.state == "running" for t in self.threads)

    def turn(self) -> None:
        """One turn of the event loop: what is due, then the waiters that units are for."""
        posted = self.posted
        if not posted:
            while self.heap[0][3] is None:
                heapq.heappop(self.heap)
            self.now = max(self.now, self.heap[0][0])
        last = self.seq
        while self.heap and self.heap[0][0] <= self.now and self.heap[0][1] <= last:
            _, _, kind, thread = heapq.heappop(self.heap)
            if thread is not None and self.alive():
                thread.sleeping = None
                if kind == "sem":
                    self.waiters.remove(thread)
                self.resume(thread, "false timeout" if kind == "sem" else None)
                self.drain()
        if posted:
            while self.waiters and self.units and self.alive():
                thread = self.waiters.popleft()
                self.units -= 1
                assert thread.sleeping is not None
                thread.sleeping[3] = None
                thread.sleeping = None
                self.resume(thread, "true nil")
                self.drain()
            self.posted = False

    def drain(self) -> None:
        while self.queue and not self.failed:
            thread, value = self.queue.popleft()
            if thread.state == "running":
                self.resume(thread, value)

    def sleep(self, thread: Thread, delay: int, kind: str) -> None:
        self.seq += 1
        thread.sleeping = [self.now + delay, self.seq, kind, thread]
        heapq.heappush(self.heap, thread.sleeping)

    def resume(self, thread: Thread, value: Any) -> None:
        while True:
            assert thread.body is not None
            try:
                request = thread.body.send(value)
            except StopIteration as stop:
                thread.ok, thread.value = True, stop.value
            except ValueError:
                if thread.parent is None:
                    self.failed = True
                    return
                thread.ok, thread.value = False, "bad"
            else:
                kind, argument = request
                if kind == "sleep":
                    self.sleep(thread, argument, "sleep")
                elif kind == "sem":
                    self.waiters.append(thread)
                    self.sleep(thread, argument, "sem")
                elif kind == "yield":
                    self.queue.append((thread, None))
                elif kind == "spawn":
                    child = Thread(f"{thread.name}.{len(thread.children)}", thread)
                    child.body = self.function(child, argument)
                    thread.children.append(child)
                    self.threads.append(child)
                    self.queue.append((thread, None))
                    thread, value = child, None
                    continue
                else:
                    thread.waiting_for = argument
                return
            # the thread has ended
            thread.state = "dead"
            for child in thread.children:
                if child.state == "zombie":
                    child.state = "dead"
            parent = thread.parent
            if parent is None or parent.state != "running":
                return
            if thread in parent.waiting_for:
                parent.waiting_for = []
                value = f"{str(thread.ok).lower()} {thread.value}"
                thread = parent
                continue
            thread.state = "zombie"
            return

    def function(self, me: Thread, steps: list[Step]) -> Generator[Any, Any, str]:
        def out(text: object) -> None:
            self.out.append(f"{me.name} {text}")

        for kind, argument in steps:
            if kind == "spawn":
                yield "spawn", argument
                out("spawned")
            elif kind == "sleep":
                yield "sleep", argument
                out(kind)
            elif kind == "nested":
                me.shown = "normal"
                yield "sleep", 1
                me.shown = "running"
                out(kind)
            elif kind == "yield":
                yield "yield", None
                out(kind)
            elif kind == "status":
                if argument < len(me.children):
                    child = me.children[argument]
                    out(child.shown if child.state == "running" else child.state)
            elif kind == "kill":
                if argument < len(me.children):
                    out(self.kill(me.children[argument]))
            elif kind == "wait":
                group = [me.children[i] for i in argument if i < len(me.children)]
                if not group:
                    continue
                for i, child in enumerate(group):
                    if child.state == "zombie":
                        child.state = "dead"
                        out(f"{str(child.ok).lower()} {child.value}")
                        break
                    if child.state == "dead" and i == len(group) - 1:
                        out("nil already waited or killed")
                        break
                else:
                    out((yield "wait", group))
            elif kind == "sem_wait":
                if not self.waiters and self.units:
                    self.units -= 1
                    out("true nil")
                elif argument == 0:
                    out("nil timeout")
                else:
                    out((yield "sem", argument))
            elif kind == "post":
                self.units += argument
                if self.waiters:
                    self.posted = True
                out(self.units - len(self.waiters))
            elif kind == "error":
                raise ValueError
            elif kind == "exit":
                raise Exit
            else:
                return me.name
        return me.name

    def kill(self, thread: Thread) -> str:
        if thread.state == "zombie":
            thread.state = "dead"
            return "nil already terminated"
        if thread.state == "dead":
            return "nil already waited or killed"
        thread.state = "dead"
        if thread.sleeping is not None:
            if thread.sleeping[2] == "sem":
                self.waiters.remove(thread)
            thread.sleeping[3] = None
        for child in thread.children:
            if child.state == "zombie":
                child.state = "dead"
        return "1 nil"


# ---------------------------------------------------------------------------------------- the same in Lua


def lua_code(steps: list[Step], name: str = "0") -> str:
    """The body of a function; its children are in the table c."""
    code, children = [f'local me, c = "{name}", {{}}'], 0
    for kind, argument in steps:
        if kind == "spawn":
            body = lua_code(argument, f"{name}.{children}")
            code.append(
                f"c[{children}] = ngx.thread.spawn(function() {body} end) say(me, 'spawned')"
            )
            children += 1
        elif kind == "sleep":
            code.append(f"ngx.sleep({argument}) say(me, 'sleep')")
        elif kind == "op":
            code.append(f"rt.suspend(0, {argument}) say(me, 'op')")
        elif kind == "nested":
            code.append("nested() say(me, 'nested')")
        elif kind == "yield":
            code.append("coroutine.yield() say(me, 'yield')")
        elif kind == "status":
            code.append(f"if c[{argument}] then say(me, coroutine.status(c[{argument}])) end")
        elif kind == "kill":
            code.append(f"if c[{argument}] then say2(me, ngx.thread.kill(c[{argument}])) end")
        elif kind == "wait":
            group = ", ".join(str(i) for i in argument)
            code.append(f"wait(me, c, {group})")
        elif kind == "sem_wait":
            code.append(f"say2(me, sem:wait({argument}))")
        elif kind == "post":
            code.append(f"sem:post({argument}) say(me, sem:count())")
        elif kind == "error":
            code.append("if true then error('bad') end")
        elif kind == "exit":
            code.append("if true then ngx.exit(403) end")
        else:
            code.append("if true then return me end")
    return "\n".join([*code, "return me"])


PRELUDE = """
    local sem = require("ngx.semaphore").new()
    local function say(me, text) out(me .. " " .. tostring(text)) end
    local function say2(me, a, b) out(me .. " " .. tostring(a) .. " " .. tostring(b)) end
    local function nested()
        local co = coroutine.create(function() ngx.sleep(1) end)
        coroutine.resume(co)
    end
    local unpack, ipairs = unpack, ipairs
    local function some(c, ...)
        local group = {}
        for _, i in ipairs { ... } do group[#group + 1] = c[i] end
        return group
    end
    local function wait(me, c, ...)
        local group = some(c, ...)
        if #group == 0 then return end
        say2(me, ngx.thread.wait(unpack(group)))
    end
    """


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
        outcome = {None: "done", Outcome.EXIT: "exit", Outcome.FAILED: "failed"}
        return outcome[result and result[0]], out

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


unhurried = settings(
    max_examples=examples(300), suppress_health_check=list(HealthCheck), derandomize=True
)


@unhurried
@given(program=programs)
def test_programs(lua: Lua, program: list[Step]) -> None:
    model = Model(program)
    assert run(lua, program) == (model.outcome, model.out)


def with_operations(steps: list[Step]) -> list[Step]:
    """Sleep in Python: a task for each, if there are several threads."""
    names = {"sleep": "op", "spawn": "spawn"}
    return [
        (names.get(kind, kind), with_operations(argument) if kind == "spawn" else argument)
        for kind, argument in steps
    ]


@unhurried
@given(program=programs)
def test_programs_with_operations(lua: Lua, program: list[Step]) -> None:
    """In which turn of the clock an operation ends is open, so that only the end is compared."""
    lua.rt.driver._ops[0] = operation
    outcome, out = run(lua, with_operations(program))
    assert outcome in ("done", "exit", "failed")
    assert run(lua, with_operations(program)) == (outcome, out)


@unhurried
@given(program=programs, seconds=st.integers(0, 6), operations=st.booleans())
def test_cancelled_programs(lua: Lua, program: list[Step], seconds: int, operations: bool) -> None:
    lua.rt.driver._ops[0] = operation
    if operations:
        program = with_operations(program)

    async def main() -> None:
        with trio.move_on_after(seconds + 0.5):
            await lua.run(PRELUDE + lua_code(program))
        lua.take()
        assert lua.rt.vm.export("live")()[1] == 0
        assert not lua.rt.driver._runs
        await trio.sleep(100)
        assert lua.take() == []

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
