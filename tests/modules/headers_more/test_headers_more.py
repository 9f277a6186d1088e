"""The headers-more module, against what nginx with the module of that name answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serving import row

from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError
from trio_lua.modules import BUNDLED

Site = Callable[..., Any]


async def headers(site: Site, directives: str, *lines: str, http: str = "") -> dict[str, str]:
    """The headers of a response of a location with these directives."""
    async with site(f"location / {{ {directives} }}", http=http) as running:
        _status, found, _body = await running.get("/path", *lines)
        return found  # type: ignore[no-any-return]


RESPONSE_HEADERS = [
    ("more_set_headers 'X-A: 1' X-B:2 'X-C : a: b';", {"x-a": "1", "x-b": "2", "x-c": "a: b"}),
    ("more_set_headers 'X-A: $uri $arg_none|';", {"x-a": "/path |"}),
    ("more_set_headers 'X-A: 1'; more_set_headers 'X-A: 2';", {"x-a": "2"}),
    ("more_set_headers 'X-A: 1'; more_clear_headers X-A;", {"x-a": None}),
    ("more_set_headers 'X-A: 1'; more_set_headers 'X-A:';", {"x-a": None}),
    ("more_set_headers 'X-A: 1'; more_set_headers X-A;", {"x-a": None}),
    ("more_set_headers 'X-A: 1'; more_clear_headers 'X-A: 1';", {"x-a": None}),
    ("more_set_headers 'X-A1: 1' 'X-A2: 2' 'X-B: 3'; more_clear_headers X-A*;",
     {"x-a1": None, "x-a2": None, "x-b": "3"}),
    ("more_set_headers 'X-A1: 1' 'X-A2: 2'; more_set_headers 'X-A*: 3';",
     {"x-a1": "3", "x-a2": None}),
    ("more_set_headers 'X-A*: 1';", {"x-a*": "1"}),
    ("more_set_headers 'Server: mine' 'Content-Type: text/css';",
     {"server": "mine", "content-type": "text/css"}),
    ("more_clear_headers Server Date Content-Type;",
     {"server": None, "date": None, "content-type": None}),
    ("more_clear_headers Content-Length;",
     {"content-length": None, "transfer-encoding": "chunked"}),
    ("more_clear_headers Connection Transfer-Encoding;", {"connection": "close"}),
    ("more_set_headers -s 404 'X-A: 1'; more_set_headers -s '200 201' -s 404 'X-B: 1';",
     {"x-a": None, "x-b": "1"}),
    ("more_set_headers -t text/html 'X-A: 1'; more_set_headers -t 'a/b;text/plain' 'X-B: 1';",
     {"x-a": None, "x-b": "1"}),
    ("more_set_headers -s '' -t '' 'X-A: 1';", {"x-a": "1"}),
    ("more_set_headers 'Cache-Control: a'; add_header Cache-Control b;", {"cache-control": "a, b"}),
    ("more_set_headers 'X-A: ${cookie_none}';", {"x-a": None}),
    ("more_set_headers 'X-A: $arg_none\r\nX-B: 1';", {"x-a": "%0D%0AX-B: 1", "x-b": None}),
    ("header_filter_by_lua_block { ngx.header.saw = ngx.header.X_A ngx.header.X_A = 'lua' }"
     "more_set_headers 'X-A: more';", {"x-a": "lua", "saw": "more"}),
    ("if ($uri) { more_set_headers 'X-B: if'; } more_set_headers 'X-A: 1' 'X-B: 2';",
     {"x-a": "1", "x-b": "if"}),
]  # fmt: skip


async def test_response_headers(site: Site) -> None:
    servers = (
        f"location / {{ {directives} return 200 body; }}" for directives, _ in RESPONSE_HEADERS
    )
    async with site(*servers) as running:
        for number, (directives, expected) in enumerate(RESPONSE_HEADERS):
            with row(directives):
                _status, found, _body = await running.get("/path", host=f"row{number}")
                assert {name: found.get(name) for name in expected} == expected


async def test_appending(site: Site) -> None:
    async with site("more_set_headers -a 'X-A: 1' 'X-A: 2'; return 200;") as running:
        await running.client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await running.client.rest()).count(b"X-A: ") == 2


async def test_outer_commands_run_first(site: Site) -> None:
    async with site(
        """more_set_headers 'X-A: server' 'X-B: server';
        location / { more_set_headers 'X-A: location'; return 200;
          location /inner { more_clear_headers X-B; return 200; } }
        location /error { return 503; }""",
        http="more_set_headers 'X-A: http' 'X-C: http';",
    ) as running:
        _status, found, _body = await running.get("/")
        assert [found[name] for name in ("x-a", "x-b", "x-c")] == ["location", "server", "http"]
        _status, found, _body = await running.get("/inner")
        assert [found.get(name) for name in ("x-a", "x-b")] == ["location", None]
        status, found, _body = await running.get("/error")
        assert (status, found["x-a"]) == (503, "server")


async def test_lua_clears_server_and_date(site: Site) -> None:
    found = await headers(
        site, "content_by_lua_block { ngx.header.Server = nil ngx.header.Date = nil ngx.say(1) }"
    )
    assert "server" not in found
    assert "date" not in found


REQUEST_HEADERS = [
    ("more_set_input_headers 'X-A: $uri';", (), "X-A=/path"),
    ("more_set_input_headers 'X-A: new';", ("X-A: 1", "X-A: 2"), "X-A=new"),
    ("more_set_input_headers -r 'X-A: new' 'X-B: new';", ("X-B: 1",), "X-B=new"),
    ("more_set_input_headers 'X-A:';", ("X-A: 1",), ""),
    ("more_clear_input_headers X-A;", ("X-A: 1", "X-a: 2", "X-B: 1"), "X-B=1"),
    ("more_clear_input_headers X-H*;", ("X-Ha: 1", "x-hb: 1", "X-B: 1"), "X-B=1"),
    ("more_set_input_headers 'X-H*: 1';", ("X-Ha: 2",), "X-Ha=2"),
    ("more_set_input_headers -t text/plain 'X-A: 1';", (), ""),
    ("more_set_input_headers -t 'a/b text/plain' 'X-A: 1';", ("Content-Type: text/plain",),
     "Content-Type=text/plain X-A=1"),
]  # fmt: skip


async def test_request_headers(site: Site) -> None:
    code = """
        local found = {}
        for name, value in pairs(ngx.req.get_headers(0, true)) do
            if name ~= "Host" and name ~= "Connection" then
                table.insert(found, name .. "=" .. (type(value) == "table" and "several" or value))
            end
        end
        table.sort(found)
        ngx.print(table.concat(found, " "))
    """
    servers = (
        f"location / {{ {directives} content_by_lua_block {{ {code} }} }}"
        for directives, _, _ in REQUEST_HEADERS
    )
    async with site(*servers) as running:
        for number, (directives, lines, seen) in enumerate(REQUEST_HEADERS):
            with row(directives):
                assert await running.text("/path", *lines, host=f"row{number}") == seen


async def test_request_headers_and_what_follows_from_them(site: Site) -> None:
    async with site(
        """location / { more_set_input_headers 'Host: other:80' 'User-Agent: x'; echo $host $http_host
                        $http_user_agent; }
        location /lua { more_set_input_headers 'X-A: more';
                        rewrite_by_lua_block { ngx.req.set_header("X-A", ngx.var.http_x_a .. " lua") }
                        echo $http_x_a; }
        location /jump { more_set_input_headers 'X-A: never'; rewrite ^ /target last; }
        location /target { echo [$http_x_a]; }"""
    ) as running:
        assert await running.text("/") == "other other:80 x\n"
        assert await running.text("/lua") == "more lua\n"
        assert await running.text("/jump") == "[]\n"


@pytest.mark.parametrize(
    ("directives", "message"),
    [
        ("more_set_headers ':';", "more_set_headers: no key found in the header argument: :"),
        ("more_clear_headers '*';", "more_clear_headers: wildcard key too short: *"),
        ("more_set_headers -x 'A: 1';", 'more_set_headers: invalid option name: "-x"'),
        ("more_set_headers -r 'A: 1';", 'more_set_headers: invalid option name: "-r"'),
        ("more_clear_headers -a A;", 'more_clear_headers: invalid option name: "-a"'),
        ("more_set_input_headers -s 200 'A: 1';",
         'more_set_input_headers: invalid option name: "-s"'),
        ("more_set_headers A -s;", "more_set_headers: option -s takes an argument."),
        ("more_set_headers -s 4x4 A;",
         'more_set_headers: invalid digit "x" found in the status code list "4x4"'),
        ("more_set_headers -a 'Server: x';",
         'more_set_headers: can not append builtin headers "Server"'),
        ("more_set_headers;", 'invalid number of arguments in "more_set_headers" directive'),
    ],
)  # fmt: skip
def test_mistakes(directives: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"events {{}} http {{ {directives} }}", modules=BUNDLED)
    assert caught.value.message == message
