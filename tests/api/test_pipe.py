"""``ngx.pipe``, with real children: every machine has ``sh`` and ``cat``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serving import nginx, row

Serve = Callable[..., Any]


async def run(serve: Serve, code: str, more: str = "") -> tuple[list[str], str]:
    """What the code says, and the log; nothing is left of its children."""
    handler = f"local pipe = require 'ngx.pipe' {code}"
    conf = nginx(f"location /t {{ content_by_lua_block {{ {handler} }} }} {more}")
    async with serve(conf) as running:
        client = await running.connect()
        status, _, data = await client.get("/t")
        assert status == 200, running.log.text()
        pipes = running.worker.runtime.pipes
        assert not pipes.children
        assert not pipes._pipes
        return data.decode().splitlines(), running.log.text(4)


async def test_both_ways(serve: Serve) -> None:
    code = """
        local proc = pipe.spawn { "cat" }
        ngx.say(proc:pid() > 1)
        ngx.say(proc:write("one\\r\\ntwo\\n"), proc:write(3), proc:write { "a", 4 })
        ngx.say(proc:stdout_read_line(), (proc:stdout_read_any(2)), proc:stdout_read_bytes(0))
        ngx.say((proc:stdout_read_bytes(4)))
        ngx.say(proc:shutdown("stdin"), proc:shutdown("stdin"))
        ngx.say(proc:write("x"))
        ngx.say("[", proc:stdout_read_all())
        ngx.say(proc:stdout_read_line())
        ngx.say(proc:wait())
        ngx.say(proc:wait())
        ngx.say(proc:stdout_read_all())
        ngx.say(proc:write("x"))
        ngx.say(proc:shutdown("stdout"))
        ngx.say(proc:kill(9))
    """
    lines, log = await run(serve, code)
    assert lines == [
        "true",
        "912",
        "onetw",
        *("o", "3a"),
        "truetrue",
        "nilclosed",
        "[4nilnil",
        "nilclosed",
        "trueexit0",
        "nilexited",
        "nilclosednil",
        "nilclosed",
        "nilclosed",
        "nilexited",
    ]
    assert log == ""


@pytest.mark.parametrize(
    ("args", "result"),
    [
        ("'exit 3'", "false exit 3"),
        ("'kill -9 $$'", "false signal 9"),
        ("{ 'true' }", "true exit 0"),
        ("{ 'sh', '-c', 'exit 4\\0 5' }", "false exit 4"),
        ("{ '/nonexistent' }", "false exit 1"),
    ],
)
async def test_how_it_ends(serve: Serve, args: str, result: str) -> None:
    code = f"""
        local ok, reason, status = pipe.spawn({args}):wait()
        ngx.say(tostring(ok), " ", reason, " ", status)
    """
    lines, log = await run(serve, code)
    assert lines == [result]
    missing = "lua pipe child execvp() failed while executing /nonexistent (2: No such file"
    assert (missing in log) == ("nonexistent" in args)


async def test_standard_error(serve: Serve) -> None:
    code = """
        local proc = pipe.spawn("echo out; echo err >&2")
        ngx.print(proc:stderr_read_all(), (proc:stdout_read_all()))
        proc = pipe.spawn("echo out; echo err >&2", { merge_stderr = true })
        ngx.print((proc:stdout_read_all()))
        ngx.say(proc:stderr_read_line())
        ngx.say(proc:shutdown("stderr"))
    """
    lines, _ = await run(serve, code)
    assert lines == [
        *("err", "out"),
        *("out", "err"),
        "nilmerged to stdoutnil",
        "nilmerged to stdout",
    ]


async def test_environment(serve: Serve) -> None:
    code = """
        ngx.print(pipe.spawn({ "env" }, { environ = { "A=b=c", "D=" } }):stdout_read_all() .. "")
    """
    lines, _ = await run(serve, code)
    assert lines == ["A=b=c", "D="]


async def test_timeouts(serve: Serve) -> None:
    code = """
        local proc = pipe.spawn("printf part; exec sleep 100",
            { write_timeout = 1, stdout_read_timeout = 0, wait_timeout = 1, stderr_read_timeout = 1 })
        ngx.say((proc:stdout_read_bytes(2)))
        proc:set_timeouts(nil, 1)
        ngx.say(proc:stdout_read_line())
        ngx.say(proc:stderr_read_all())
        ngx.say(proc:wait())
        ngx.say(proc:write(("x"):rep(1000000)))
        ngx.say(proc:kill(99999))
        ngx.say(proc:kill(0 / 0))
        ngx.say(proc:kill(15))
        proc:set_timeouts(nil, nil, nil, 0)
        ngx.say(proc:wait())
    """
    lines, _ = await run(serve, code)
    assert lines == [
        "pa",
        "niltimeoutrt",
        "niltimeout",
        "niltimeout",
        "niltimeout",
        "nilinvalid signal",
        "nilinvalid signal",
        "true",
        "falsesignal15",
    ]


async def test_more_than_a_pipe_takes(serve: Serve) -> None:
    code = """
        local proc = pipe.spawn { "cat" }
        local data = ("0123456789"):rep(100000)
        local writer = ngx.thread.spawn(function()
            ngx.say(proc:write(data), proc:shutdown("stdin"))
        end)
        local all = proc:stdout_read_all()
        ngx.thread.wait(writer)
        ngx.say(all == data)
    """
    lines, _ = await run(serve, code)
    assert lines == ["1000000true", "true"]


async def test_one_thread_at_a_time(serve: Serve) -> None:
    code = """
        local proc = pipe.spawn { "sleep", "100" }
        local function start(name, ...)
            local args = { ... }
            return ngx.thread.spawn(function()
                ngx.say(name, proc[name](proc, unpack(args)))
            end)
        end
        local reader = start("stdout_read_all")
        start("wait")
        start("write", ("x"):rep(1000000))
        ngx.say(proc:stdout_read_line())
        ngx.say(proc:write("x"))
        ngx.say(proc:wait())
        ngx.say(proc:shutdown("stdin"))
        ngx.sleep(0)
        ngx.thread.kill(reader)
        proc:set_timeouts(nil, 1)
        ngx.say(proc:stdout_read_line())
        start("stderr_read_any", 5)
        proc:kill(15)
    """
    lines, _ = await run(serve, code)
    assert lines[:5] == [
        "nilpipe busy readingnil",
        "nilpipe busy writing",
        "nilpipe busy waiting",
        "true",
        "writenilaborted",
    ]
    assert lines[5] == "niltimeout"
    # the reader is told of the end by the pipe or by the waiter, whichever comes first
    ends = sorted(line.removesuffix("nil") for line in lines[6:])
    assert ends == ["stderr_read_anynilclosed", "waitfalsesignal15"]


async def test_children_end_with_their_request(serve: Serve) -> None:
    code = """
        for i = 1, 3 do
            local proc = pipe.spawn { "sleep", "100" }
            ngx.thread.spawn(function() proc:wait() end)
        end
        ngx.say("started")
        ngx.exit(200)
    """
    assert (await run(serve, code))[0] == ["started"]


async def test_children_that_nothing_refers_to(serve: Serve) -> None:
    code = """
        local pid = pipe.spawn({ "sleep", "100" }):pid()
        collectgarbage() collectgarbage()
        for i = 1, 1000 do
            if os.execute("kill -0 " .. pid .. " 2>/dev/null") ~= 0 then
                return ngx.say("gone")
            end
            ngx.sleep(0.001)
        end
    """
    assert (await run(serve, code))[0] == ["gone"]


async def test_children_of_a_timer(serve: Serve) -> None:
    code = """
        local result
        ngx.timer.at(0, function()
            local proc = pipe.spawn("echo from a timer")
            result = proc:stdout_read_line()
        end)
        while not result do ngx.sleep(0.001) end
        ngx.say(result)
    """
    assert (await run(serve, code))[0] == ["from a timer"]


WRONG_ARGUMENTS = [
    ("pipe.spawn()", "bad args arg: table expected, got nil"),
    ("pipe.spawn {}", "bad args arg: non-empty table expected"),
    ("pipe.spawn('x', { buffer_size = 0 })", "bad buffer_size option"),
    ("pipe.spawn('x', { environ = 1 })", "bad environ option: table expected, got number"),
    (
        "pipe.spawn('x', { environ = { 1 } })",
        "bad value at index 1 of environ option: string expected, got number",
    ),
    (
        "pipe.spawn('x', { environ = { 'A' } })",
        "bad value at index 1 of environ option: 'name=[value]' format expected, got 'A'",
    ),
    ("pipe.spawn('x', { wait_timeout = -1 })", "bad wait_timeout option"),
    ("pipe.spawn('cat').pid()", "not a process instance"),
    ("pipe.spawn('cat'):write()", "bad data arg: string, number, or table expected, got nil"),
    ("pipe.spawn('cat'):kill('TERM')", "bad signal arg: number expected, got TERM"),
    ("pipe.spawn('cat'):shutdown('x')", "bad shutdown arg: x"),
    ("pipe.spawn('cat'):stdout_read_any(0)", "bad max argument"),
    ("pipe.spawn('cat'):stderr_read_bytes(-1)", "bad len argument"),
    ("pipe.spawn('cat'):set_timeouts(2 ^ 32)", "bad write_timeout option"),
]


async def test_wrong_arguments(serve: Serve) -> None:
    calls = (f"ngx.say(select(2, pcall(function() {code} end))) " for code, _ in WRONG_ARGUMENTS)
    lines, _ = await run(serve, "".join(calls))
    for line, (code, message) in zip(lines, WRONG_ARGUMENTS, strict=True):
        with row(code):
            assert line.endswith(f": {message}")


async def test_where_one_cannot_wait(serve: Serve) -> None:
    more = """
        location /log { return 200; log_by_lua_block {
            local proc = require("ngx.pipe").spawn { "true" }
            for _, name in ipairs { "wait", "stdout_read_all" } do
                ngx.log(ngx.ERR, select(2, pcall(proc[name], proc)))
            end
        } }
    """
    async with serve(nginx(more)) as running:
        client = await running.connect()
        assert (await client.get("/log"))[0] == 200
        log = running.log.text(4)
    assert log.count("API disabled in the context of log_by_lua*") == 2
