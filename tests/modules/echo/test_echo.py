"""The echo module, against what nginx with the module of that name answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from serving import row

from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError
from trio_lua.modules import BUNDLED

Site = Callable[..., Any]


PROGRAMS = [
    ("echo;", "\n"),
    ("echo hello world;", "hello world\n"),
    ("echo a; echo b;", "a\nb\n"),
    ("echo -n a b; echo c;", "a bc\n"),
    ("echo -- -n is an option;", "-n is an option\n"),
    ("echo -n -- h;", "h"),
    ("echo -x unknown;", "unknown\n"),
    ("echo - -n;", "- -n\n"),
    ("echo a --;", "a --\n"),
    ('echo "" e;', " e\n"),
    ('echo a "" b;', "a  b\n"),
    ('echo -n "";', ""),
    ("set $option -n; echo $option f;", "-n f\n"),
    ("echo $uri?$args;", "/t?x=1\n"),
    ("echo_duplicate 3 ab;", "ababab"),
    ("echo_duplicate 1_0 c;", "cccccccccc"),
    ('echo_duplicate 0 c; echo_duplicate 2 "";', ""),
    ("echo_foreach_split , 'a,b,,c,'; echo item $echo_it; echo_end; echo [$echo_it];",
     "item a\nitem b\nitem c\n[]\n"),
    ("echo_foreach_split -- -a- cat-a-dog; echo $echo_it; echo_end;", "cat\ndog\n"),
    ("echo_foreach_split , $arg_none; echo never; echo_end; echo done;", "done\n"),
    ("echo_foreach_split , a,b; echo no end $echo_it;", "no end a\n"),
    ("echo_flush; echo x; echo_flush;", "x\n"),
    ("echo $echo_incr $echo_incr;", "1 2\n"),
    ("echo [$echo_response_status]; echo [$echo_response_status];", "[]\n[200]\n"),
    ("echo $echo_request_method $echo_client_request_method $echo_request_uri;",
     "GET GET /t\n"),
    ("echo $echo_cacheable_request_uri;", "/t\n"),
    ("content_by_lua_block { ngx.say(1) } echo last;", "last\n"),
    ("echo first; content_by_lua_block { ngx.say('lua') }", "lua\n"),
    ("set $a miss; if ($arg_x) { set $a hit; echo $a in; } echo $a out;", "hit in\n"),
    ("set $a miss; if ($arg_y) { set $a hit; echo $a in; } echo $a out;", "miss out\n"),
    ("echo out; if ($arg_x) { echo_after_body after; }", "out\nafter\n"),
    ("echo_before_body a; echo_before_body -n b; echo_after_body $uri; echo c;", "a\nbc\n/t\n"),
    ("echo_before_body a; echo_after_body b; return 200 c;", "a\ncb\n"),
    ("echo_before_body a; content_by_lua_block { ngx.say(1) ngx.flush() ngx.say(2) }",
     "a\n1\n2\n"),
    ("echo_after_body z; body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:upper() } echo a;",
     "A\nz\n"),
]  # fmt: skip


async def test_programs(site: Site) -> None:
    async with site(*(f"location /t {{ {program} }}" for program, _ in PROGRAMS)) as running:
        for number, (program, body) in enumerate(PROGRAMS):
            with row(program):
                assert await running.text("/t?x=1", host=f"row{number}") == body


FAILURES = [
    ("echo_duplicate x a;", 500, 'invalid size specified: "x"'),
    ("echo_sleep abc;", 400, 'invalid sleep duration "abc"'),
    ("echo_sleep 1.2345;", 400, 'invalid sleep duration "1.2345"'),
    ("echo_blocking_sleep '';", 400, 'invalid sleep duration ""'),
    ("echo_foreach_split , a; echo_foreach_split , b; echo_end; echo_end;", 500, "Nested"),
    ("echo_foreach_split -- ,;", 500, "at least two arguments"),
    ("echo_abort_parent;", 500, "not supported"),
    ('echo_exec "";', 400, ""),
]


async def test_failures(site: Site) -> None:
    async with site(*(f"location /t {{ {program} }}" for program, _, _ in FAILURES)) as running:
        for number, (program, status, message) in enumerate(FAILURES):
            with row(program):
                running.log.clear()
                found, _headers, _body = await running.get("/t", host=f"row{number}")
                assert found == status
                assert message in running.log.text(4)


@pytest.mark.parametrize(
    "program", ["echo x; echo_end;", "echo x; echo_exec /;", "echo_exec /../a;"]
)
async def test_failures_that_close_the_connection(site: Site, program: str) -> None:
    async with site(f"location /t {{ {program} }}") as running:
        await running.client.send(b"GET /t HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await running.client.rest() == b""


async def test_the_head(site: Site) -> None:
    async with site(
        """location /status { echo_status 404; echo gone; }
        location /page.html { echo hi; }
        location /nothing { echo_reset_timer; }
        location / { echo_status 201; location /inner { echo in; } }""",
        http="types { text/html html; } default_type text/x;",
    ) as running:
        status, headers, body = await running.get("/status")
        assert (status, headers["content-type"], body) == (404, "text/x", "gone\n")
        assert headers["transfer-encoding"] == "chunked"
        assert (await running.get("/page.html"))[1]["content-type"] == "text/html"
        assert await running.text("/nothing") == ""
        assert (await running.get("/inner"))[0] == 201
        await running.client.send(b"HEAD /status HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await running.client.response("HEAD"))[0] == 404


async def test_a_header_filter_asks_for_another_response(site: Site) -> None:
    async with site(
        """error_page 582 = /page;
        location / { echo never; echo_sleep 1; header_filter_by_lua_block { ngx.exit(582) } }
        location /page { echo page; }"""
    ) as running:
        assert await running.text("/") == "page\n"


async def test_http_1_0_is_not_buffered(site: Site) -> None:
    async with site("location / { echo a; }") as running:
        await running.client.send(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = (await running.client.rest()).partition(b"\r\n\r\n")
        assert b"Content-Length" not in head
        assert body == b"a\n"


async def test_the_clients_head_and_body(site: Site, tmp_path: Path) -> None:
    async with site(
        """location /head { echo -n $echo_client_request_headers; }
        location /body { echo [$echo_request_body]; echo_read_request_body; echo [$echo_request_body];
                         echo_request_body; echo [$request_body]; }
        location /large { client_body_buffer_size 4; echo_read_request_body; echo [$echo_request_body];
                          echo_request_body; }""",
        prefix=f"{tmp_path}/",
    ) as running:
        text = await running.text("/head", "X-A: 1")
        assert (
            text == "GET /head HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\nConnection: close\r\n\r\n"
        )
        assert await running.post("/body", "abc") == "[]\n[abc]\nabc[abc]\n"
        assert await running.post("/large", "larger than that") == "[]\nlarger than that"


async def test_sleep_and_timer(site: Site, autojump_clock: object) -> None:
    async with site(
        """location / { echo_sleep 1.5; echo $echo_timer_elapsed; echo_reset_timer;
                        echo_blocking_sleep 0.25; echo $echo_timer_elapsed; }"""
    ) as running:
        assert await running.text("/") == "1.500\n0.250\n"


async def test_exec(site: Site) -> None:
    async with site(
        """location = /path { echo_exec /args; }
        location = /query { echo_exec /args?a=1; }
        location = /both { echo_exec /args?a=1 b=2; }
        location = /named { echo_exec @named c=3; }
        location /args { echo $uri $args; }
        location @named { echo named $echo_request_uri; }"""
    ) as running:
        assert await running.text("/path?x=1") == "/args \n"
        assert await running.text("/query") == "/args a=1\n"
        assert await running.text("/both") == "/args b=2\n"
        assert await running.text("/named") == "named /named\n"
        assert "querystring c=3 ignored when exec'ing named location @named" in running.log.text(5)


async def test_output_around_any_body(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("file")
    async with site(
        f"""root {tmp_path};
        location / {{ echo_before_body before; echo_after_body after; location /in {{ return 404; }} }}"""
    ) as running:
        status, headers, body = await running.get("/file")
        assert (status, body) == (200, "before\nfileafter\n")
        assert "content-length" not in headers
        assert "accept-ranges" not in headers
        status, _headers, body = await running.get("/in")
        assert status == 404
        assert body.startswith("before\n<html>")
        assert body.endswith("</html>\r\nafter\n")


@pytest.mark.parametrize(
    ("directives", "message"),
    [
        ("echo_duplicate 1;", 'invalid number of arguments in "echo_duplicate" directive'),
        ("echo_status x;", '"echo_status" directive invalid number'),
        ("echo_status 1; echo_status 2;", '"echo_status" directive is duplicate'),
        ("echo_nothing;", 'unknown directive "echo_nothing"'),
        ("echo $nothing;", 'unknown "nothing" variable'),
    ],
)
def test_mistakes(directives: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"events {{}} http {{ server {{ location / {{ {directives} }} }} }}", modules=BUNDLED)
    assert caught.value.message == message


def test_it_is_unknown_unless_asked_for() -> None:
    with pytest.raises(ConfigError) as caught:
        loads("events {} http { server { location / { echo x; } } }")
    assert caught.value.hint == "this is a directive of the echo module, which is not loaded"


async def test_subrequests_in_series(site: Site) -> None:
    async with site(
        """location / { echo main $echo_incr; echo_location /sub a=1; echo_location /sub?b=2;
                        echo after $echo_incr; }
        location /sub { echo sub $args $echo_incr $uri $request_uri $echo_request_uri; }
        location /nested { echo_location /outer; echo end; }
        location /outer { echo before; echo_location /sub; echo after; }
        location /first { echo_location /sub; }
        location /missing { echo a; echo_location /none; echo b; }
        location /none { return 404; }"""
    ) as running:
        assert await running.text("/") == (
            "main 1\nsub a=1 2 /sub / /sub\nsub b=2 3 /sub / /sub\nafter 4\n"
        )
        assert await running.text("/nested") == ("before\nsub  1 /sub /nested /sub\nafter\nend\n")
        assert await running.text("/first") == "sub  1 /sub /first /sub\n"
        body = await running.text("/missing")
        assert body.startswith("a\n<html>")
        assert body.endswith("b\n")


async def test_subrequests_side_by_side(site: Site, autojump_clock: object) -> None:
    async with site(
        """location / { echo_location_async /slow; echo_location_async /quick; echo_location /sub;
                        echo after $echo_timer_elapsed; echo_sleep 1; echo slept $echo_timer_elapsed; }
        location /slow { echo_sleep 2; echo slow $echo_timer_elapsed; }
        location /quick { echo_sleep 1; echo quick $echo_timer_elapsed; }
        location /sub { echo sub; }
        location /count { echo pre $echo_incr; echo_location_async /number; echo_location_async /number;
                          echo post $echo_incr; }
        location /number { echo sub $echo_incr; }"""
    ) as running:
        started = trio.current_time()
        body = await running.text("/")
        assert body == "slow 2.000\nquick 1.000\nsub\nafter 0.000\nslept 1.000\n"
        assert trio.current_time() - started == 2
        assert await running.text("/count") == "pre 1\nsub 3\nsub 4\npost 2\n"


async def test_much_output_behind_a_subrequest(site: Site) -> None:
    async with site(
        """location / { echo_location_async /sub; echo_duplicate 3000000 a; echo_flush;
                        echo_duplicate 2 b; }
        location /sub { echo sub; }"""
    ) as running:
        assert await running.text("/") == "sub\n" + "a" * 3000000 + "bb"


async def test_subrequests_of_any_kind(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    async with site(
        """location / { echo_subrequest POST /sub -q a=1 -b hi; echo_subrequest PUT /sub -f file;
                        echo_subrequest_async GET /sub; echo_subrequest HEAD /sub; }
        location /sub { echo "$echo_request_method $query_string [$echo_request_body] $http_content_length
$request_method $echo_client_request_method"; }""",
        prefix=f"{tmp_path}/",
    ) as running:
        assert await running.text("/") == (
            "POST a=1 [hi] 2\nGET GET\nPUT  [hello] 5\nGET GET\nGET  [] \nGET GET\n"
        )
        assert (await running.post("/", "abc")).endswith("GET  [abc] 3\nPOST POST\n")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("echo_location '';", ""),
        ("echo_location /../a;", ""),
        ("echo_location_async /slow; echo_location '';", ""),
        ("echo_location /t;", "subrequests cycle"),
        ("echo_subrequest GET /slow -x;", "unknown option for echo_subrequest*: -x"),
        ("echo_subrequest GET /slow -f /none;", 'open() "/none" failed'),
    ],
)
async def test_subrequests_that_fail(
    site: Site, program: str, message: str, autojump_clock: object
) -> None:
    async with site(
        f"location /t {{ {program} }} location /slow {{ echo_sleep 1; echo slow; }}"
    ) as running:
        await running.client.send(b"GET /t HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not (await running.client.rest()).endswith(b"0\r\n\r\n")
        assert message in running.log.text(4)
