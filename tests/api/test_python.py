"""Python functions that Lua code calls."""

from __future__ import annotations

import decimal
import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
import trio
import trio.testing
from serving import nginx

from trio_lua.config.builder import ConfigBuilder
from trio_lua.config.model import Config
from trio_lua.request.module import Module

Serve = Callable[..., Any]
Clock = trio.testing.MockClock


def content(code: str) -> Config:
    return nginx(f"location / {{ content_by_lua_block {{ {code} }} }}")


async def say(serve: Serve, code: str, function: Callable[..., Any], **options: Any) -> str:
    """What a handler prints, to which the function is ``f``."""
    conf = content(f'local f = require("python.m").f {code}').expose("m.f", function, **options)
    async with serve(conf) as running:
        client = await running.connect()
        status, _, body = await client.get("/")
        assert status == 200, running.log.text(4)
        assert running.log.text(4) == ""
        return str(body.decode()).strip()


async def test_sync_and_async(serve: Serve, autojump_clock: Clock) -> None:
    async def slowly(a: int, b: int) -> int:
        await trio.sleep(5)
        return a + b

    assert await say(serve, "ngx.say(f(1, 2))", lambda a, b: a + b) == "3"
    assert trio.current_time() < 5
    assert await say(serve, "ngx.say(f(1, 2))", slowly) == "3"
    assert await say(serve, "ngx.say(f(2))", functools.partial(slowly, 1)) == "3"

    class Adder:
        async def __call__(self, a: int, b: int) -> int:
            return await slowly(a, b)

    assert await say(serve, "ngx.say(f(1, 2))", Adder()) == "3"
    assert trio.current_time() == pytest.approx(15)


ARGUMENTS: list[tuple[str, tuple[Any, ...]]] = [
    ("", ()),
    ("nil", (None,)),
    ("nil, nil", (None, None)),
    ("true, false", (True, False)),
    ("1, -2.0, 0.5, 2^53, 1/0", (1, -2, 0.5, 2**53, math.inf)),
    ("'x', '', '\\195\\188'", ("x", "", "\u00fc")),
    ("ngx.null", (None,)),
    ("{1, 2, {3}}", ([1, 2, [3]],)),
    ("{}", ({},)),
    ("{a = 1, [2] = 'b', [true] = 0.5}", ({"a": 1, 2: "b", True: 0.5},)),
    ("{[true] = 1}", ({True: 1},)),
    ("{1, ngx.null, 3}", ([1, None, 3],)),
    ("{1, nil, 3}", ({1: 1, 3: 3},)),
]


async def test_arguments(serve: Serve) -> None:
    seen: list[Any] = []

    async def take(*args: Any) -> None:
        seen.append(args)

    code = "".join(f"f({lua}) " for lua, _ in ARGUMENTS)
    assert await say(serve, f"{code} ngx.say(select('#', f()))", take) == "1"
    for args, (_, expected) in zip(seen, ARGUMENTS, strict=False):
        assert args == expected
        assert [type(value) for value in args] == [type(value) for value in expected]


RESULTS: list[tuple[Any, str]] = [
    (None, "nil"),
    ((), ""),
    ((1, None), "1,nil"),
    (True, "true"),
    ("\u00fc", '"\u00fc"'),
    (b"x", '"x"'),
    (bytearray(b"x"), '"x"'),
    (memoryview(b"x"), '"x"'),
    (0.5, "0.5"),
    ([1, [2], (3,)], "[1,[2],[3]]"),
    ([1, None, 3], "[1,null,3]"),
    ({"a": {"b": [True]}}, '{"a":{"b":[true]}}'),
    (MappingProxyType({b"a": None}), '{"a":null}'),
]


async def test_results(serve: Serve) -> None:
    code = """
        local cjson = require "cjson"
        local function show(...)
            local out = {}
            for i = 1, select("#", ...) do
                local v = select(i, ...)
                out[i] = v == nil and "nil" or cjson.encode(v)
            end
            ngx.say(table.concat(out, ","))
        end
        """
    code += "".join(f"show(f({i})) " for i in range(len(RESULTS)))
    said = await say(serve, code, lambda i: RESULTS[i][0])
    assert said.split("\n") == [lua for _, lua in RESULTS]


async def test_bytes(serve: Serve) -> None:
    seen: list[Any] = []
    await say(serve, "f('\\255', {a = 'x'}) ngx.say(1)", lambda *a: seen.append(a), text=False)
    assert seen == [(b"\xff", {b"a": b"x"})]


LOOP: list[Any] = []
LOOP.append(LOOP)


UNFIT_RESULTS: list[tuple[Any, str]] = [
    (object(), "object cannot be passed to Lua"),
    ([decimal.Decimal(1)], "decimal.Decimal cannot be passed to Lua"),
    ({1, 2}, "set cannot be passed to Lua"),
    (2**60, "the integer 1152921504606846976 is no Lua number"),
    (LOOP, "a value contains itself, or is nested too deeply"),
    ({None: 1}, "None cannot be a key of a Lua table"),
    ({math.nan: 1}, "nan cannot be a key of a Lua table"),
    ("\udc00", "'utf-8' codec can't encode"),
    (print, "builtin_function_or_method cannot be passed to Lua"),
]


async def test_results_that_cannot_cross(serve: Serve) -> None:
    code = "".join(f"ngx.say(select(2, pcall(f, {i}))) " for i in range(len(UNFIT_RESULTS)))
    said = await say(serve, code, lambda i: UNFIT_RESULTS[i][0])
    for line, (_, message) in zip(said.split("\n"), UNFIT_RESULTS, strict=True):
        assert line.startswith(f"python.m.f: bad result: {message}")


UNFIT_ARGUMENTS = [
    ("print", "argument #1: a function cannot be passed to Python"),
    ("1, io.stdout", "argument #2: userdata cannot be passed to Python"),
    ("coroutine.create(function() end)", "argument #1: a coroutine cannot"),
    ("1LL", "argument #1: a C value (cdata) cannot be passed to Python"),
    ("{a = {b = print}}", "argument #1.a.b: a function cannot be passed to Python"),
    ("{[print] = 1}", "argument #1: a function as a key cannot be passed to Python"),
    ("{[{}] = 1}", "argument #1: a table as a key cannot be passed to Python"),
    ("loop", "argument #1: the table contains itself, or is nested too deeply"),
    ("'\\255'", "bad argument #1: a string is not UTF-8"),
    ("{a = {'\\255'}}", "bad argument #1: a string is not UTF-8"),
]


@pytest.mark.parametrize("is_async", [False, True])
async def test_arguments_that_cannot_cross(serve: Serve, is_async: bool) -> None:
    async def async_function(*_args: Any) -> None: ...

    code = "local loop = {} loop.x = loop "
    for argument, _ in UNFIT_ARGUMENTS:
        code += f"ngx.say(select(2, pcall(function() f({argument}) end)))\n"
    said = await say(serve, code, async_function if is_async else lambda *_args: None)
    for number, (line, (_, message)) in enumerate(
        zip(said.split("\n"), UNFIT_ARGUMENTS, strict=True), 1
    ):
        assert line.startswith(f"content_by_lua(nginx.conf:2):{number}: python.m.f: ")
        assert message in line


class Missing(LookupError):
    pass


async def fail(kind: str) -> None:
    await trio.lowlevel.checkpoint()
    raise {"missing": Missing, "key": KeyError, "value": ValueError}[kind](kind)


def fail_at_once(kind: str) -> None:
    raise {"missing": Missing, "key": KeyError, "value": ValueError}[kind](kind)


@pytest.mark.parametrize("function", [fail, fail_at_once])
async def test_declared_errors_are_results(serve: Serve, function: Callable[..., Any]) -> None:
    said = await say(serve, "ngx.say(f('missing'))", function, errors=LookupError)
    assert said == "nilmissing"
    said = await say(serve, "ngx.say(f('value'))", function, errors=(KeyError, ValueError))
    assert said == "nilvalue"

    def silent() -> None:
        raise Missing

    assert await say(serve, "ngx.say(f())", silent, errors=Exception) == "nilMissing"


@pytest.mark.parametrize("function", [fail, fail_at_once])
async def test_other_errors_are_lua_errors(serve: Serve, function: Callable[..., Any]) -> None:
    conf = content("require('python.m').f('value')").expose("m.f", function, errors=KeyError)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[0] == 500
        text = running.log.text(4)
        assert f'python.m.f failed: Traceback (most recent call last):\n  File "{__file__}"' in text
        assert (
            "runtime error: content_by_lua(nginx.conf:2):1: python.m.f: ValueError: value" in text
        )


async def test_wrong_number_of_arguments(serve: Serve) -> None:
    conf = content("ngx.say(select(2, pcall(require('python.m').f)))").expose("m.f", lambda a: a)
    async with serve(conf) as running:
        client = await running.connect()
        body = (await client.get("/"))[2]
        assert b"missing 1 required positional argument: 'a'" in body


async def test_an_async_function_in_disguise(serve: Serve) -> None:
    conf = content("ngx.say(select(2, pcall(require('python.m').f, 'key')))")
    async with serve(conf.expose("m.f", lambda kind: fail(kind))) as running:
        client = await running.connect()
        assert b"async function that cannot be seen to be one" in (await client.get("/"))[2]


async def test_it_ends_with_its_scope(serve: Serve, autojump_clock: Clock) -> None:
    events: list[str] = []

    async def wait() -> None:
        try:
            await trio.sleep(100)
        finally:
            events.append(f"{trio.current_time():.0f}")

    code = """
        local trio = require "trio"
        trio.move_on_after(1, function() f() end)
        local co = ngx.thread.spawn(f)
        ngx.sleep(1)
        ngx.thread.kill(co)
        ngx.thread.spawn(f)
        ngx.sleep(1)
        ngx.say("over")
        ngx.exit(200)
        """
    assert await say(serve, code, wait) == "over"
    assert events == ["1", "2", "3"]


async def test_it_ends_with_the_client(serve: Serve) -> None:
    started, ended = trio.Event(), trio.Event()

    async def wait() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    conf = nginx(
        "lua_check_client_abort on; location / { content_by_lua_block { require('python.m').f() } }"
    ).expose("m.f", wait)
    async with serve(conf) as running:
        client = await running.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await started.wait()
        await client.aclose()
        await ended.wait()


async def test_phases(serve: Serve) -> None:
    async def later(x: int) -> int:
        return x

    conf = (
        nginx("""location / {
            set_by_lua_block $x {
                ngx.log(ngx.WARN, select(2, pcall(require("python.m").later, 1)))
                return require("python.m").now(7)
            }
            content_by_lua_block { ngx.say(ngx.var.x) }
        }""")
        .expose("m.now", lambda x: x + 1)
        .expose("m.later", later)
    )
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"8\n"
        assert "API disabled in the context of set_by_lua*" in running.log.text()


async def test_timers_and_threads(serve: Serve, autojump_clock: Clock) -> None:
    seen: list[Any] = []

    async def take(x: Any) -> None:
        await trio.sleep(1)
        seen.append(x)

    code = """
        ngx.timer.at(0, function() f("timer") end)
        local t = {}
        for i = 1, 3 do t[i] = ngx.thread.spawn(f, i) end
        for i = 1, 3 do ngx.thread.wait(t[i]) end
        ngx.say(1)
        """
    await say(serve, code, take)
    assert sorted(seen, key=str) == [1, 2, 3, "timer"]


async def test_nothing_of_python_is_reachable(serve: Serve) -> None:
    code = """
        local db = require "python.m"
        for name, value in pairs(db) do ngx.say(name, " ", type(value), " ", debug.getinfo(value).what) end
        local ok, err = pcall(f, "value")
        ngx.say(type(err), " ", type(f("ok")), " ", python == nil)
        """

    def function(kind: str) -> Any:
        if kind == "value":
            raise ValueError(kind)
        return {"a": [1]}

    conf = content(f"local f = require('python.m').f {code}").expose("m.f", function)
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"f function Lua\nstring table true\n"


async def test_where_functions_come_from(serve: Serve) -> None:
    module = Module("m")

    @module.expose("m.f")
    def one(x: int) -> int:
        return x + 1

    module.expose("a.b.g")(one)
    app = ConfigBuilder(modules=[module])
    app.expose("m.h", lambda: "builder")
    app.http(access_log="off")
    app.server(listen="127.0.0.1:80").location(
        "/",
        content_by_lua="""
            local m = require "python.m"
            ngx.say(m.f(1), " ", m.h(), " ", require("python.a.b").g(2))
        """,
    )
    conf = app.build()
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"2 builder 3\n"
    async with serve(conf.expose("m.f", lambda x: "fake")) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"fake builder 3\n"


@pytest.mark.parametrize("name", ["f", "m.", ".f", "m f.g", "m.f()", "m.1"])
def test_names(name: str) -> None:
    with pytest.raises(ValueError, match=r'is not of the form "module.function"'):
        Config().expose(name, print)


async def test_without_the_code_cache(serve: Serve) -> None:
    conf = nginx("""lua_code_cache off; location / { content_by_lua_block {
        local m = require "python.m"
        ngx.say(m.f(1), m.x)
        m.x = 1
    } }""").expose("m.f", lambda x: x)
    async with serve(conf) as running:
        client = await running.connect()
        for _ in range(2):
            assert (await client.get("/"))[2] == b"1nil\n"


def test_mapping_is_read_only() -> None:
    functions: Mapping[str, Any] = Config().expose("m.f", print).functions
    with pytest.raises(TypeError):
        functions["m.f"] = None  # type: ignore[index]
