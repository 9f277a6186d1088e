"""ngx.run_worker_thread."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from threadpools import conf, fifo, said, serve

__all__ = ["conf", "fifo", "serve"]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ('"p", "m", "hello", 1, "x", true', "true hello 1 x true"),
        ('"default", "m", "hello"', "true hello"),
        ('"p", "m", "count", nil, nil', "true 2"),
        ('"p", "m"', "false expecting at least 3 arguments"),
        ('"q", "m", "hello"', "false thread pool q not found"),
        ('{}, "m", "hello"', "false threadpool should be a string"),
        ('"p", {}, "hello"', "false module name should be a string"),
        ('"p", "m", {}', "false function name should be a string"),
        ('"p", "m", "nothing"', "false invalid function"),
        ('"p", "no_table", "f"', "false invalid lua module"),
        ('"p", "m", "hello", print', "false unsupported Lua type: LUA_TFUNCTION in the argument"),
        ('"p", "m", "unsendable"', "false unsupported Lua type: LUA_TFUNCTION in the return value"),
        ('"p", "m", "fail", "x"', "false /m.lua:2: x"),
        ('"p", "m", "fail", {}', "false "),
        ('"p", "m", "sleep"', "false /m.lua:10: ngx.sleep is not available in a thread pool: it needs a request or the event loop"),
    ],
)  # fmt: skip
async def test_run_worker_thread(
    serve: Callable[..., Any], conf: Callable[..., Any], call: str, answer: str
) -> None:
    code = f"""
        local list = {{ run({call}) }}
        for i = 1, #list do list[i] = tostring(list[i]) end
        ngx.say(table.concat(list, " "))
    """
    # Lua cuts the beginning of a path that is too long for it
    lines = [
        re.sub(r"false \S*/m.lua", "false /m.lua", line) for line in await said(serve, conf(code))
    ]
    assert lines == [answer]


async def test_a_module_that_does_not_exist(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    lines = await said(serve, conf('ngx.say(run("p", "no.such", "f"))'))
    assert lines[0] == "falsemodule 'no.such' not found:"
    assert any("/no/such.lua'" in line for line in lines)


async def test_modules_keep_their_globals(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    code = 'for i = 1, 2 do ngx.say(select(2, run("p", "m", "global")), " ", seen) end'
    assert await said(serve, conf(code)) == ["1 nil", "2 nil"]


async def test_calls_beyond_the_vms_are_refused(
    serve: Callable[..., Any], conf: Callable[..., Any], fifo: str
) -> None:
    code = f"""
        local threads = {{}}
        for i = 1, 3 do
            threads[i] = ngx.thread.spawn(run, "p", "m", "hold", "{fifo}")
        end
        for i = 1, 2 do
            local _, first, err = ngx.thread.wait(unpack(threads))
            ngx.say(first, " ", err)
            for i, th in ipairs(threads) do
                if coroutine.status(th) == "dead" then table.remove(threads, i) break end
            end
        end
        tp.run("default", function(path) local f = io.open(path, "w") f:write("\\n") f:close() end, "{fifo}")
        ngx.say(select(3, ngx.thread.wait(threads[1])))
    """
    lines = await said(serve, conf(code, http="lua_worker_thread_vm_pool_size 1;"))
    assert lines == ["false no available Lua vm"] * 2 + ["released"]


async def test_not_where_nothing_can_wait(
    serve: Callable[..., Any], conf: Callable[..., Any]
) -> None:
    config = conf("", http="log_by_lua_block { ngx.run_worker_thread('p', 'm', 'hello') }")
    async with serve(config) as running:
        client = await running.connect()
        await client.get("/")
        assert "API disabled in the context of log_by_lua*" in running.log.text(4)


async def test_log_lines_of_threads(serve: Callable[..., Any], conf: Callable[..., Any]) -> None:
    async with serve(conf('ngx.say(run("p", "m", "log"))')) as running:
        client = await running.connect()
        await client.get("/")
        assert '[lua] m.lua:9: from a thread, thread pool: "p"' in running.log.text(4)
