"""``ngx.location.capture`` and ``capture_multi``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio.testing
from serving import nginx, nginx_rows, row
from serving import serve as serve_both
from serving import serve_parked as serve

from trio_lua.lua import driver

__all__ = ["serve", "serve_both"]

Serve = Callable[..., Any]

#: /t?s=NAME captures /s/NAME and reports all of the result.
REPORT = """
    location /t { content_by_lua_block {
        local res = ngx.location.capture("/s/" .. ngx.var.arg_s, {
            method = ngx[ngx.var.arg_m or "HTTP_GET"] })
        local names = {}
        for name, value in pairs(res.header) do
            if type(value) == "table" then value = table.concat(value, "+") end
            names[#names + 1] = name .. ":" .. value
        end
        table.sort(names)
        ngx.print(res.status, "|", res.body, "|", res.truncated, "|", table.concat(names, " "))
    } }
    default_type text/plain;
"""


async def fetch(serve: Serve, server: str, path: str = "/t", **options: Any) -> bytes:
    async with serve(nginx(server, **options)) as running:
        client = await running.connect()
        status, _, body = await client.get(path)
        assert status == 200, running.log.text()
        return body  # type: ignore[no-any-return]


async def compare(
    serve: Serve, servers: Iterable[str], rows: Sequence[tuple[str, bytes]], path: str = "/t"
) -> None:
    """Ask the server of each row for its result."""
    async with serve(nginx_rows(servers)) as running:
        client = await running.connect()
        for number, (name, result) in enumerate(rows):
            with row(name):
                status, _, body = await client.get(path, host=f"row{number}")
                assert status == 200, running.log.text()
                assert body == result


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


RESULTS = [
    ("content_by_lua_block { ngx.say('hi') }", b"200|hi\n|false|Content-Type:text/plain"),
    ("content_by_lua_block { }", b"200||false|Content-Type:text/plain"),
    ("content_by_lua_block { ngx.exit(201) }", b"201||false|Content-Type:text/plain"),
    ("content_by_lua_block { ngx.exit(204) }", b"204||true|Content-Type:text/plain"),
    ("content_by_lua_block { ngx.exit(404) }", b"404||true|Content-Type:text/plain"),
    ("content_by_lua_block { ngx.exit(-1) }", b"500||true|Content-Type:text/plain"),
    ("content_by_lua_block { error('x') }", b"500||true|Content-Type:text/plain"),
    (
        "content_by_lua_block { ngx.print('a') error('x') }",
        b"200|a|true|Content-Type:text/plain",
    ),
    (
        "content_by_lua_block { ngx.print('a') ngx.exit(500) }",
        b"200|a|false|Content-Type:text/plain",
    ),
    (
        "content_by_lua_block { ngx.status = 404 ngx.print('a') ngx.exit(404) }",
        b"404|a|false|Content-Type:text/plain",
    ),
    (
        "content_by_lua_block { ngx.print('a') ngx.eof() ngx.print('b') }",
        b"200|a|false|Content-Type:text/plain",
    ),
    (
        "content_by_lua_block { ngx.redirect('/elsewhere') }",
        b"302||true|Content-Type:text/plain Location:/elsewhere",
    ),
    (
        "content_by_lua_block { ngx.exec('/s/text') }",
        b"200|text|false|Content-Length:4 Content-Type:text/plain",
    ),
    (
        "content_by_lua_block { ngx.header.X_a = {'1', '2'} ngx.header['x-B'] = 3 }",
        b"200||false|Content-Type:text/plain X-a:1+2 x-B:3",
    ),
    ("return 404;", b"404||true|Content-Type:text/plain"),
    ("return 404 text;", b"404|text|false|Content-Length:4 Content-Type:text/plain"),
    ("return 301 /other;", b"301||true|Content-Type:text/plain Location:/other"),
    ("internal; return 200 x;", b"200|x|false|Content-Length:1 Content-Type:text/plain"),
    (
        "rewrite_by_lua_block { ngx.exit(403) }",
        b"403||true|Content-Type:text/plain",
    ),
    (
        "deny all; access_by_lua_block { ngx.exit(403) } content_by_lua_block { ngx.print('ok') }",
        b"200|ok|false|Content-Type:text/plain",
    ),
    (
        """header_filter_by_lua_block { ngx.header.Seen = ngx.status ngx.status = 203 }
           body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:upper() }
           content_by_lua_block { ngx.print('hi') }""",
        b"203|HI|false|Content-Type:text/plain Seen:200",
    ),
    (
        "header_filter_by_lua_block { ngx.header.Seen = ngx.status } return 404;",
        b"404||true|Content-Type:text/plain Seen:404",
    ),
    (
        "body_filter_by_lua_block { ngx.arg[2] = false } return 200 x;",
        b"200|x|true|Content-Length:1 Content-Type:text/plain",
    ),
    ("add_header X 1; return 200 x;", b"200|x|false|Content-Length:1 Content-Type:text/plain"),
]


async def test_results(serve: Serve) -> None:
    servers = (
        f"""{REPORT}
        error_page 404 /s/text;
        location = /s/it {{ {handler} }}
        location = /s/text {{ return 200 text; }}
        """
        for handler, _ in RESULTS
    )
    await compare(serve, servers, RESULTS, "/t?s=it")


async def test_nothing_at_the_path(serve: Serve, tmp_path: Path) -> None:
    server = f"root {tmp_path}; {REPORT}"
    for name in ("nothing", "@named"):
        assert await fetch(serve, server, f"/t?s={name}") == b"404||true|Content-Type:text/plain"


async def test_large_static_files_at_once(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 3_000_000)
    server = f"""
        root {tmp_path};
        location = /t {{ content_by_lua_block {{
            local a, b = ngx.location.capture_multi({{ {{ "/a.txt" }}, {{ "/a.txt" }} }})
            ngx.print(#a.body, " ", #b.body, " ", #ngx.location.capture("/a.txt").body)
        }} }}
    """
    assert await fetch(serve, server) == b"3000000 3000000 3000000"


async def test_static_file(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.txt").write_bytes(b"x" * 400_000)
    server = f"root {tmp_path}; etag off; {REPORT}"
    body = await fetch(serve, server, "/t?s=a.txt")
    assert body.startswith(b"200|" + b"x" * 400_000 + b"|false|Content-Length:400000 ")
    assert b" Last-Modified:" in body
    body = await fetch(serve, server, "/t?s=a.txt&m=HTTP_HEAD")
    assert body.startswith(b"200||true|Content-Length:400000 ")


@pytest.mark.parametrize(
    "handler",
    [
        "content_by_lua_block { ngx.exit(444) }",
        "content_by_lua_block { ngx.exit(499) }",
        "content_by_lua_block { ngx.exit(408) }",
        "content_by_lua_block { ngx.print('x') } body_filter_by_lua_block { return ngx.ERROR }",
    ],
)
@pytest.mark.parametrize("wait", ["", "ngx.sleep(0)"])
async def test_what_ends_the_connection(serve_both: Serve, handler: str, wait: str) -> None:
    handler = handler.replace("block {", "block { " + wait, 1)
    conf = nginx(f"""
        location = /t {{ content_by_lua_block {{
            local res = ngx.location.capture_multi({{ {{"/u"}}, {{"/s"}} }})
            ngx.log(ngx.ERR, "went on")
        }} }}
        location = /u {{ content_by_lua_block {{
            ngx.location.capture("/s")
            ngx.log(ngx.ERR, "went on, too")
        }} }}
        location = /s {{ {handler} }}
    """)
    async with serve_both(conf) as running:
        client = await running.connect()
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await client.rest() == b""
        assert "went on" not in running.log.text()


async def test_phases_that_may_capture(serve: Serve) -> None:
    server = """
        location = /sub { content_by_lua_block { ngx.print(ngx.var.arg_n) } }
        location = /t {
            rewrite_by_lua_block { ngx.ctx.seen = ngx.location.capture("/sub?n=1").body }
            access_by_lua_block { ngx.ctx.seen = ngx.ctx.seen .. ngx.location.capture("/sub?n=2").body }
            content_by_lua_block { ngx.print(ngx.ctx.seen .. ngx.location.capture("/sub?n=3").body) }
            log_by_lua_block {
                local ok, err = pcall(ngx.location.capture, "/sub")
                ngx.log(ngx.NOTICE, err)
            }
        }
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        assert (await client.get("/t"))[2] == b"123"
        await client.get("/t")
        assert "API disabled in the context of log_by_lua*" in running.log.text(6)


async def test_server_rewrite_phase(serve: Serve) -> None:
    server = """
        server_rewrite_by_lua_block {
            if not ngx.is_subrequest then ngx.ctx.seen = ngx.location.capture("/sub").body end
        }
        location = /sub { return 200 sub; }
        location = /t { content_by_lua_block { ngx.print(ngx.ctx.seen) } }
    """
    assert await fetch(serve, server) == b"sub"


async def test_what_a_subrequest_is(serve: Serve) -> None:
    server = """
        location /t { content_by_lua_block {
            ngx.ctx.mine = 1
            ngx.print(tostring(ngx.is_subrequest), " ", ngx.location.capture("/s%20b?a=1", {
                args = { b = "2 3" }, method = ngx.HTTP_DELETE }).body, " ", ngx.ctx.mine)
        } }
        location "/s b" { content_by_lua_block {
            ngx.print(tostring(ngx.is_subrequest), " ", ngx.req.get_method(), " ", ngx.var.request_method,
                " ", ngx.var.uri, " ", ngx.var.args, " ", ngx.var.request_uri, " ", tostring(ngx.ctx.mine),
                " ", ngx.req.get_headers()["X-Own"], " ", tostring(ngx.req.is_internal()), " ", ngx.var.http_host)
            ngx.ctx.mine = 2
        } }
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        assert (await client.get("/t?x", "X-Own: yes"))[2] == (
            b"false true DELETE GET /s b a=1&b=2%203 /t?x nil yes true localhost 1"
        )


async def test_ctx_option(serve: Serve) -> None:
    server = """
        location /t { content_by_lua_block {
            local ctx = { n = 1 }
            ngx.location.capture("/sub", { ctx = ctx })
            ngx.print(ctx.n)
        } }
        location /sub { content_by_lua_block { ngx.ctx.n = ngx.ctx.n + 1 } }
    """
    assert await fetch(serve, server) == b"2"


VARIABLES = [
    ("", b"|a;A"),
    ("vars = { v = 'o' }", b"o|a;A"),
    ("copy_all_vars = true", b"a|a;A"),
    ("copy_all_vars = true, vars = { v = 'o' }", b"o|a;A"),
    ("share_all_vars = true", b"a|b;A"),
    ("share_all_vars = true, vars = { V = 'o' }", b"o|b;A"),
    ("vars = { args = 'A2' }", b"|a;A2"),
]


async def test_variables(serve: Serve) -> None:
    servers = (
        f"""
        location /t {{
            set $v a;
            content_by_lua_block {{
                local res = ngx.location.capture("/sub?A", {{ {options} }})
                local before, args = res.body:match("(.*);(.*)")
                ngx.print(before, "|", ngx.var.v, ";", args)
            }}
        }}
        location /sub {{ content_by_lua_block {{
            local before = ngx.var.v
            ngx.var.v = "b"
            ngx.print(before, ";", ngx.var.args)
        }} }}
        """
        for options, _ in VARIABLES
    )
    await compare(serve, servers, VARIABLES)


BODIES = [
    ("", b"GET - nil"),
    ("method = ngx.HTTP_POST", b"POST body 4"),
    ("method = ngx.HTTP_PUT", b"PUT body 4"),
    ("method = ngx.HTTP_OPTIONS", b"OPTIONS - nil"),
    ("always_forward_body = true", b"GET body 4"),
    ("body = 'other'", b"GET other 5"),
    ("body = 12, method = ngx.HTTP_POST", b"POST 12 2"),
    ("body = '', method = ngx.HTTP_POST", b"POST - 0"),
]


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies(serve: Serve, chunked: bool) -> None:
    servers = (
        f"""
        location /t {{ content_by_lua_block {{
            ngx.req.read_body()
            ngx.print(ngx.location.capture("/sub", {{ {options} }}).body)
        }} }}
        location /sub {{ content_by_lua_block {{
            ngx.req.read_body()
            ngx.print(ngx.req.get_method(), " ", ngx.req.get_body_data() or "-", " ",
                tostring(ngx.req.get_headers()["Content-Length"]))
        }} }}
        """
        for options, _ in BODIES
    )
    body = "Content-Length: 4\r\n\r\nbody"
    if chunked:
        body = "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    async with serve(nginx_rows(servers)) as running:
        client = await running.connect()
        for number, (options, result) in enumerate(BODIES):
            with row(options):
                await client.send(f"POST /t HTTP/1.1\r\nHost: row{number}\r\n{body}".encode())
                assert (await client.response())[2] == result


async def test_a_body_in_a_file_is_inherited(serve: Serve, tmp_path: Path) -> None:
    server = """
        client_body_buffer_size 2;
        location /t { content_by_lua_block {
            ngx.req.read_body()
            ngx.location.capture("/replaces", { method = ngx.HTTP_POST })
            ngx.print(ngx.location.capture("/sub", { method = ngx.HTTP_POST }).body)
        } }
        location /replaces { content_by_lua_block { ngx.req.read_body() ngx.req.set_body_data("x") } }
        location /sub { content_by_lua_block {
            local file = io.open(ngx.req.get_body_file())
            ngx.print(file:read("*a"))
            file:close()
        } }
    """
    async with serve(nginx(server, prefix=f"{tmp_path}/")) as running:
        client = await running.connect()
        await client.send(b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        assert (await client.response())[2] == b"body"
    assert not files_below(tmp_path)


async def test_several_at_once(serve: Serve, autojump_clock: trio.testing.MockClock) -> None:
    server = """
        location /t { content_by_lua_block {
            local a, b, c = ngx.location.capture_multi({
                { "/slow?a", { args = "n=3" } }, { "/quick" }, { "/slow?n=1" } })
            ngx.print(a.body, b.body, c.body, " ", table.concat(package.loaded.order or {}, ","))
        } }
        location /slow { content_by_lua_block {
            package.loaded.order = package.loaded.order or {}
            local n = tonumber(ngx.var.arg_n)
            ngx.sleep(n)
            table.insert(package.loaded.order, n)
            ngx.print(n)
        } }
        location /quick { content_by_lua_block { ngx.print(2) } }
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        began = trio.current_time()
        assert (await client.get("/t"))[2] == b"321 1,3"
        assert trio.current_time() - began == 3


async def test_depth(serve: Serve) -> None:
    server = """
        location = /t { content_by_lua_block {
            local n = tonumber(ngx.var.arg_n or 0)
            local ok, res = pcall(ngx.location.capture, "/t?n=" .. n + 1)
            ngx.print(ok and res.body or "fail at " .. n .. ": " .. res)
        } }
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        assert (await client.get("/t"))[2] == b"fail at 51: failed to issue subrequest: -1"
        assert 'lua subrequests cycle while processing "/t", client: ' in running.log.text(4)


MISTAKES = [
    ("capture()", "expecting one or two arguments"),
    ("capture('/../etc')", "unsafe uri in argument #1: /../etc"),
    ("capture('/a', { method = 'GET' })", "Bad http request method"),
    ("capture('/a', { method = 3 })", "failed to adjust the subrequest: -1"),
    ("capture('/a', { body = {} })", "Bad http request body"),
    ("capture('/a', { args = true })", "Bad args option value"),
    ("capture('/a', { vars = 'a' })", "Bad vars option value"),
    (
        "capture('/a', { vars = { a = true } })",
        "attempt to use bad variable value type boolean",
    ),
    ("capture('/a', { vars = { none = 1 } })", "failed to adjust the subrequest: -1"),
    ("capture('/a', { vars = { http_host = 1 } })", "failed to adjust the subrequest: 500"),
    ("capture('/a', { ctx = 1 })", "Bad ctx option value type number, expected a Lua table"),
    ("capture('/a', { copy_all_vars = 1 })", "Bad copy_all_vars option value"),
    (
        "capture('/a', 1)",
        "expecting table as the 2nd argument for subrequest 0, but got number",
    ),
    ("capture_multi()", "only one argument is expected, but got 0"),
    ("capture_multi({})", "at least one subrequest should be specified"),
    ("capture_multi({ {'/a'}, 1 })", "the query argument 1 is not a table, but a number"),
    ("capture_multi({ {} })", "query argument 0 expecting one or two arguments"),
]


async def test_mistakes(serve: Serve) -> None:
    servers = (
        f"""
        location /t {{ content_by_lua_block {{
            local ok, err = pcall(function() return ngx.location.{call} end)
            ngx.print(err)
        }} }}
        """
        for call, _ in MISTAKES
    )
    async with serve(nginx_rows(servers)) as running:
        client = await running.connect()
        for number, (call, error) in enumerate(MISTAKES):
            with row(call):
                _, _, body = await client.get("/t", host=f"row{number}")
                assert body.decode().endswith(error)


async def test_error_log_names_the_subrequest(serve: Serve) -> None:
    server = """
        location /t { content_by_lua_block { ngx.location.capture("/sub") } }
        location /sub { content_by_lua_block { ngx.log(ngx.ERR, "here") } }
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        await client.get("/t")
        assert 'request: "GET /t HTTP/1.1", subrequest: "/sub", host: "localhost"' in (
            running.log.text(4)
        )


@pytest.mark.parametrize(("flag", "lines"), [("on", ["/sub", "/t"]), ("off", ["/t"])])
async def test_log_subrequest(serve: Serve, flag: str, lines: list[str]) -> None:
    server = f"""
        log_subrequest {flag};
        log_by_lua_block {{ ngx.log(ngx.NOTICE, "logged ", ngx.var.uri, ".") }}
        location /t {{ content_by_lua_block {{ ngx.location.capture("/sub") }} }}
        location /sub {{ return 200 x; }}
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        await client.get("/t")
        await client.get("/t")
        logged = [
            text.partition("logged ")[2].partition(".")[0]
            for _, text in running.log.lines
            if "logged " in text
        ]
        assert logged[: len(lines)] == lines


async def test_many_headers_and_small_worker(serve: Serve) -> None:
    """Subrequests are not counted as connections."""
    server = """
        location /t { content_by_lua_block {
            local list = {}
            for i = 1, 20 do list[i] = { "/sub?" .. i } end
            local out = {}
            for i, res in ipairs({ ngx.location.capture_multi(list) }) do out[i] = res.body end
            ngx.print(table.concat(out, ","))
        } }
        location /sub { content_by_lua_block { ngx.sleep(0) ngx.print(ngx.var.args) } }
    """
    expected = ",".join(str(n) for n in range(1, 21)).encode()
    assert await fetch(serve, server) == expected


async def test_what_need_not_wait_needs_no_task(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def yield_detach() -> None:
        raise AssertionError("a task was asked for")

    monkeypatch.setattr(driver, "_yield_detach", yield_detach)
    server = """
        location /t { content_by_lua_block {
            local a, b = ngx.location.capture_multi({ { "/sub" }, { "/nested" } })
            ngx.print(a.body, b.body)
        } }
        location /nested { content_by_lua_block { ngx.print(ngx.location.capture("/sub").body) } }
        location /sub { return 200 x; }
    """
    assert await fetch(serve, server) == b"xx"


async def test_a_client_that_leaves_ends_its_subrequests(
    serve_both: Serve, autojump_clock: trio.testing.MockClock
) -> None:
    server = """
        location /t { content_by_lua_block {
            ngx.location.capture_multi({ {"/end"}, {"/sleep"}, {"/nested"} })
            ngx.log(ngx.NOTICE, "went on")
        } }
        location /end { content_by_lua_block { ngx.sleep(1) ngx.exit(444) } }
        location /nested { content_by_lua_block { ngx.location.capture("/sleep") } }
        location /sleep { content_by_lua_block { ngx.sleep(1000) } }
    """
    async with serve_both(nginx(server)) as running:
        client = await running.connect()
        began = trio.current_time()
        await client.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await client.rest() == b""
        assert trio.current_time() - began == 1
        assert "went on" not in running.log.text(8)


# ------------------------------------------------------------------------ streams


async def test_a_stream_is_read_while_it_is_written(
    serve: Serve, autojump_clock: trio.testing.MockClock
) -> None:
    server = """
        location /t { content_by_lua_block {
            local res = require("ngx.location.stream").capture("/sub", { args = "n=3" })
            ngx.print(res.status, " ", res.header["X-Sub"], " ", tostring(res.truncated), ":")
            for piece in res:pieces() do
                ngx.print(piece, ("@%d "):format(ngx.now() - ngx.req.start_time() + 0.5))
            end
            ngx.print(tostring(res.truncated), " ", tostring(res:read()))
        } }
        location /sub { content_by_lua_block {
            ngx.status, ngx.header["X-Sub"] = 201, "1"
            for i = 1, tonumber(ngx.var.arg_n) do
                ngx.print(i)
                ngx.flush()
                ngx.sleep(1)
            end
        } }
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        assert (await client.get("/t"))[2] == b"201 1 nil:1@0 2@1 3@2 false nil"


async def test_a_stream_waits_for_its_reader(
    serve: Serve, autojump_clock: trio.testing.MockClock
) -> None:
    server = """
        location /t { content_by_lua_block {
            local res = require("ngx.location.stream").capture("/sub")
            ngx.sleep(10)
            local written = package.loaded.written
            local n = 0
            for piece in res:pieces() do n = n + #piece end
            ngx.print(n, " ", written < 3000000, " ", package.loaded.written)
        } }
        location /sub { content_by_lua_block {
            local piece = ("x"):rep(100000)
            for i = 1, 100 do
                ngx.print(piece)
                package.loaded.written = i * #piece
            end
        } }
    """
    assert await fetch(serve, server) == b"10000000 true 10000000"


@pytest.mark.parametrize(
    "end", ["res:close()", "ngx.exit(0)", "error('x')", "ngx.exec('/other')", ""]
)
async def test_a_stream_ends_with_its_reader(
    serve: Serve, autojump_clock: trio.testing.MockClock, end: str
) -> None:
    server = f"""
        location /t {{ content_by_lua_block {{
            local res = require("ngx.location.stream").capture("/sub")
            ngx.ctx.first = res:read()
            {end}
        }} }}
        location /other {{ return 200 other; }}
        location /sub {{ content_by_lua_block {{
            ngx.print("x")
            ngx.flush()
            ngx.sleep(1000)
            ngx.log(ngx.ERR, "went on")
        }} }}
    """
    async with serve(nginx(server)) as running:
        client = await running.connect()
        began = trio.current_time()
        status, _, _body = await client.get("/t")
        assert status == (500 if "error" in end else 200)
        assert trio.current_time() - began < 1000
        assert running.worker.engine.subrequests.count == 0


async def test_a_stream_without_response(serve: Serve) -> None:
    server = """
        location /t { content_by_lua_block {
            local res = require("ngx.location.stream").capture("/sub")
            ngx.print(res.status, " ", tostring(res:read()), " ", tostring(res.truncated))
        } }
        location /sub { return 503; }
    """
    assert await fetch(serve, server) == b"503 nil true"


async def test_one_whose_request_ends_before_it_begins(serve: Serve) -> None:
    conf = nginx("""
        location / { content_by_lua_block {
            ngx.thread.spawn(function() ngx.location.capture("/sub") end)
            error("too early")
        } }
        location /sub { content_by_lua_block { ngx.say(1) } }""")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[0] == 500
        await trio.testing.wait_all_tasks_blocked()
        assert running.worker.runtime.vm.export("live")() == (0, 0)
