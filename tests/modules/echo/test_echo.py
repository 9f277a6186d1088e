"""The echo module, against what nginx with the module of that name answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError
from trio_lua.modules import BUNDLED

Site = Callable[..., Any]


@pytest.mark.parametrize(
    ("program", "body"),
    [
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
    ],
)  # fmt: skip
async def test_programs(site: Site, program: str, body: str) -> None:
    async with site(f"location /t {{ {program} }}") as running:
        assert await running.text("/t?x=1") == body


@pytest.mark.parametrize(
    ("program", "status", "message"),
    [
        ("echo_duplicate x a;", 500, 'invalid size specified: "x"'),
        ("echo_sleep abc;", 400, 'invalid sleep duration "abc"'),
        ("echo_sleep 1.2345;", 400, 'invalid sleep duration "1.2345"'),
        ("echo_blocking_sleep '';", 400, 'invalid sleep duration ""'),
        ("echo_foreach_split , a; echo_foreach_split , b; echo_end; echo_end;", 500, "Nested"),
        ("echo_foreach_split -- ,;", 500, "at least two arguments"),
        ("echo_abort_parent;", 500, "not supported"),
        ('echo_exec "";', 400, ""),
    ],
)
async def test_failures(site: Site, program: str, status: int, message: str) -> None:
    async with site(f"location /t {{ {program} }}") as running:
        found, _headers, _body = await running.get("/t")
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
        assert text == "GET /head HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\n\r\n"
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
