"""resty.threadpool, and pools for Python code."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from serving import MemoryLog
from threadpools import conf, fifo, said, serve

from trio_lua.api.threadpool import PoolHandle
from trio_lua.errors import LuaError
from trio_lua.lua.vm import LUALIB
from trio_lua.server.worker import Worker
from trio_lua.threads.pool import QueueFull

__all__ = ["conf", "fifo", "serve"]


async def test_values_go_in_and_out(serve: Callable[..., Any], conf: Callable[..., Any]) -> None:
    code = """
        local task = tp.create("p", function(a)
            local b = coroutine.yield(a + 1, true)
            local c = coroutine.yield({ b = b })
            return false, nil, c
        end)
        ngx.say(task:status())
        local n, yes = task:resume(1)
        ngx.say(n, " ", yes, " ", task:status())
        ngx.say(task:resume("in").b)
        local f, none, c = task:resume("last")
        ngx.say(f, " ", none, " ", c, " ", task:status())
        ngx.say(select(2, pcall(task.resume, task)))
    """
    assert await said(serve, conf(code)) == [
        "suspended",
        "2 true suspended",
        "in",
        "false nil last dead",
        "cannot resume dead task",
    ]


async def test_functions_travel_with_their_variables(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = """
        local offset = 1
        local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
        ngx.say(tp.run("p", function(n) return fib(n) + offset end, 20))
        local next_number = tp.run("p", function() local n = 0 return function() n = n + 1 return n end end)
        ngx.say(next_number(), next_number())
    """
    assert await said(serve, conf(code)) == ["6766", "12"]


async def test_globals_are_the_tasks_own(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = """
        here = "here"
        for i = 1, 2 do
            ngx.say(tp.run("p", function()
                local before = there
                there, _G.other = 1, 2
                loadstring("third = 3")()
                return tostring(before) .. there .. other .. third .. tostring(here)
            end))
        end
    """
    assert await said(serve, conf(code)) == ["nil123nil", "nil123nil"]


async def test_mistakes_name_what_is_wrong(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = """
        local up = io.stdout
        ngx.say(select(2, pcall(tp.create, "nowhere", function() end)))
        ngx.say(select(2, pcall(tp.create, "p", os.execute)))
        ngx.say(select(2, pcall(tp.create, "p", 1)))
        ngx.say(select(2, pcall(tp.run, "p", function() return up end)))
        local t = { f = function() return up end }
        ngx.say(select(2, pcall(tp.run, "p", function() return t end)))
        local find = ngx.re.match ngx.say(select(2, pcall(tp.run, "p", function() return find end)))
        ngx.say(select(2, pcall(tp.run, "p", function() return { a = os.time } end)))
        ngx.say(select(2, pcall(tp.run, "p", function() coroutine.yield() end)))
    """
    place = "of the function at content_by_lua(nginx.conf:1)"
    assert await said(serve, conf(code)) == [
        'thread pool "nowhere" not found',
        "bad argument #2 (Lua function expected, got the C function os.execute)",
        "bad argument #2 (function expected, got number)",
        f'userdata cannot cross between threads: upvalue "up" {place}:7',
        f'userdata cannot cross between threads: upvalue "up" {place}:8, which is upvalue "t".f {place}:9',
        f'the function ngx.re.match cannot cross between threads: upvalue "find" {place}:10',
        "the C function os.time cannot cross between threads: return value #1.a",
        "the function has yielded: use threadpool.create and task:resume",
    ]


async def test_errors_arrive_whole(serve: Callable[..., Any], conf: Callable[..., Any]) -> None:
    code = """
        local _, err = pcall(tp.run, "p", function() local function f() error("boom") end f() end)
        ngx.say(err)
        local _, err = pcall(tp.run, "p", function() error({ code = 7 }) end)
        ngx.say(err.code)
        local _, err = pcall(tp.run, "p", function() error() end)
        ngx.say(err)
        local _, err = pcall(tp.run, "p", function() return 1 + string.rep() end)
        ngx.say((err:match("^[^\\n]*")))
        local _, err = pcall(tp.run, "p", function() require "no.such" end)
        ngx.say((err:match("^[^\\n]*")))
    """
    assert await said(serve, conf(code)) == [
        "content_by_lua(nginx.conf:1):3: boom",
        "stack traceback of the thread:",
        "\t[C]: in function 'error'",
        "\tcontent_by_lua(nginx.conf:1):3: in function 'f'",
        "\tcontent_by_lua(nginx.conf:1):3: in function <content_by_lua(nginx.conf:1):3>",
        "7",
        "nil",
        "content_by_lua(nginx.conf:1):9: bad argument #1 to 'rep' (string expected, got no value)",
        "content_by_lua(nginx.conf:1):11: module 'no.such' not found:",
    ]


@pytest.mark.parametrize(
    "body",
    [
        "local function f() return 1 + f() end return f()",
        "local function f() return (string.gsub('a', 'a', f)) end return f()",
        "local function f() return (coroutine.wrap(f)()) end return f()",
        "local t t = setmetatable({}, { __index = function(_, k) return t[k .. 'x'] end }) return t.a",
    ],
)
async def test_endless_recursion(
    serve: Callable[..., Any], conf: Callable[..., Any], body: str
) -> None:
    code = f"""
        local ok, err = pcall(tp.run, "p", function() {body} end)
        ngx.say(ok, (err:match("stack overflow")))
        ngx.say(tp.run("p", function() return "still here" end))
    """
    assert await said(serve, conf(code)) == ["falsestack overflow", "still here"]


async def test_endless_recursion_in_a_thread_that_was_there_before(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    """Trio keeps threads for the next who needs one, with the stack that they have."""
    started = threading.Barrier(9)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(trio.to_thread.run_sync, started.wait)
        await trio.to_thread.run_sync(started.wait)
    code = """
        local function f() return (string.gsub("a", "a", f)) end
        ngx.say(select(2, pcall(tp.run, "p", f)):match("stack overflow"))
    """
    assert await said(serve, conf(code)) == ["stack overflow"]


async def test_what_is_there_in_a_thread(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = """
        ngx.say(tp.run("p", function()
            local cjson, ffi, bit = require "cjson", require "ffi", require "bit"
            assert(ngx.worker.id() == 0 and ngx.worker.pid() > 0 and ngx.config.subsystem == "http")
            assert(ngx.HTTP_OK == 200 and ngx.OK == 0 and ngx.get_phase() == "init")
            assert(ngx.now() > 1e9 and ngx.time() > 1e9 and #ngx.http_time(0) == 29)
            local from = ngx.re.find("hello, 1234", "[0-9]+", "jo")
            return ngx.md5("hello"), ngx.encode_base64(ngx.sha1_bin("a")), ngx.encode_base64(ngx.hmac_sha1("k", "s")),
                ngx.crc32_long(("x"):rep(1000)), from, cjson.encode({ ngx.null }), ffi.sizeof("int"), bit.band(6, 3)
        end))
        ngx.say(ngx.md5("hello"), ngx.encode_base64(ngx.sha1_bin("a")), ngx.encode_base64(ngx.hmac_sha1("k", "s")),
            ngx.crc32_long(("x"):rep(1000)), 8, "[null]", 4, 2)
    """
    here, there = await said(serve, conf(code))
    assert here == there


@pytest.mark.parametrize(
    "name",
    [
        "var.x", "ctx", "status", "header.x", "say('x')", "socket.tcp()", "timer.at(0, print)", "req.get_headers()", "sleep(1)",
    ],
)  # fmt: skip
async def test_what_is_not_there_says_so(
    serve: Callable[..., Any], conf: Callable[..., Any], name: str
) -> None:
    lines = await said(
        serve, conf(f'ngx.say(select(2, pcall(tp.run, "p", function() local x = ngx.{name} end)))')
    )
    assert f"ngx.{name.partition('(')[0]} is not available in a thread pool" in lines[0]


@pytest.mark.parametrize("name", ["ngx.status", "ngx.var.x", "ngx.ctx"])
async def test_nothing_of_a_request_can_be_set(
    serve: Callable[..., Any], conf: Callable[..., Any], name: str
) -> None:
    lines = await said(
        serve, conf(f'ngx.say(select(2, pcall(tp.run, "p", function() {name} = 1 end)))')
    )
    assert "is not available in a thread pool" in lines[0]


async def test_all_modules_of_ours_can_be_required(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    """Whoever needs one of their functions only perhaps keeps it in a local when loading."""
    names = [
        path.relative_to(LUALIB).with_suffix("").as_posix().replace("/", ".")
        for path in LUALIB.rglob("*.lua")
    ]
    code = """
        local names = "NAMES"
        ngx.say(tp.run("p", function()
            for name in names:gmatch("%S+") do require(name) end
            return "all"
        end))
    """
    assert await said(serve, conf(code.replace("NAMES", " ".join(names)))) == ["all"]


async def test_modules_about_the_event_loop_fail_when_they_are_used(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = """
        for _, name in ipairs { "ngx.semaphore.new", "ngx.resp.add_header", "resty.threadpool.run", "trio.sleep" } do
            local ok, err = pcall(tp.run, "p", function()
                local f = require(name:match("(.*)%."))[name:match("[^.]*$")]
                local ok, err = pcall(f)
                return err
            end)
            ngx.say(err)
        end
    """
    assert [line.partition(":")[0] for line in await said(serve, conf(code))] == [
        f"{name} is not available in a thread pool"
        for name in ("ngx.semaphore.new", "ngx.resp.add_header", "resty.threadpool.run", "trio.sleep")
    ]  # fmt: skip


async def test_a_task_cannot_end_the_server(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    lines = await said(
        serve, conf('ngx.say(select(2, pcall(tp.run, "p", function() os.exit(1) end)))')
    )
    assert "os.exit is not available in a thread pool" in lines[0]


async def test_map(serve: Callable[..., Any], conf: Callable[..., Any]) -> None:
    code = """
        local list = {}
        for i = 1, 50 do list[i] = i end
        local squares = tp.map("p", function(x, i) return x * i end, list, { concurrency = 3 })
        ngx.say(#squares, " ", squares[7], " ", squares[50])
        ngx.say(#tp.map("p", function() end, {}))
        local ok, err = pcall(tp.map, "p", function(x) if x == 5 then error("five", 0) end return x end, list)
        ngx.say(ok, (err:match("^[^\\n]*")))
        local stats = tp.stats("p")
        ngx.say(stats.threads, stats.max_queue, stats.queued, stats.suspended)
    """
    assert await said(serve, conf(code)) == ["50 49 2500", "0", "falsefive", "2400"]


async def test_tasks_end_with_their_request(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = """
        for i = 1, 2 do
            local task = tp.create("p", function() coroutine.yield(1) end)
            task:resume()
            package.loaded[i] = task
        end
        ngx.say(tp.stats("p").suspended)
    """
    async with serve(conf(code)) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"2\n"
        stats = running.worker.runtime.thread_pools["p"].stats()
        assert (stats.suspended, stats.idle, stats.abandoned) == (0, 2, 2)


async def test_a_task_that_nobody_has_any_more(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = """
        tp.create("p", function() coroutine.yield(1) end):resume()
        collectgarbage() collectgarbage()
        ngx.say(tp.stats("p").suspended, tp.stats("p").idle)
    """
    assert await said(serve, conf(code)) == ["01"]


async def test_tasks_that_nobody_has_any_more_make_room(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = """
        local function leave_behind()
            tp.create("p", function() coroutine.yield(1) end):resume()
        end
        collectgarbage("stop")
        for i = 1, 3 do
            ngx.thread.wait(ngx.thread.spawn(leave_behind))
        end
        ngx.say(tp.stats("p").suspended)
        ngx.say(tp.run("p", function() return "there is room" end))
        collectgarbage("restart")
    """
    lines = await said(serve, conf(code, http="lua_worker_thread_vm_pool_size 1;"))
    assert lines == ["3", "there is room"]


async def test_who_holds_all_vms_is_told(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = """
        local tasks = {}
        for i = 1, 4 do
            tasks[i] = tp.create("p", function() coroutine.yield(1) end)
            ngx.say(select(2, pcall(tasks[i].resume, tasks[i])))
        end
        tasks[1]:resume()
        ngx.say(tp.run("p", function() return "again" end))
    """
    lines = await said(serve, conf(code, http="lua_worker_thread_vm_pool_size 1;"))
    assert lines == [
        "1", "1", "1",
        'thread pool "p": all 3 VMs belong to suspended tasks of those who wait',
        "again",
    ]  # fmt: skip


async def test_cancel(serve: Callable[..., Any], conf: Callable[..., Any], fifo: str) -> None:
    code = f"""
        local task = tp.create("p", function(path) io.open(path, "rb"):read() end)
        local th = ngx.thread.spawn(function() return pcall(task.resume, task, "{fifo}") end)
        ngx.sleep(0)
        ngx.say(task:status())
        ngx.say(task:cancel(), task:cancel(), task:status())
        ngx.say(select(3, ngx.thread.wait(th)))
        ngx.say(tp.create("p", function() end):cancel())
        tp.run("default", function(path) local f = io.open(path, "w") f:write("\\n") f:close() end, "{fifo}")
    """
    assert await said(serve, conf(code)) == [
        "running",
        "truefalsedead",
        "the task was cancelled",
        "true",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "local th = ngx.thread.spawn(forever) ngx.sleep(0) ngx.thread.kill(th)",
        "ngx.thread.spawn(forever) ngx.sleep(0) ngx.exit(204)",
        "require('trio').move_on_after(0.01, forever)",
        "ngx.thread.spawn(forever) ngx.sleep(0) error('failed')",
        "forever()",  # until the client leaves
    ],
    ids=["kill", "exit", "deadline", "error", "abort"],
)
async def test_an_abandoned_task_is_interrupted(
    serve: Callable[..., Any], conf: Callable[..., Any], code: str
) -> None:
    config = conf(
        """
        local function forever()
            tp.run("p", function()
                jit.off(true, true)
                while true do pcall(error) end
            end)
        end
        """
        + code,
        http="lua_check_client_abort on;",
    )
    async with serve(config) as running:
        pool = running.worker.runtime.thread_pools["p"]
        client = await running.connect()
        with trio.fail_after(20):
            if code == "forever()":
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                while not pool.stats().running:
                    await trio.lowlevel.checkpoint()
                await client.aclose()
            else:
                await client.get("/")
            while pool.stats().vms:
                await trio.testing.wait_all_tasks_blocked()
                await trio.lowlevel.checkpoint()
        assert pool.stats().abandoned == 1


async def test_blocked_threads_block_nobody_else(
    serve: Callable[..., Any],
    conf: Callable[..., Any],
    fifo: str,
    nursery: trio.Nursery,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two threads block, four tasks wait, the next one is refused; other requests go on."""
    code = f"""
        if not ngx.var.arg_block then return ngx.say("hello") end
        local function wait(path)
            local f = io.open(path, "rb")
            f:setvbuf("no")
            return #f:read()
        end
        ngx.say(select(2, pcall(tp.run, "p", wait, "{fifo}")))
    """
    answers: list[bytes] = []
    async with serve(conf(code)) as running:
        pool = running.worker.runtime.thread_pools["p"]

        async def block() -> None:
            client = await running.connect()
            answers.append((await client.get("/?block=1"))[2])

        for _ in range(7):
            nursery.start_soon(block)
            await trio.testing.wait_all_tasks_blocked()
        assert answers == [b'thread pool "p" queue overflow: 4 tasks waiting\n']
        client = await running.connect()
        for _ in range(20):
            assert (await client.get("/"))[2] == b"hello\n"
        stats = pool.stats()
        with capsys.disabled():
            print(
                f" [{stats.running} threads blocked, {stats.queued} tasks waiting, {stats.refused} refused,"
                " 20 other requests served]",
                end="",
            )
        assert (stats.running, stats.queued, stats.refused) == (2, 4, 1)
        fd = os.open(fifo, os.O_WRONLY)
        os.write(fd, b"\n" * 6)
        os.close(fd)
        with trio.fail_after(20):
            while len(answers) < 7:
                await trio.testing.wait_all_tasks_blocked()
                await trio.lowlevel.checkpoint()
        assert answers[1:] == [b"0\n"] * 6


async def test_out_of_memory(serve: Callable[..., Any], conf: Callable[..., Any]) -> None:
    code = """
        local function grow() local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1000) .. i end end
        local ok, err = pcall(tp.run, "p", grow)
        ngx.say((err:match("^[^\\n]*")))
        local ok, err = pcall(tp.run, "p", function(s) return #s end, ("x"):rep(40e6))
        ngx.say(err)
        ngx.say(tp.run("p", function() return "still here" end))
    """
    pools = "thread_pool p threads=1 max_memory=32m;"
    assert await said(serve, conf(code, pools=pools)) == [
        "not enough memory", "not enough memory", "still here",
    ]  # fmt: skip


# ---------------------------------------------------------------- from Python


@pytest.fixture
async def worker(conf: Callable[..., Any], nursery: trio.Nursery) -> Worker:
    worker = Worker(
        conf("ngx.say(1)", pools="thread_pool p threads=1 max_queue=0;"), error_log=MemoryLog()
    )
    await nursery.start(worker.run, [])
    return worker


async def test_code_runs_for_python(worker: Worker, tmp_path: Path) -> None:
    pool = worker.runtime.thread_pools["p"]
    assert pool.name == "p"
    assert await pool.run("local a, b = ... return a + b, b", 1, 2) == (3, 2)
    assert await pool.run("function(a) return #a end", ["x", "y"]) == 2
    assert await pool.run("x = 1") is None
    assert await pool.run("return x") is None
    value = {"a": [1, 2.5, True], "b": {"c": b"\xff"}}
    expected = {b"a": [1, 2.5, True], b"b": {b"c": b"\xff"}}
    assert await pool.run("return ...", value) == expected
    (tmp_path / "f.lua").write_text("return require('m').hello(...)")
    assert await pool.run(tmp_path / "f.lua", "you") == (b"hello", b"you")


async def test_errors_for_python(worker: Worker, tmp_path: Path) -> None:
    pool = worker.runtime.thread_pools["p"]
    with pytest.raises(LuaError, match=r"thread_pool\(p\):1: boom") as caught:
        await pool.run("local function f() error('boom') end f()")
    assert "in function 'f'" in caught.value.traceback
    with pytest.raises(LuaError, match="unexpected symbol"):
        await pool.run("return return")
    with pytest.raises(LuaError, match="only nil, booleans, numbers, strings and tables"):
        await pool.run("return print")
    with pytest.raises(LuaError, match="contains itself"):
        await pool.run("local t = {} t.t = t return t")
    with pytest.raises(FileNotFoundError):
        await pool.run(tmp_path / "nothing.lua")
    with pytest.raises(TypeError, match="object cannot be passed to Lua"):
        await pool.run("return 1", [object()])
    with pytest.raises(ValueError, match="is no Lua number"):
        await pool.run("return 1", 2**60)
    assert pool.stats().vms == 1, "the VM is as good as before"
    with pytest.raises(KeyError, match='thread pool "q" not found'):
        worker.runtime.thread_pools["q"]


async def test_arguments_that_do_not_fit(conf: Callable[..., Any], nursery: trio.Nursery) -> None:
    config = conf("", pools="thread_pool p threads=1 max_memory=32m;")
    worker = Worker(config, error_log=MemoryLog())
    await nursery.start(worker.run, [])
    pool = worker.runtime.thread_pools["p"]
    for large in (b"x" * 40_000_000, ["x" * 1000] * 40_000, {i: i for i in range(400_000)}):
        with pytest.raises(LuaError, match="not enough memory"):
            await pool.run("return 1", large)
    assert await pool.run("return #...", b"x" * 1_000_000) == 1_000_000


async def test_a_full_queue_for_python(worker: Worker, fifo: str, nursery: trio.Nursery) -> None:
    pool: PoolHandle = worker.runtime.thread_pools["p"]
    nursery.start_soon(pool.run, "io.open(..., 'rb'):read()", fifo)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(QueueFull):
        await pool.run("return 1")
    await worker.runtime.thread_pools["default"].run(
        "local f = io.open(..., 'w') f:write('\\n') f:close()", fifo
    )
