"""Random handlers of all kinds of waits, ended in all kinds of ways: nothing of them may be left.

The tests beside the scheduler (``tests/lua/test_user_threads_model.py``) say what such programs do; this one runs them in
a whole worker, with timers, sockets, subrequests, Python functions, deadlines and clients that leave.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import trio
import trio.testing
from serving import nginx
from serving import serve_task as serve

__all__ = ["serve"]

Serve = Callable[..., Any]
Clock = trio.testing.MockClock

WAITS = (
    "ngx.sleep({seconds})",
    "sem:wait({seconds})",
    "python.wait({seconds})",
    "ngx.location.capture('/sub?{seconds}')",
    "trio.move_on_after({seconds}, function() python.wait(0.009) end)",
    "coroutine.wrap(function() ngx.sleep({seconds}) end)()",
    "pcall(function() ngx.sleep({seconds}) end)",
    "local s = ngx.req.socket() if s then s:settimeout({ms}) s:receive(9) end",
)
STEPS = (
    "coroutine.yield()",
    "sem:post(1)",
    "ngx.timer.at({seconds}, function() ngx.sleep({seconds}) end)",
    "if t[1] then ngx.thread.kill(t[1]) end",
    "if t[1] then ngx.thread.wait(unpack(t)) end",
    "trio.defer(function() sem:post(1) end)",
    "ngx.req.set_deadline({seconds})",
    "ngx.on_abort(function() ngx.sleep({seconds}) end)",
)
ENDS = ("error('e')", "ngx.exit(403)", "ngx.exec('/sub?0.001')", "ngx.redirect('/x')", "return")


class Program:
    """A handler, made from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.code = self._body(0)
        self.leaves_after = self._random.choice([None, None, self._seconds()])

    def _seconds(self) -> float:
        # the clock is virtual, but the whole test has half a minute of it
        return self._random.randint(1, 6) / 1000

    def _fill(self, text: str) -> str:
        return text.format(seconds=self._seconds(), ms=self._random.randint(1, 6))

    def _body(self, depth: int) -> str:
        lines = ["local t = {}"]
        for _ in range(self._random.randint(1, 5)):
            kind = self._random.random()
            if kind < 0.25 and depth < 3:
                inner = self._body(depth + 1)
                lines.append(f"t[#t + 1] = ngx.thread.spawn(function() {inner} end)")
            elif kind < 0.35 and depth < 3:
                inner = self._body(depth + 1)
                lines.append(
                    "pcall(trio.open_nursery, function(nursery) "
                    f"nursery:start_soon(function() {inner} end) {self._fill('ngx.sleep({seconds})')} end)"
                )
            elif kind < 0.7:
                lines.append(f"do {self._fill(self._random.choice(WAITS))} end")
            else:
                lines.append(f"do {self._fill(self._random.choice(STEPS))} end")
        if self._random.random() < 0.2:
            lines.append(self._random.choice(ENDS))
        return "\n".join(lines)


async def test_nothing_is_left(serve: Serve, autojump_clock: Clock) -> None:
    programs = [Program(seed) for seed in range(150)]
    handlers = "".join(
        f"""location = /{number} {{ content_by_lua_block {{
            local sem, trio = require("ngx.semaphore").new(), require "trio"
            local python = require "python.m"
            do {program.code}
            end
        }} }}\n"""
        for number, program in enumerate(programs)
    )
    conf = nginx(f"""
        lua_check_client_abort on;
        lua_request_timeout 20ms;
        location /sub {{ content_by_lua_block {{ ngx.sleep(tonumber(ngx.var.args)) ngx.say(1) }} }}
        {handlers}""")
    waiting: set[object] = set()

    async def wait(seconds: float) -> None:
        mark = object()
        waiting.add(mark)
        try:
            await trio.sleep(seconds)
        finally:
            waiting.discard(mark)

    async with serve(conf.expose("m.wait", wait)) as running:
        worker = running.worker
        runtime, outer, inner = worker.runtime, worker._outer, worker._nursery
        tasks = len(outer.child_tasks)
        for number, program in enumerate(programs):
            client = await running.connect()
            await client.send(
                f"POST /{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n12345".encode()
            )
            with trio.move_on_after(program.leaves_after or 0.025):
                await client.rest()
            await client.aclose()
            running.clients.clear()
            # what a client that left or a timer may still do
            await trio.sleep(0.04)
            assert runtime.vm.export("live")() == (0, 0), program.code
            assert not runtime.driver._runs, program.code
            assert not any(runtime.timers()), program.code
            assert runtime.vm.export("next_turn")() is None, program.code
            assert runtime.sockets.open == 0, program.code
            assert not inner.child_tasks, program.code
            assert len(outer.child_tasks) == tasks, program.code
            assert not waiting, program.code
