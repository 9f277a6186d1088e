"""Random programs of light threads: what they are made of, how they look in Lua, and a model of what they do.

A program is a tree of functions made of simple steps. The model runs it with plain generators, run queues and a sorted
list of what waits for a time, as OpenResty's C code does it with coroutines, posted threads and timers. It knows nothing
of Trio. Times are whole microseconds, and what happens at one time is in an order that OpenResty prescribes, with one
exception: between the end of a socket's operation and something else there is none. So each of those has a part of a second
that no other has, and a program in which such times meet all the same is :class:`Ambiguous`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

SECOND = 1_000_000

#: One step of a function. "spawn" has a body and gives the function's next child.
Step = tuple[str, Any]

#: What a client of a program that leaves early adds to whole seconds; and lua_request_timeout.
LEAVING = 200
TIMEOUT = 256_000

#: Operations of sockets in one program; further ones only sleep.
MAX_OPERATIONS = 7


@dataclass(frozen=True)
class Program:
    """A handler and what happens to its request.

    Attributes:
        body: The entry function.
        deadline: Seconds for ``ngx.req.set_deadline`` at its beginning, or None.
        checks_abort: Whether ``lua_check_client_abort`` is on.
        timeout: Whether there is a ``lua_request_timeout``: of 3 seconds and :data:`TIMEOUT`.
        leaves: Seconds after which the client closes its connection, and :data:`LEAVING`; None: it does not.
    """

    body: tuple[Step, ...]
    deadline: int | None = None
    checks_abort: bool = False
    timeout: bool = False
    leaves: int | None = None


# ------------------------------------------------------------------------------------------ strategies

_alone = st.one_of(
    st.tuples(st.just("sleep"), st.integers(0, 5)),
    st.just(("yield", None)),
    st.tuples(st.just("wait"), st.lists(st.integers(0, 3), min_size=1, max_size=3)),
    st.tuples(st.just("kill"), st.integers(0, 3)),
    st.tuples(st.just("status"), st.integers(0, 3)),
    st.tuples(st.just("sem_wait"), st.integers(0, 5)),
    st.tuples(st.just("post"), st.integers(1, 3)),
    st.just(("nested", None)),
)
_with_sockets = st.one_of(
    _alone,
    _alone,
    st.just(("say", None)),
    st.tuples(
        st.sampled_from(["receive", "receive_timeout", "connect_timeout"]),
        st.tuples(st.integers(0, 3), st.one_of(st.none(), st.none(), st.integers(1, 3))),
    ),
)
_ends = [("error", None), ("exit", 403), ("return", None)]
_more_ends = [*_ends, ("exit", 0), ("exit", 444), ("redirect", None)]


def _bodies(
    step: st.SearchStrategy[Step], nesting: Sequence[str], ends: list[Step], sizes: Sequence[int]
) -> st.SearchStrategy[list[Step]]:
    """Functions whose steps may have functions of their own; at most so many steps at each depth, from the innermost on."""
    body = st.lists(step, max_size=sizes[0])
    for size in sizes[1:]:
        nested = st.tuples(st.sampled_from(nesting), body)
        # one_of() would give each kind of step the same weight
        either = st.integers(0, 2).flatmap(lambda n, nested=nested: step if n else nested)  # type: ignore[misc]
        steps = st.lists(either, min_size=2, max_size=size)
        end = st.lists(st.sampled_from(ends), max_size=1)
        body = st.builds(lambda a, b: a + b, steps, end)
    return body


#: Functions of light threads alone.
functions = _bodies(_alone, ["spawn"], _ends, (3, 5, 8))


def _program(body: list[Step], **how: Any) -> Program:
    return Program(_numbered(body, iter(range(MAX_OPERATIONS)), in_timer=False), **how)


def _numbered(steps: Sequence[Step], numbers: Any, *, in_timer: bool) -> tuple[Step, ...]:
    """Give operations of sockets their numbers; leave out what timers cannot do."""
    result: list[Step] = []
    for kind, argument in steps:
        if in_timer and kind in ("say", "on_abort", "redirect"):
            continue
        if kind in ("spawn", "on_abort"):
            argument = _numbered(argument, numbers, in_timer=in_timer)
        elif kind == "timer":
            argument = (len(argument) % 4, _numbered(argument, numbers, in_timer=True))
        elif kind in ("receive", "receive_timeout", "connect_timeout"):
            seconds, deadline = argument
            number = next(numbers, None)
            if number is None:
                kind, argument = "sleep", seconds
            else:
                argument = (number, seconds, None if in_timer else deadline)
        result.append((kind, argument))
    return tuple(result)


#: Handlers of requests.
programs = st.builds(
    _program,
    _bodies(_with_sockets, ["spawn", "spawn", "timer", "on_abort"], _more_ends, (3, 5, 6, 10)),
    deadline=st.one_of(st.none(), st.none(), st.none(), st.integers(1, 6)),
    checks_abort=st.booleans(),
    timeout=st.sampled_from([False, False, True]),
    leaves=st.one_of(st.none(), st.integers(0, 6)),
)


# --------------------------------------------------------------------------------------------- in Lua


def lua_code(steps: Sequence[Step], name: str = "0") -> str:
    """The body of a function; its children are in the table c. It wants :data:`PRELUDE` in front."""
    code, children, others = [f'local me, c = "{name}", {{}}'], 0, 0
    for kind, argument in steps:
        if kind == "spawn":
            body = lua_code(argument, f"{name}.{children}")
            code.append(
                f"c[{children}] = ngx.thread.spawn(function() {body} end) say(me, 'spawned')"
            )
            children += 1
        elif kind == "timer":
            seconds, body = argument
            body = lua_code(body, f"{name}t{others}")
            code.append(f"say2(me, ngx.timer.at({seconds}, function() {body} end))")
            others += 1
        elif kind == "on_abort":
            body = lua_code(argument, f"{name}a{others}")
            code.append(f"say2(me, ngx.on_abort(function() {body} end))")
            others += 1
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
            code.append(f"wait(me, c, {', '.join(map(str, argument))})")
        elif kind == "sem_wait":
            code.append(f"say2(me, sem:wait({argument}))")
        elif kind == "post":
            code.append(f"sem:post({argument}) say(me, sem:count())")
        elif kind == "say":
            code.append("ngx.say(me) ngx.flush() say(me, 'say')")
        elif kind in ("receive", "receive_timeout", "connect_timeout"):
            number, seconds, deadline = argument
            code.append(f"{kind}(me, {number}, {seconds})")
            if deadline is not None:
                code.append(f"ngx.req.set_deadline({deadline})")
        elif kind == "error":
            code.append("if true then error('bad') end")
        elif kind == "exit":
            code.append(f"if true then ngx.exit({argument}) end")
        elif kind == "redirect":
            code.append("if true then ngx.redirect('/') end")
        else:
            code.append("if true then return me end")
    return "\n".join([*code, "return me"])


#: What the steps are made of; ``out(text)`` and ``rt`` come from the test.
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
    local function connect(number, port)
        local sock = ngx.socket.tcp()
        sock:connect("10.0.0." .. number, port)
        return sock
    end
    local function receive(me, number, seconds)
        local sock = connect(number, 1000 + seconds)
        sock:settimeout(60000)
        say2(me, sock:receive())
        sock:close()
    end
    local function receive_timeout(me, number, seconds)
        local sock = connect(number, 1)
        sock:settimeout(seconds * 1000 + 2 ^ number)
        say2(me, sock:receive())
        sock:close()
    end
    local function connect_timeout(me, number, seconds)
        local sock = ngx.socket.tcp()
        sock:settimeout(seconds * 1000 + 2 ^ number)
        say2(me, sock:connect("10.0.0." .. number, 2))
    end
    """


def operation_times(number: int, seconds: int) -> tuple[int, int]:
    """How long an operation's connection takes, and then its answer or timeout; in microseconds."""
    return 2**number, seconds * SECOND + 1000 * 2**number


def exchanged(steps: Sequence[Step], kinds: Mapping[str, str]) -> list[Step]:
    """A function of light threads with some kinds of steps exchanged."""
    return [
        (kinds.get(kind, kind), exchanged(argument, kinds) if kind == "spawn" else argument)
        for kind, argument in steps
    ]


# ------------------------------------------------------------------------------------------- the model


class Ambiguous(Exception):
    """Two things happen at one time, and nothing says in which order."""


class _Exit(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class _Failure(Exception):
    """An error of Lua code."""


class _Thread:
    def __init__(self, name: str, parent: _Thread | None, run: _Run) -> None:
        self.name = name
        self.parent = parent
        self.run = run
        self.body: Generator[tuple[Any, ...], Any, str] | None = None
        self.children: list[_Thread] = []
        self.others = 0
        self.state = self.shown = "running"
        self.waiting_for: list[_Thread] = []
        self.ok = True
        self.value: Any = None
        self.node: _Node | None = None


class _Run:
    """A handler: of a request, or of a timer."""

    def __init__(self, request: Program | None) -> None:
        self.request = request
        self.queue: deque[tuple[_Thread, Any]] = deque()
        self.threads: list[_Thread] = []
        self.dormant: _Thread | None = None
        self.on_abort: _Thread | None = None
        self.deadline: _Node | None = None
        self.over = False

    def live(self) -> bool:
        return not self.over and any(
            thread.state == "running" and thread is not self.dormant for thread in self.threads
        )


class _Node:
    """Something that happens at a time; those of OpenResty's clock are in order, others are not."""

    def __init__(
        self, at: int, number: int, kind: str, happen: Callable[[], None], thread: _Thread | None
    ) -> None:
        self.at, self.number, self.kind, self.happen, self.thread = at, number, kind, happen, thread
        self.cancelled = False

    def __lt__(self, other: _Node) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class Model:
    """What becomes of a program.

    Attributes:
        out: Times and texts.
        outcome: How its request has ended: "done", "failed", "late", "gone", or an exit's status.
        said: The lines of the response.
        now: When all was over.
    """

    def __init__(self, program: Program) -> None:
        self.out: list[tuple[int, str]] = []
        self.outcome: Any = None
        self.said: list[str] = []
        self.now = 0
        self._clock: list[_Node] = []
        self._outside: list[_Node] = []
        self._events: deque[Callable[[], None]] = deque()
        self._number = 0
        self._units = 0
        self._waiters: deque[_Thread] = deque()
        self._posted = False
        self._request = run = _Run(program)
        if program.leaves is not None:
            self._add(self._outside, program.leaves * SECOND + LEAVING, "leave", self._leave)
        if program.deadline is not None:
            self._set_deadline(run, program.deadline * SECOND)
        self._begin(run, "0", program.body)
        if program.timeout and run.deadline is None and not run.over:
            self._set_deadline(run, 3 * SECOND + TIMEOUT)
        while self._step():
            pass

    # ------------------------------------------------------------------ time

    def _add(
        self,
        queue: list[_Node],
        delay: int,
        kind: str,
        happen: Callable[[], None],
        thread: _Thread | None = None,
    ) -> _Node:
        self._number += 1
        node = _Node(self.now + delay, self._number, kind, happen, thread)
        heapq.heappush(queue, node)
        return node

    @staticmethod
    def _next(queue: list[_Node]) -> _Node | None:
        while queue and queue[0].cancelled:
            heapq.heappop(queue)
        return queue[0] if queue else None

    def _step(self) -> bool:
        """Let the next thing happen; whether there was one."""
        if self._events:
            self._turn()
            return True
        due, outside = self._next(self._clock), self._next(self._outside)
        if due is None and outside is None:
            return False
        if outside is None or (due is not None and due.at < outside.at):
            assert due is not None
            self.now = max(self.now, due.at)
            self._turn()
            return True
        heapq.heappop(self._outside)
        for other in (due, self._next(self._outside)):
            if other is not None and other.at == outside.at:
                raise Ambiguous
        self.now = outside.at
        outside.happen()
        return True

    def _turn(self) -> None:
        """One turn of the event loop: what is due, then what was posted."""
        last, events = self._number, len(self._events)
        while True:
            node = self._next(self._clock)
            if node is None or node.at > self.now or node.number > last:
                break
            heapq.heappop(self._clock)
            node.happen()
        for _ in range(events):
            self._events.popleft()()

    # ------------------------------------------------------------------ runs

    def _begin(self, run: _Run, name: str, steps: Sequence[Step]) -> None:
        thread = self._thread(run, name, None, steps)
        self._wake(thread, None)

    def _thread(
        self, run: _Run, name: str, parent: _Thread | None, steps: Sequence[Step]
    ) -> _Thread:
        thread = _Thread(name, parent, run)
        thread.body = self._function(thread, steps)
        run.threads.append(thread)
        return thread

    def _end(self, run: _Run, outcome: Any) -> None:
        if run.over:
            return
        run.over = True
        run.queue.clear()
        for thread in run.threads:
            self._stop(thread)
        if run.deadline is not None:
            run.deadline.cancelled = True
        if run.request is not None:
            self.outcome = outcome

    def _stop(self, thread: _Thread) -> None:
        """What a thread waits for does not matter any more."""
        if thread.node is not None:
            thread.node.cancelled = True
            thread.node = None
        if thread in self._waiters:
            self._waiters.remove(thread)

    def _set_deadline(self, run: _Run, delay: int) -> None:
        if run.deadline is not None:
            run.deadline.cancelled = True
        run.deadline = self._add(self._clock, delay, "deadline", lambda: self._end(run, "late"))

    def _leave(self) -> None:
        """The client closes its connection."""
        run = self._request
        assert run.request is not None
        if run.over or not run.request.checks_abort:
            return
        thread = run.dormant
        if thread is None:
            self._end(run, "gone")
            return
        run.dormant = None
        self._events.append(lambda: None if run.over else self._wake(thread, None))

    # --------------------------------------------------------------- threads

    def _wake(self, thread: _Thread, value: Any) -> None:
        """Resume a thread, and then those that can go on."""
        run = thread.run
        self._resume(thread, value)
        while run.queue:
            thread, value = run.queue.popleft()
            if thread.state == "running":
                self._resume(thread, value)
        if not run.over and not run.live():
            self._end(run, "done")

    def _suspend(self, queue: list[_Node], thread: _Thread, delay: int, value: Any) -> None:
        def happen() -> None:
            thread.node = None
            if thread in self._waiters:
                self._waiters.remove(thread)
            self._wake(thread, value)

        thread.node = self._add(queue, delay, "thread", happen, thread)

    def _grant(self) -> None:
        while self._waiters and self._units:
            thread = self._waiters.popleft()
            self._units -= 1
            self._stop(thread)
            self._wake(thread, "true nil")
        self._posted = False

    def _resume(self, thread: _Thread, value: Any) -> None:
        run = thread.run
        while True:
            assert thread.body is not None
            try:
                request = thread.body.send(value)
            except StopIteration as stop:
                thread.ok, thread.value = True, stop.value
            except _Exit as leaving:
                self._end(run, leaving.status)
                return
            except _Failure as failure:
                if thread.parent is None:
                    self._end(run, "failed")
                    return
                thread.ok, thread.value = False, failure
            else:
                kind, argument = request
                if kind == "sleep":
                    self._suspend(self._clock, thread, argument, None)
                elif kind == "sem":
                    self._waiters.append(thread)
                    self._suspend(self._clock, thread, argument, "false timeout")
                elif kind == "outside":
                    self._suspend(self._outside, thread, *argument)
                elif kind == "yield":
                    run.queue.append((thread, None))
                elif kind == "start":
                    run.queue.append((thread, None))
                    thread, value = argument, None
                    continue
                elif kind == "rest":
                    run.dormant = thread
                else:
                    assert kind == "wait"
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

    def _function(self, me: _Thread, steps: Sequence[Step]) -> Generator[Any, Any, str]:
        run = me.run

        def out(text: object) -> None:
            self.out.append((self.now, f"{me.name} {text}"))

        for kind, argument in steps:
            if kind == "spawn":
                child = self._thread(run, f"{me.name}.{len(me.children)}", me, argument)
                me.children.append(child)
                yield "start", child
                out("spawned")
            elif kind == "timer":
                seconds, body = argument
                name = f"{me.name}t{me.others}"
                me.others += 1
                self._add(
                    self._clock,
                    seconds * SECOND,
                    "timer",
                    lambda name=name, body=body: self._begin(_Run(None), name, body),  # type: ignore[misc]
                )
                out("1 nil")
            elif kind == "on_abort":
                name = f"{me.name}a{me.others}"
                me.others += 1
                assert run.request is not None
                if run.on_abort is not None and run.on_abort.state == "running":
                    out("nil duplicate call")
                elif not run.request.checks_abort:
                    out("nil lua_check_client_abort is off")
                else:
                    child = self._thread(run, name, me, (("rest", None), *argument))
                    run.on_abort = child
                    yield "start", child
                    out("1 nil")
            elif kind == "rest":
                yield "rest", None
            elif kind == "sleep":
                yield "sleep", argument * SECOND
                out(kind)
            elif kind == "nested":
                me.shown = "normal"
                yield "sleep", SECOND
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
                    out(self._kill(me.children[argument]))
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
                if not self._waiters and self._units:
                    self._units -= 1
                    out("true nil")
                elif argument == 0:
                    out("nil timeout")
                else:
                    out((yield "sem", argument * SECOND))
            elif kind == "post":
                self._units += argument
                if self._waiters and not self._posted:
                    self._posted = True
                    self._events.append(self._grant)
                out(self._units - len(self._waiters))
            elif kind == "say":
                self.said.append(me.name)
                out(kind)
            elif kind in ("receive", "receive_timeout", "connect_timeout"):
                number, seconds, deadline = argument
                connecting, then = operation_times(number, seconds)
                if kind != "connect_timeout":
                    yield "outside", (connecting, None)
                text = "x nil" if kind == "receive" else "nil timeout"
                out((yield "outside", (then, text)))
                if deadline is not None:
                    self._set_deadline(run, deadline * SECOND)
            elif kind == "error":
                raise _Failure("bad")
            elif kind == "exit":
                raise _Exit(argument)
            elif kind == "redirect":
                if self.said:
                    raise _Failure("attempt to call ngx.redirect after sending out the headers")
                raise _Exit(302)
            else:
                return me.name
        return me.name

    def _kill(self, thread: _Thread) -> str:
        if thread.state == "zombie":
            thread.state = "dead"
            return "nil already terminated"
        if thread.state == "dead":
            return "nil already waited or killed"
        thread.state = "dead"
        self._stop(thread)
        for child in thread.children:
            if child.state == "zombie":
                child.state = "dead"
        return "1 nil"
