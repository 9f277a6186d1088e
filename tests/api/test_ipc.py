"""ngx.ipc: workers of one process whose endpoints lead to each other, or one that is alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from serving import Running, nginx

from trio_lua.api.ipc import MAX_RUNNING, Ipc
from trio_lua.errors import IPCError
from trio_lua.ipc.mesh import Mesh

Serve = Callable[..., Any]


#: What every worker has: handlers that note what they get, and a location for code of a test.
CONF = """
    location / { content_by_lua_block {
        local ipc = require "ngx.ipc"
        ngx.req.read_body()
        local f = assert(loadstring(ngx.req.get_body_data()))
        local result = { f() }
        for i = 1, table.maxn(result) do result[i] = tostring(result[i]) end
        ngx.print(table.concat(result, " "))
    } }
"""

INIT = """
    got = {}
    ipc = require "ngx.ipc"
    ipc.receive("note", function(data) got[#got + 1] = ipc.sender .. ":" .. data end)
"""


def config(init: str = INIT, http: str = "") -> Any:
    return nginx(CONF, f"init_worker_by_lua_block {{ {init} }} {http}")


class Worker:
    """A worker in a mesh, or alone, that runs code of a test."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.ipc = Ipc(running.worker.runtime.alerts)

    async def run(self, code: str) -> str:
        """Run Lua code in a request; its results as text."""
        client = await self.running.connect()
        body = code.encode()
        await client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        status, _, answer = await client.response()
        assert status == 200, self.running.log.text()
        await client.aclose()
        return answer.decode()

    async def until(self, code: str, expected: str) -> None:
        """Wait until Lua code has this result."""
        with trio.fail_after(20):
            while True:
                result = await self.run(code)
                if result == expected:
                    return
                await trio.sleep(0.01)

    async def closed(self) -> None:
        """Wait until the worker has stopped."""
        for _ in range(1000):
            if self.running.worker.closed:
                return
            await trio.sleep(0.01)
        raise AssertionError("it still runs")


@pytest.fixture
def alone(serve: Serve) -> Callable[..., Any]:
    @contextlib.asynccontextmanager
    async def start(**options: str) -> AsyncIterator[Worker]:
        async with serve(config(**options)) as running:
            yield Worker(running)

    return start


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    """The mesh of two workers, with pids 100 and 101."""
    with contextlib.closing(Mesh(2)) as mesh:
        for slot in range(2):
            mesh.forked(slot, 100 + slot)
        yield mesh


@pytest.fixture
def pair(serve: Serve, mesh: Mesh) -> Callable[..., Any]:
    @contextlib.asynccontextmanager
    async def start(**options: str) -> AsyncIterator[list[Worker]]:
        async with contextlib.AsyncExitStack() as stack:
            yield [
                Worker(
                    await stack.enter_async_context(
                        serve(config(**options), ipc=mesh.endpoint(slot, share=True))
                    )
                )
                for slot in range(2)
            ]

    return start


# ---------------------------------------------------------------------- the README's


async def test_send(pair: Callable[..., Any]) -> None:
    async with pair() as (a, b):
        assert await a.run('return ipc.send(101, "note", "hello")') == "true"
        # a string from a variable, data that is a number, no data
        assert await a.run('return ipc.send("101", "note", 12)') == "true"
        assert await a.run('return ipc.send(101, "note")') == "true"
        await b.until("return unpack(got)", "100:hello 100:12 100:")
        assert await a.run("return #got") == "0"


async def test_broadcast(pair: Callable[..., Any]) -> None:
    async with pair() as (a, b):
        assert await a.run('return ipc.broadcast("note", "x")') == "true"
        for worker in (a, b):
            await worker.until("return unpack(got)", "100:x")


async def test_broadcast_of_much(pair: Callable[..., Any]) -> None:
    init = 'ipc.receive("large", function(data) got[#got + 1] = #data .. data:sub(-3) end)'
    async with pair(init=INIT + init) as (a, b):
        code = 'ipc.broadcast("large", ("x"):rep(3000000) .. "end") ipc.broadcast("note", "after")'
        await a.run(code)
        for worker in (a, b):
            await worker.until("return unpack(got)", "3000003end 100:after")


async def test_reply_and_sender(pair: Callable[..., Any]) -> None:
    init = """
        ipc.receive("hello", function(data) ipc.reply("note", "hi, you said " .. data) end)
    """
    async with pair(init=INIT + init) as (a, b):
        await a.run('return ipc.send(101, "hello", "moin")')
        await a.until("return unpack(got)", "101:hi, you said moin")
        assert await b.run("return ipc.sender, #got") == "nil 0"


async def test_sender_of_handlers_that_are_suspended(pair: Callable[..., Any]) -> None:
    init = """
        ipc.receive("slow", function(data)
            local before = ipc.sender
            ngx.sleep(tonumber(data))
            local th = ngx.thread.spawn(function() ngx.sleep(0) return ipc.sender end)
            local _, inside = ngx.thread.wait(th)
            got[#got + 1] = before .. "=" .. ipc.sender .. "=" .. inside
        end)
    """
    async with pair(init=INIT + init) as (a, b):
        await a.run('return ipc.send(101, "slow", 0.02)')
        await b.run('return ipc.send(101, "slow", 0.01)')
        # the one that came first sleeps longer, unless it came that much earlier
        await b.until("table.sort(got) return unpack(got)", "100=100=100 101=101=101")


async def test_names_in_a_table_and_removed(alone: Callable[..., Any]) -> None:
    async with alone() as worker:
        code = """
            assert(ipc.receive { a = function(data) got[#got + 1] = "a" .. data end,
                                 b = function(data) got[#got + 1] = "b" .. data end })
            for i = 1, 2 do
                for _, name in ipairs { "a", "b", "unknown" } do
                    assert(ipc.send(ngx.worker.pid(), name, i))
                end
                ngx.sleep(0.01)
                assert(ipc.receive("a", nil))
            end
            return unpack(got)
        """
        assert await worker.run(code) == "a1 b1 b2"


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ('send(101, ("x"):rep(254), "")', "true true"),
        ('send(101, ("x"):rep(255), "")', "true nil alert name length cannot exceed 254, was 255"),
        (
            'broadcast(("x"):rep(255), "")',
            "true nil alert name length cannot exceed 254, was 255",
        ),
        ('send(1, "x", "")', "true nil No worker process with PID 1"),
        ('send(-5, "x", "")', "true nil No worker process with PID -5"),
        ('send({ id = 2 }, "x", "")', "true nil No worker with the id 2"),
        ('send({ id = -1 }, "x", "")', "true nil No worker with the id -1"),
        ("send()", "false bad argument #2 (string expected, got nil)"),
        ('send("x", "y")', "false bad argument #1 (number expected, got string)"),
        ('send({}, "y")', "false bad argument #1 (a pid or a table with pid or id expected)"),
        ('send(101, "x", {})', "false bad argument #3 (string expected, got table)"),
        ("broadcast()", "false bad argument #1 (string expected, got nil)"),
        (
            'reply("x", "y")',
            "false Can't reply, ngx.ipc.reply called outside of IPC alert handler.",
        ),
        (
            "receive(1, print)",
            "false bad argument #1 to 'ngx.ipc.receive' (string expected, got number)",
        ),
        (
            'receive("x", 1)',
            "false bad argument #2 to 'ngx.ipc.receive' (function or nil expected, got number)",
        ),
        (
            "receive({}, print)",
            "false bad argument #2 to 'ngx.ipc.receive' when argument #1 is table (nil expected, got function)",
        ),
        (
            "receive { x = 1 }",
            "false bad table value in argument #1 to 'ngx.ipc.receive' (function or nil expected, got number)",
        ),
        (
            'request(101, "x", "", {})',
            "false bad argument #4 to 'request' (number of seconds expected)",
        ),
    ],
)
async def test_answers(pair: Callable[..., Any], call: str, result: str) -> None:
    async with pair() as (a, _):
        code = f"""
            local function show(ok, ...)
                if not ok then
                    local err = ...
                    return ok, (err:gsub("^.-:%d+: ", ""))
                end
                return ok, ...
            end
            return show(pcall(function() return ipc.{call} end))
        """
        assert await a.run(code) == result


async def test_before_there_are_workers(serve: Serve) -> None:
    init = """
        local ipc = require "ngx.ipc"
        early = { ipc.send(1, "x", ""), select(2, ipc.broadcast("x")), pcall(ipc.receive, "x", print) }
        early = tostring(early[1]) .. " " .. early[2] .. " " .. tostring(early[3]) .. " " .. early[4]
    """
    conf = nginx(CONF, f"init_by_lua_block {{ {init} }}")
    async with serve(conf) as running:
        disabled = "API disabled in the context of init_by_lua*"
        assert await Worker(running).run("return early") == f"nil {disabled} false {disabled}"


async def test_a_handler_that_fails(alone: Callable[..., Any]) -> None:
    init = """
        ipc.receive("now", function() error("oh") end)
        ipc.receive("later", function() ngx.sleep(0.01) error("no") end)
    """
    async with alone(init=INIT + init) as worker:
        await worker.run("""
            for _, name in ipairs { "now", "later", "note" } do ipc.send(ngx.worker.pid(), name) end
        """)
        await worker.until("return #got", "1")
        await trio.sleep(0.05)
        text = worker.running.log.text(4)
        assert "runtime error: init_worker_by_lua(nginx.conf:1):6: oh" in text
        assert ":7: no" in text
        assert "context: ngx.timer" in text


# ------------------------------------------------------------------- order, size, amount


async def test_order_and_size(pair: Callable[..., Any]) -> None:
    """Small alerts and large ones of one sender stay in order."""
    init = """
        local last = 0
        ipc.receive("n", function(data)
            local n = tonumber(data:match("^%d+"))
            if n ~= last + 1 or #data ~= (n % 50 == 0 and 300000 or n % 7 == 0 and 20000 or #data) then bad = n end
            last = n
        end)
        ipc.receive("end", function() got[1] = bad or last end)
    """
    async with pair(init=INIT + init) as (a, b):
        code = """
            for i = 1, 1000 do
                local data = tostring(i)
                if i % 50 == 0 then data = data .. ("x"):rep(300000 - #data)
                elseif i % 7 == 0 then data = data .. ("x"):rep(20000 - #data) end
                assert(ipc.send(101, "n", data))
            end
            return ipc.send(101, "end")
        """
        assert await a.run(code) == "true"
        await b.until("return unpack(got)", "1000")


async def test_a_sender_waits(pair: Callable[..., Any], mesh: Mesh) -> None:
    """While the receiver's queue is full; what cannot wait gets an error."""
    init = """
        refused = {}
        ipc.receive("data", function() count = (count or 0) + 1 end)
        ipc.receive("fill", function()
            local data = ("x"):rep(50000)
            for i = 1, 1000 do
                sent = i
                assert(ipc.send(100, "data", data))
            end
            sent = "all"
        end)
    """
    log = """
        log_by_lua_block {
            local ipc = require "ngx.ipc"
            local ok, err = ipc.send(100, "unknown", "x")
            if not ok then
                refused[1], refused[2] = ok, err
                refused[3], refused[4] = ipc.broadcast("note", "x")
            end
        }
    """
    async with pair(init=INIT + init, http=log) as (a, b):
        for _ in range(MAX_RUNNING):
            a.running.worker.runtime.alerts._running += 1
        await b.run('ipc.send(101, "fill")')
        await trio.testing.wait_all_tasks_blocked()
        sent = int(await b.run("return sent"))
        assert 20 < sent < 1000
        full = "the receiver's queue is full"
        result = await b.run("return sent, refused[1], refused[2], refused[3], refused[4]")
        assert result == f"{sent} nil {full} nil {full}"
        assert await b.run("return #got") == "0"
        a.running.worker.runtime.alerts.ended(MAX_RUNNING)
        await a.until("return count", "1000")
        assert await b.run("return sent") == "all"


async def test_handlers_are_not_without_number(alone: Callable[..., Any]) -> None:
    init = """
        running, most, all = 0, 0, 0
        ipc.receive("slow", function()
            running = running + 1
            most = math.max(most, running)
            ngx.sleep(0.01)
            running = running - 1
            all = all + 1
        end)
    """
    async with alone(init=INIT + init) as worker:
        for _ in range(2):
            await worker.run("""
                for i = 1, 3000 do assert(ipc.send(ngx.worker.pid(), "slow", ("x"):rep(100))) end
            """)
        await worker.until("return all", "6000")
        most = int(await worker.run("return most"))
        # the rest of a message is not held back
        assert most < MAX_RUNNING + 61440 / 114


# --------------------------------------------------------------------------- extensions


async def test_request(pair: Callable[..., Any]) -> None:
    init = """
        ipc.receive("double", function(data)
            ngx.sleep(tonumber(data) / 100)
            ipc.reply("doubled", data * 2)
            ipc.reply("note", "afterwards")
        end)
        ipc.receive("silent", function() ngx.sleep(0.01) end)
        ipc.receive("for ever", function() repeat ngx.sleep(0.001) until over; over = "yes" end)
    """
    async with pair(init=INIT + init) as (a, b):
        ask = "return ipc.request"
        assert await a.run(f'{ask}(101, "double", "4")') == "8 doubled"
        assert await a.run(f'{ask}({{ id = 0 }}, "double", "1")') == "2 doubled"
        assert await a.run(f'{ask}(101, "silent")') == "nil no reply"
        assert await a.run(f'{ask}(101, "unknown")') == "nil no handler"
        assert await a.run(f'{ask}(101, "for ever", "", 0.01)') == "nil timeout"
        assert await a.run(f'{ask}(5, "double", "1")') == "nil No worker process with PID 5"
        answers = await a.run("""
            local function ask(n) return (ipc.request(101, "double", n)) end
            local list = {}
            for i = 3, 1, -1 do list[#list + 1] = ngx.thread.spawn(ask, i) end
            for i = 1, 3 do local _, n = ngx.thread.wait(list[i]) list[i] = n end
            return unpack(list)
        """)
        assert answers == "6 4 2"
        await a.until("return #got", "5")
        await b.run("package.loaded._G.over = true")
        await b.until("return over", "yes")


async def test_request_that_nobody_waits_for(alone: Callable[..., Any]) -> None:
    init = """
        ipc.receive("slow", function() ngx.sleep(0.01) ipc.reply("x", "y") done = true end)
    """
    async with alone(init=INIT + init) as worker:
        code = """
            local th = ngx.thread.spawn(function() return ipc.request({ id = 0 }, "slow") end)
            ngx.sleep(0)
            ngx.thread.kill(th)
        """
        await worker.run(code)
        await worker.until("return done", "true")


async def test_request_where_nothing_can_wait(serve: Serve) -> None:
    init = INIT + 'refused = { ipc.request({ id = 0 }, "x") } refused[1] = tostring(refused[1])'
    async with serve(config(init)) as running:
        assert await Worker(running).run("return unpack(refused)") == (
            "nil API disabled in the context of init_worker_by_lua*"
        )


async def test_workers(pair: Callable[..., Any], mesh: Mesh) -> None:
    async with pair() as (a, b):
        show = """
            local list = {}
            for i, w in ipairs(ipc.workers()) do
                list[i] = ("%d:%s%s%s%s"):format(w.pid, w.id, w.own and " own" or "", w.agent and " agent" or "",
                    w.leaving and " leaving" or "")
            end
            return table.concat(list, ", ")
        """
        assert await a.run(show) == "100:0 own, 101:1"
        mesh.forked(mesh.claim(None), 102)
        mesh.retire(1)
        assert await b.run(show) == "100:0, 101:1 own leaving, 102:nil agent"
        # the number is that of the new worker, the pid that of the old one
        assert await a.run('return ipc.send({ id = 1 }, "note", "old")') == "true"
        await b.until("return unpack(got)", "100:old")
        slot = mesh.claim(1)
        mesh.forked(slot, 103)
        mesh.announce()
        await a.run(
            'ipc.send({ id = 1 }, "note", "new") ipc.send(ipc.workers()[2], "note", "older")'
        )
        await b.until("return unpack(got)", "100:old 100:older")
        mesh.died(slot)
        assert await a.run('return ipc.send(103, "x")') == "nil No worker process with PID 103"


async def test_the_sender_is_gone(pair: Callable[..., Any], mesh: Mesh) -> None:
    init = """
        ipc.receive("slow", function() ngx.sleep(0.01) got[1] = select(2, ipc.reply("x", "y")) end)
        ipc.receive("silent", function() ngx.sleep(0.01) end)
    """
    async with pair(init=INIT + init) as (a, b):
        await a.run('ipc.send(101, "slow") ipc.send(101, "silent")')
        await trio.testing.wait_all_tasks_blocked()
        mesh.died(0)
        await b.until("return unpack(got)", "No worker process with PID 100")


async def test_quitting(alone: Callable[..., Any]) -> None:
    """Handlers that run come to their end."""
    init = """
        ipc.receive("slow", function() ngx.sleep(0.05) ngx.log(ngx.ERR, "ended") end)
    """
    async with alone(init=INIT + init) as worker:
        await worker.run('ipc.send(ngx.worker.pid(), "slow")')
        await trio.testing.wait_all_tasks_blocked()
        worker.running.worker.quit()
        await worker.closed()
        assert "ended" in worker.running.log.text()


async def test_nothing_new_begins_at_the_end(pair: Callable[..., Any]) -> None:
    """A stream of alerts does not keep a worker that quits, but answers come, and so do last timers."""
    init = """
        ipc.receive("stream", function() ngx.sleep(0.01) ipc.broadcast("stream") end)
        ipc.receive("echo", function(data) ngx.sleep(0.05) ipc.reply("echo", data) end)
        ipc.receive("last", function()
            ngx.log(ngx.ERR, "answer: ", (ipc.request(100, "echo", "yes")))
            ngx.timer.at(0, function() ngx.log(ngx.ERR, "timer") end)
        end)
    """
    async with pair(init=INIT + init) as (a, b):
        await a.run('ipc.send(101, "last") ipc.send(101, "stream")')
        await trio.sleep(0.02)
        b.running.worker.quit()
        await b.closed()
        assert "answer: yes" in b.running.log.text()
        assert "timer" in b.running.log.text()
        assert "left" not in b.running.log.text()
        # the other one goes on for ever
        await a.run('ipc.receive("stream", nil)')
        await trio.sleep(0.02)


async def test_in_init_worker_that_may_wait(serve: Serve) -> None:
    """Handlers that are registered before the first wait are there."""
    init = """
        local ipc = require "ngx.ipc"
        ipc.receive("echo", function(data) ngx.sleep(0) ipc.reply("echo", data) end)
        package.loaded.answer = ipc.request({ id = 0 }, "echo", "yes")
    """
    async with serve(config(init, "lua_strict_phases off;")) as running:
        assert await Worker(running).run('return require "answer"') == "yes"


async def test_last_words(serve: Serve, mesh: Mesh) -> None:
    """What exit_worker_by_lua sends is sent."""
    last = "exit_worker_by_lua_block { require('ngx.ipc').broadcast('note', 'bye') }"
    async with serve(config(), ipc=mesh.endpoint(1, share=True)) as running:
        async with serve(config(http=last), ipc=mesh.endpoint(0, share=True)):
            pass
        await Worker(running).until("return unpack(got)", "100:bye")


# ------------------------------------------------------------------------------- Python


async def test_from_python(pair: Callable[..., Any]) -> None:
    init = 'ipc.receive("ask", function(data) ipc.reply("told", data .. "!") end)'
    async with pair(init=INIT + init) as (a, b):
        await a.ipc.send("note", "x", pid=101)
        await a.ipc.send(b"note", b"y", worker=1)
        await a.ipc.broadcast("note", "z")
        await b.until("return unpack(got)", "100:x 100:y 100:z")
        assert await a.ipc.request("ask", b"really", worker=1) == b"really!"
        for problem, to in {
            "No worker process with PID 5": {"pid": 5},
            "No worker with the id 5": {"worker": 5},
        }.items():
            with pytest.raises(IPCError, match=problem):
                await a.ipc.send("x", **to)
        with pytest.raises(IPCError, match="no handler"):
            await a.ipc.request("nobody", worker=0)
        with pytest.raises(IPCError, match="cannot exceed 254"):
            await a.ipc.send("x" * 255, worker=0)
        with pytest.raises(TypeError):
            await a.ipc.send("x")
        assert [entry.pid for entry in a.ipc.workers()] == [100, 101]


async def test_python_receives(pair: Callable[..., Any]) -> None:
    async with pair() as (a, b):
        with b.ipc.receive("job") as jobs, trio.fail_after(20):
            with pytest.raises(IPCError, match="already"), b.ipc.receive("job"):
                pass
            await a.run('for i = 1, 3 do ipc.send(101, "job", i) end')
            alerts = [await jobs.receive() for _ in range(3)]
            assert [(alert.name, alert.data, alert.sender) for alert in alerts] == [
                (b"job", b"%d" % i, 100) for i in (1, 2, 3)
            ]
            await alerts[0].reply("note", b"done")
            await a.until("return unpack(got)", "101:done")
            await a.run('ipc.send(101, "job", "left")')
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def answer() -> None:
                    async for alert in jobs:
                        if alert.data == b"question":
                            await alert.reply("", b"answer")
                            return

                assert await a.run('return ipc.request(101, "job", "question")') == "answer "
            await a.run('ipc.send(101, "job", "left")')
            await trio.testing.wait_all_tasks_blocked()
        assert await a.run('return ipc.request(101, "job")') == "nil no handler"
        assert b.running.worker.runtime.alerts._running == 0


async def test_python_waits(pair: Callable[..., Any]) -> None:
    async with pair(
        init='count = 0 require("ngx.ipc").receive("x", function() count = count + 1 end)'
    ) as (
        a,
        b,
    ):
        b.running.worker.runtime.alerts._running += MAX_RUNNING
        sent = 0

        async def fill() -> None:
            nonlocal sent
            for _ in range(1000):
                await a.ipc.send("x", b"x" * 50_000, worker=1)
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            nursery.start_soon(fill)
            await trio.testing.wait_all_tasks_blocked()
            assert 20 < sent < 2000
            b.running.worker.runtime.alerts.ended(MAX_RUNNING)
        await b.until("return count", "2000")


async def test_a_request_of_python_is_cancelled(alone: Callable[..., Any]) -> None:
    init = 'ipc.receive("slow", function() ngx.sleep(0.01) ipc.reply("x", "y") done = true end)'
    async with alone(init=INIT + init) as worker:
        with trio.move_on_after(0.001) as scope:
            await worker.ipc.request("slow", worker=0)
        assert scope.cancelled_caught
        await worker.until("return done", "true")
        assert not worker.running.worker.runtime.alerts.answers


async def test_alone_is_a_process(alone: Callable[..., Any]) -> None:
    async with alone() as worker:
        assert await worker.run("return ipc.workers()[1].pid, #ipc.workers()") == f"{os.getpid()} 1"
        assert await worker.run('return ipc.broadcast("note", 1)') == "true"
        await worker.until("return unpack(got)", f"{os.getpid()}:1")
