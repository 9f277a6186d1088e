"""Random programs of light threads, timers, sockets and deadlines as requests of a whole worker, against the model.

What they do, when, and what the client receives has to be what the model says; afterwards nothing of them may be left.

``TRIO_LUA_PROGRAMS=100000 pytest tests/api/test_thread_programs.py`` runs that many, others each time.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import MemoryLog, Running, nginx
from thoroughness import examples
from thread_programs import (
    LEAVING,
    MAX_OPERATIONS,
    PRELUDE,
    SECOND,
    TIMEOUT,
    Ambiguous,
    Model,
    Program,
    lua_code,
    operation_times,
    programs,
)

from trio_lua.testing import LuaNetwork
from trio_lua.testing import server as kit

#: Programs of one server, one after the other.
BATCH = 25
#: How many there are of them, for each of the two drivers.
ROUNDS = int(os.environ.get("TRIO_LUA_PROGRAMS", "0")) // (2 * BATCH) or examples(24)

#: For whatever a peer or the worker still does when a program is over.
REST = 10

HANDLER = """
    local rt = require "trio_lua.rt"
    return assert(loadstring(rt.py.program(), "=program"))(rt.py.note)
    """


def configuration() -> Any:
    return nginx(
        "".join(
            f"""location = /{checks}{timeout} {{
                lua_check_client_abort {("off", "on")[checks]};
                lua_request_timeout {(0, 3 * SECOND + TIMEOUT)[timeout] // 1000}ms;
                content_by_lua_block {{ {HANDLER} }}
            }}\n"""
            for checks in (False, True)
            for timeout in (False, True)
        )
    )


def network() -> LuaNetwork:
    """Of each peer one port tells how long it waits before it answers; one is silent, and one unreachable."""
    result = LuaNetwork()

    def answering(seconds: float) -> Any:
        async def handler(stream: trio.abc.Stream) -> None:
            await trio.sleep(seconds)
            await stream.send_all(b"x\n")

        return handler

    for number in range(MAX_OPERATIONS):
        host = f"10.0.0.{number}"
        connecting = operation_times(number, 0)[0] / SECOND
        for seconds in range(4):
            handler = answering(operation_times(number, seconds)[1] / SECOND)
            result.tcp(host, 1000 + seconds, handler).slow(connecting=connecting)
        result.silent(host, 1).slow(connecting=connecting)
        result.timeout(host, 2)
    return result


class Server:
    """A worker that runs programs."""

    def __init__(self, running: Running) -> None:
        self._running = running
        worker = running.worker
        self._worker = worker
        self._runtime = worker.runtime
        self._tasks = self._count()
        self._code = b""
        self._begin = 0.0
        self._out: list[tuple[int, str]] = []
        self._runtime.vm.set_call("program", lambda: self._code)
        self._runtime.vm.set_call("note", self._note)

    def _count(self) -> tuple[int, int]:
        outer, inner = self._worker._outer, self._worker._nursery
        assert outer is not None
        assert inner is not None
        return len(outer.child_tasks), len(inner.child_tasks)

    def _note(self, text: bytes) -> None:
        passed = trio.current_time() - self._begin
        self._out.append((round(passed * SECOND), text.decode()))

    async def run(self, program: Program) -> None:
        """Run a program and compare."""
        try:
            model = Model(program)
        except Ambiguous:
            return
        code = lua_code(program.body)
        if program.deadline is not None:
            code = f"ngx.req.set_deadline({program.deadline})\n{code}"
        self._code = f"local out = ...\n{PRELUDE}\n{code}".encode()
        self._out = []
        self._running.log.clear()
        # a whole number, so that sums are exact
        await trio.sleep_until(trio.current_time() // 1 + 1)
        self._begin = trio.current_time()
        client = await self._running.connect()
        await client.send(
            f"GET /{program.checks_abort}{program.timeout} HTTP/1.1\r\n"
            "Host: x\r\nConnection: close\r\n\r\n".encode()
        )
        with trio.CancelScope() as leaving:
            if program.leaves is not None:
                leaving.deadline = self._begin + program.leaves + LEAVING / SECOND
            with trio.fail_after(1000):
                response = await client.rest()
        await client.aclose()
        self._running.clients.clear()
        await trio.sleep_until(self._begin + model.now // SECOND + REST)
        assert self._out == model.out, program
        if not leaving.cancelled_caught:
            check_response(response, model)
        self._check_nothing_left()

    def _check_nothing_left(self) -> None:
        runtime = self._runtime
        assert runtime.vm.export("live")() == (0, 0)
        assert not runtime.driver._runs
        assert not any(runtime.timers())
        assert runtime.vm.export("next_turn")() is None
        assert runtime.sockets.open == 0
        assert self._count() == self._tasks
        assert not self._worker.connections


def check_response(response: bytes, model: Model) -> None:
    """The status, the lines that were said, and whether the response is complete."""
    head, _, body = response.partition(b"\r\n\r\n")
    outcome, lines = model.outcome, "".join(f"{name}\n" for name in model.said)
    if not lines and outcome == 444:
        assert response == b""
        return
    status = head[9:12].decode()
    if not lines:
        expected = {"done": 200, "failed": 500, "late": 504, 0: 200}.get(outcome, outcome)
        assert status == str(expected)
        return
    chunks = "".join(f"{len(name) + 1:x}\r\n{name}\n\r\n" for name in model.said)
    if outcome in ("failed", "late", 444):
        # cut off, and the client need not have all that was said just before
        assert chunks.startswith(body.decode())
        assert status == "200" or not response
    else:
        assert body.decode() == chunks + "0\r\n\r\n"
        assert status == "200"


unhurried = settings(
    deadline=None,
    max_examples=ROUNDS,
    suppress_health_check=list(HealthCheck),
    derandomize="TRIO_LUA_PROGRAMS" not in os.environ,
    database=None,
)


@pytest.mark.parametrize("parked", [True, False], ids=["parked", "task"])
@unhurried
@given(batch=st.lists(programs, min_size=BATCH, max_size=BATCH))
def test_programs(parked: bool, batch: list[Program]) -> None:
    async def main() -> None:
        log = MemoryLog()
        async with kit.open_worker(
            configuration(), log=log, network=network(), parked=parked, guarded=False, epoch=0.0
        ) as worker:
            server = Server(Running(worker, log, parked))
            for program in batch:
                await server.run(program)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
