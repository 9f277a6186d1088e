"""Scripts without a server."""

from __future__ import annotations

from typing import Any

import pytest
from serving import MemoryLog

from trio_lua.errors import LuaError
from trio_lua.server.script import run_script


async def run(code: str, **options: Any) -> tuple[int, bytes]:
    written: list[bytes] = []
    log = options.pop("error_log", MemoryLog())
    status = await run_script(
        [(code.encode(), "=script")], write=written.append, error_log=log, **options
    )
    return status, b"".join(written)


async def test_output() -> None:
    code = "print(1, nil, true, {'a', 2}) ngx.print('x') ngx.say('y', ngx.null) ngx.flush(true)"
    assert await run(code) == (0, b"1niltruea2\nxynull\n")
    with pytest.raises(LuaError, match=r"script:1: bad argument #1 to 'say' \(string, number"):
        await run("ngx.say(print)")


async def test_arguments_and_name() -> None:
    code = "print(arg[0], ' ', arg[1], ' ', #arg, ' ', select('#', ...), ' ', (select(2, ...)))"
    status, text = await run(code, arguments=("a", "b"), name="hello.lua")
    assert (status, text) == (0, b"hello.lua a 2 2 b\n")


async def test_functions_of_modules() -> None:
    code = "print(ndk.set_var.set_escape_uri(' '), ndk.set_var.set_encode_base32('a'))"
    assert await run(code) == (0, b"%20c4======\n")


async def test_chunks_share_their_globals() -> None:
    written: list[bytes] = []
    chunks = [(b"x = 1", "=one"), (b"print(x)", "=two")]
    assert await run_script(chunks, write=written.append, error_log=MemoryLog()) == 0
    assert written == [b"1\n"]


async def test_libraries_become_globals() -> None:
    assert await run("print(cjson.encode { 1 })", libraries=["cjson"]) == (0, b"[1]\n")
    with pytest.raises(LuaError, match="module 'no_such' not found"):
        await run("", libraries=["no_such"])


async def test_package_path() -> None:
    assert (await run("print(package.path:sub(1, 7))", package_path="/p/?.x;"))[1] == b"/p/?.x;\n"


async def test_sleeps(autojump_clock: Any) -> None:
    code = "local t = ngx.now() ngx.sleep(3600) print(ngx.now() - t >= 3600, ngx.get_phase())"
    assert await run(code) == (0, b"truetimer\n")


@pytest.mark.parametrize(("code", "status"), [(0, 0), (7, 7), (255, 255), (256, 0)])
async def test_exit_status(code: int, status: int) -> None:
    assert await run(f"print(1) ngx.exit({code}) print(2)") == (status, b"1\n")


async def test_nothing_runs_when_something_does_not_compile() -> None:
    written: list[bytes] = []
    chunks = [(b"print(1)", "=one"), (b"x = = 1", "=two")]
    with pytest.raises(LuaError, match=r"two:1: unexpected symbol near '='"):
        await run_script(chunks, write=written.append, error_log=MemoryLog())
    assert written == []


async def test_errors_have_a_traceback() -> None:
    with pytest.raises(LuaError) as caught:
        await run("local function f() error('oops') end\nf()")
    assert caught.value.message == "script:1: oops"
    assert "script:2: in main chunk" in caught.value.traceback


async def test_log_and_request_api() -> None:
    log = MemoryLog()
    await run("ngx.log(ngx.ERR, 'hi')", error_log=log)
    assert log.lines == [(4, "[lua] script:1: hi, context: ngx.timer")]
    with pytest.raises(LuaError, match="API disabled in the current context"):
        await run("ngx.req.get_headers()")


async def test_threads_and_timers(autojump_clock: Any) -> None:
    code = """
        ngx.thread.spawn(function() ngx.sleep(2) print("thread") end)
        ngx.timer.at(1, function() ngx.sleep(5) print("timer") end)
        ngx.timer.at(3, function() print("dropped") end)
        print("main")
        """
    assert await run(code) == (0, b"main\nthread\ntimer\n")
