"""A directive module of a program's own: every kind of hook, in Python and in Lua."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_lua.config.builder import ConfigBuilder
from trio_lua.config.directives import Context, Use, default_table, takes
from trio_lua.config.nginx import load, loads
from trio_lua.errors import ConfigError
from trio_lua.modules import BUNDLED, Exchange, Module

Site = Callable[..., Any]

ANYWHERE = Context.SETTING_IF


@pytest.fixture
def module() -> Module:
    """A module with a directive for each kind of hook; their argument is the setting."""
    module = Module("mine")
    for name in ("mine_rewrite", "mine_access", "mine_header", "mine_body", "mine_list"):

        @module.directive(name, ANYWHERE, takes(1))
        def setter(use: Use) -> None:
            if use.name == "mine_list":
                use.append_setting(use.name, use.args[0])
            else:
                use.put_setting(use.name, use.template(0))

    @module.directive("mine_content", Context.LOCATION, takes(1))
    def content(use: Use) -> None:
        use.set_content(use.name, use.template(0))

    return module


async def test_content(site: Site, module: Module) -> None:
    @module.content("mine_content")
    async def content(request: Exchange, value: Any) -> int | None:
        text = request.evaluate(value)
        if text.isdigit():
            return int(text)
        await trio.lowlevel.checkpoint()
        body = await request.read_body()
        request.set_header(b"X-Method", request.method)
        await request.send(text)
        await request.send(b"|%s" % (body or b""), last=True)
        return None

    async with site(
        "location / { mine_content $arg_x; } location /page.html { mine_content hi; }",
        http="types { text/html html; } error_page 503 /page.html;",
        modules=[module],
    ) as running:
        status, headers, body = await running.get("/?x=hello")
        assert (status, body, headers["x-method"]) == (200, "hello|", "GET")
        assert headers["content-type"] == "text/plain"
        assert await running.post("/?x=a", "body") == "a|body"
        assert (await running.get("/?x=404"))[0] == 404
        status, headers, body = await running.get("/?x=503")
        assert (status, body, headers["content-type"]) == (503, "hi|", "text/html")


async def test_a_body_that_is_too_large(site: Site, module: Module, tmp_path: Path) -> None:
    seen = []

    @module.content("mine_content")
    async def content(request: Exchange, _value: Any) -> None:
        seen.append(await request.read_body())

    async with site(
        "location / { mine_content x; client_body_buffer_size 2; }",
        modules=[module],
        prefix=f"{tmp_path}/",
    ) as running:
        await running.post("/", "abc")
        await running.post("/", "ab")
    assert seen == [None, b"ab"]


async def test_rewrite_and_access(site: Site, module: Module) -> None:
    @module.rewrite("mine_rewrite")
    async def rewrite(request: Exchange, value: Any) -> int | None:
        request.set_request_header(b"X-Rewritten", request.evaluate(value))
        return 410 if request.args == b"gone" else None

    @module.access("mine_access")
    async def access(request: Exchange, value: Any) -> int | None:
        return None if request.header(b"x-password") == request.evaluate(value) else 401

    async with site(
        """mine_rewrite $uri; mine_access secret;
        location / { return 200; }
        location /lua { content_by_lua_block { ngx.print(ngx.var.http_x_rewritten) } }
        location /any { satisfy any; allow all; content_by_lua_block { ngx.print("any") } }""",
        modules=[module],
    ) as running:
        assert await running.text("/lua/x", "X-Password: secret") == "/lua/x"
        assert (await running.get("/lua", "X-Password: other"))[0] == 401
        assert (await running.get("/lua?gone", "X-Password: secret"))[0] == 410
        assert await running.text("/any") == "any"


async def test_filters(site: Site, module: Module) -> None:
    @module.header_filter("mine_header")
    def header(request: Exchange, value: Any) -> None:
        request.set_header(b"X-Mine", request.evaluate(value))
        request.clear_headers([b"Content-Length"])

    @module.body_filter("mine_body")
    def body(request: Exchange, value: Any, data: bytes, last: bool) -> bytes:
        return data.upper() + (request.evaluate(value) if last else b"")

    async with site(
        """location / { mine_header "$uri $sent_http_x_lua"; mine_body end; add_header X-Lua never;
          location /lua { content_by_lua_block { ngx.say("a") ngx.flush() ngx.say("b") }
                          header_filter_by_lua_block { ngx.header.saw = ngx.header.x_mine }
                          body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:rep(2) } }
          location /return { return 404 text; } }
        location /plain { content_by_lua_block { ngx.print("plain") } }""",
        modules=[module],
    ) as running:
        status, headers, text = await running.get("/return")
        assert (status, headers["x-mine"], text) == (404, "/return", "TEXTend")
        _status, headers, text = await running.get("/lua")
        assert (headers["saw"], text) == ("/lua", "A\nA\nB\nB\nend")
        _status, headers, text = await running.get("/plain")
        assert "x-mine" not in headers
        assert text == "plain"


async def test_set_functions_and_variables(site: Site, module: Module) -> None:
    @module.set_function("mine_join", 2)
    def join(_request: Exchange, first: bytes, second: bytes) -> bytes:
        return first + b"+" + second

    @module.set_function("mine_upper")
    def upper(_request: Exchange | None, text: bytes) -> bytes | None:
        return None if text == b"fail" else text.upper()

    @module.set_function("mine_broken")
    def broken(_request: Exchange | None, text: bytes) -> bytes:
        raise ZeroDivisionError

    @module.variable("mine_uri")
    def uri(request: Exchange) -> bytes:
        return request.uri[1:]

    @module.variable("mine_broken_variable")
    def no_value(request: Exchange) -> bytes:
        raise ZeroDivisionError

    async with site(
        """location / { mine_join $x a $mine_uri; mine_upper $x; return 200 "$x"; }
        location /lua { content_by_lua_block {
            ngx.print(ndk.set_var.mine_upper("a"), ngx.var.mine_uri, ngx.var.mine_broken_variable) } }
        location /fail { mine_upper $x fail; return 200; }
        location /broken { mine_broken $x a; return 200; }""",
        modules=[module],
    ) as running:
        assert await running.text("/path") == "A+PATH"
        assert await running.text("/lua") == "Aluanil"
        assert "mine_broken_variable failed: Traceback" in running.log.text(4)
        assert (await running.get("/fail"))[0] == 500
        assert (await running.get("/broken"))[0] == 500
        assert "mine_broken failed: Traceback" in running.log.text(4)


async def test_exceptions(site: Site, module: Module) -> None:
    @module.content("mine_content")
    @module.rewrite("mine_rewrite")
    async def fail(request: Exchange, value: Any) -> None:
        raise ZeroDivisionError

    @module.header_filter("mine_header")
    @module.body_filter("mine_body")
    def filter(*_args: object) -> bytes:
        raise ZeroDivisionError

    async with site(
        """location /content { mine_content x; } location /rewrite { mine_rewrite x; }
        location /header { mine_header x; return 200; } location /body { mine_body x; return 200 x; }""",
        modules=[module],
    ) as running:
        assert (await running.get("/content"))[0] == 500
        assert (await running.get("/rewrite"))[0] == 500
        for path in ("/header", "/body"):
            client = await running.connect()
            await client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert not (await client.rest()).endswith(b"0\r\n\r\n")
        assert running.log.text(4).count("raise ZeroDivisionError") == 4


async def test_resources(site: Site, module: Module) -> None:
    events = []

    @module.worker_resource
    @contextlib.asynccontextmanager
    async def counter(config: Any) -> AsyncIterator[list[int]]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            events.append("open")
            try:
                yield [0]
            finally:
                events.append("closed")
                nursery.cancel_scope.cancel()

    @module.content("mine_content")
    async def count(request: Exchange, value: Any) -> None:
        number = request.resource("mine")
        number[0] += 1
        await request.send(b"%d" % number[0], last=True)

    async with site("location / { mine_content x; }", modules=[module]) as running:
        assert [await running.text("/") for _ in range(2)] == ["1", "2"]
        assert events == ["open"]
    assert events == ["open", "closed"]


async def test_merging(site: Site, module: Module) -> None:
    @module.merge("mine_list")
    def merge(outer: tuple[str, ...], inner: tuple[str, ...]) -> tuple[str, ...]:
        return outer + inner

    @module.header_filter("mine_list")
    def show(request: Exchange, value: tuple[str, ...]) -> None:
        assert request.setting("mine_list") is value
        request.set_header(b"X-List", " ".join(value).encode())

    async with site(
        """mine_list server; location / { mine_list a; mine_list b; return 200; }
        location /if { mine_list a; if ($args) { mine_list if; return 200; } return 200; }
        location /none { return 200; }""",
        http="mine_list http;",
        modules=[module],
    ) as running:
        for target, expected in {
            "/": "http server a b",
            "/if": "http server a",
            "/if?x": "http server a if",
            "/none": "http server",
        }.items():
            assert (await running.get(target))[1]["x-list"] == expected


LUA = """
local rt = ...
rt.hook("content", "mine_content", function(r, value)
    rt.ngx.sleep(0)
    rt.ngx.print(rt.text(r, value.text), value.number, value.flag and "yes" or "no",
        value.several[2], value.set.b and "b" or "", rt.py.mine_call("x"))
end)
rt.hook("header_filter", "mine_header", function(r, value)
    rt.set_response_header(r, "X-Mine", rt.text(r, value), true)
end)
rt.hook("body_filter", "mine_body", function(r, value, data, last)
    return data .. (last and value or "")
end)
rt.hook("rewrite", "mine_rewrite", function(r, value)
    rt.set_request_header(r, "X-Mine", rt.text(r, value), true)
end)
rt.hook("access", "mine_access", function(r, value)
    rt.ngx.exit(value == r.args and 0 or 403)
end)
rt.define_variable("mine_variable", function(r) return "<" .. r.uri .. ">" end)
"""


async def test_a_lua_half(site: Site, module: Module, tmp_path: Path) -> None:
    module.lua = tmp_path / "mine.lua"
    module.lua.write_text(LUA)
    module.calls["mine_call"] = lambda text: text * 2
    module.lua_variables("mine_variable")

    @module.directive("mine_lua", Context.LOCATION, takes(0))
    def content(use: Use) -> None:
        template = use.build.variables.template("$mine_variable", use.source)
        use.set_content(
            "mine_content",
            {"text": template, "number": 1, "flag": True, "several": ["x", "y"], "set": {"b"},
             "other": object()},
        )  # fmt: skip

    async with site(
        """mine_access a=1;
        location / { mine_lua; mine_header $uri; mine_body end; }
        location /in { mine_rewrite $uri; content_by_lua_block { ngx.print(ngx.var.http_x_mine) } }""",
        modules=[module],
    ) as running:
        _status, headers, text = await running.get("/path?a=1")
        assert (headers["x-mine"], text) == ("/path", "</path>1yesybxxend")
        assert await running.text("/in?a=1") == "/in"
        assert (await running.get("/in"))[0] == 403


async def test_others_pay_nothing(site: Site) -> None:
    async with site(
        """location /plain { content_by_lua_block { ngx.say(1) } }
        location /other { more_set_input_headers 'A: 1'; more_set_headers 'A: 1'; echo x; }"""
    ) as running:
        [server] = running.server._worker.plans.servers.values()
        plain, other = (server.plans[id(x)] for x in server.server.location.locations)
        assert not plain.rewrite_hooks
        assert not plain.access_hooks
        assert plain.module_content is None
        assert other.rewrite_hooks
        assert other.module_content.name == b"echo"


# ---------------------------------------------------------------- configuration


CONF = "events {} http { server { location / { mine_content x; } } }"


def test_it_comes_along_with_the_configuration(module: Module, tmp_path: Path) -> None:
    assert loads(CONF, modules=[module]).modules == (module,)
    table = default_table().copy()
    table.extend(module)
    assert loads(CONF, table=table, modules=[module]).modules == (module,)
    conf = tmp_path / "nginx.conf"
    conf.write_text(CONF)
    assert load(conf, modules=[*BUNDLED, module]).modules == (*BUNDLED, module)
    app = ConfigBuilder(modules=[module])
    app.server().location("/", mine_content="x")
    [location] = app.build().http.servers[0].location.locations
    assert list(location.handlers) == ["mine_content"]
    with pytest.raises(ConfigError, match="unknown directive"):
        loads(CONF)


def test_names_are_taken(module: Module) -> None:
    module.directive("root", Context.LOCATION, takes(1))(lambda use: None)
    with pytest.raises(ValueError, match='directive "root" is already registered'):
        loads(CONF, modules=[module])


def test_the_configuration_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "mine_for_tests.py").write_text(
        "from trio_lua.config.directives import Context, takes\n"
        "from trio_lua.modules import Module\n"
        "MODULE = OTHER = Module('mine')\n"
        "@MODULE.directive('mine_content', Context.LOCATION, takes(1))\n"
        "def _content(use): use.set_content('mine_content', use.args[0])\n"
        "MODULE.lua_variables('mine', 'mine_x_*')\n"
    )
    conf = tmp_path / "nginx.conf"
    path = list(sys.path)
    for name in ("mine_for_tests", "mine_for_tests:OTHER"):
        conf.write_text(f"load_module {name}; load_module {name}; load_module x.so; {CONF}")
        [module] = load(conf).modules
        assert module.name == "mine"
    conf.write_text(
        "load_module mine_for_tests; events {} http { log_format a '$mine $mine_x_1'; }"
    )
    load(conf)
    assert sys.path == path
    sys.modules.pop("mine_for_tests")


@pytest.mark.parametrize("name", ["no_such_module_of_ours", "json", "json:dumps"])
def test_what_is_no_module(name: str) -> None:
    with pytest.raises(ConfigError, match=f'module "{name}" cannot be loaded'):
        loads(f"load_module {name}; events {{}}")
