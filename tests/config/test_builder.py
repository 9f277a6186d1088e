from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from trio_lua.config.builder import ConfigBuilder, ServerBuilder, from_lua
from trio_lua.config.directives import Context, Use, default_table, takes
from trio_lua.config.model import Config, LuaCode, MatchKind, Source
from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError

THIS = Path(__file__).name


def placeless(value: Any) -> Any:
    """The same without the places where it was written."""
    if isinstance(value, Source):
        return None
    if isinstance(value, LuaCode):
        return (value.directive.removesuffix("_block"), value.code, placeless(value.path))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: placeless(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return tuple(map(placeless, value))
    return value


def test_both_ways_lead_to_the_same_model() -> None:
    app = ConfigBuilder(worker_processes=2, daemon=False, env=["A", "B=1"], prefix="/srv/")
    app.events(worker_connections=100)
    app.http(
        lua_package_path="/lua/?.lua;;",
        types={"text/html": ["html", "htm"], "text/plain": "txt"},
        lua_socket_read_timeout=0.25,
        client_body_timeout=30,
        error_log=None,
    )
    app.http(log_format=("short", "$uri", " $status"))
    server = app.server(
        listen=["127.0.0.1:8000", ("81", "default_server")], server_name=["a", "*.b"]
    )
    server.add("rewrite", "^/old$", "/new", "last")
    a = server.location(
        "/a",
        internal=True,
        lua_need_request_body=True,
        set={"$x": "1", "$y": "$x"},
        error_page=[(404, "/404"), (500, "=200", "@fail")],
        content_by_lua="ngx.say('$x {')",
    )
    a.if_("$x", "=", "a b", return_=(200, "text"), break_=False).add("break")
    a.location("= /a/b", header_filter_by_lua_file=Path("filter.lua"))
    server.location("~* \\.(a b)$", set_by_lua=("$z", "return 1"))
    server.location("@fail").set_options(root="/x", access_log="off")
    expected = loads(
        r"""
        worker_processes 2; daemon off; env A; env B=1; events { worker_connections 100; }
        http {
            lua_package_path "/lua/?.lua;;"; types { text/html html htm; text/plain txt; }
            lua_socket_read_timeout 250ms; client_body_timeout 30; log_format short $uri ' $status';
            server {
                listen 127.0.0.1:8000; listen 81 default_server; server_name a *.b;
                rewrite ^/old$ /new last;
                location /a {
                    internal; lua_need_request_body on; set $x 1; set $y $x; error_page 404 /404;
                    error_page 500 =200 @fail; content_by_lua "ngx.say('$x {')";
                    if ($x = "a b") { return 200 text; break; }
                    location = /a/b { header_filter_by_lua_file filter.lua; }
                }
                location ~* "\.(a b)$" { set_by_lua $z "return 1"; }
                location @fail { root /x; access_log off; }
            }
        }
        """,
        prefix="/srv/",
        file="",
    )
    assert placeless(app.build()) == placeless(expected)


def test_handlers_are_named_after_the_program() -> None:
    app = ConfigBuilder()
    app.server(listen="127.0.0.1:0").location("/", content_by_lua="x")
    code = app.build().http.servers[0].location.locations[0].content
    assert code is not None
    assert code.chunk_name == f"content_by_lua({THIS}:{code.source.line})"
    assert Path(code.source.file).name == THIS


@pytest.mark.parametrize(
    ("directives", "message", "hint"),
    [
        ({"server_nam": "x"}, 'unknown directive "server_nam"', 'did you mean "server_name"?'),
        ({"server_tokens": "x"}, 'invalid value "x"', 'one of "off", "on", "build"'),
        ({"root": object()}, 'invalid value of type "object" in "root" directive', ""),
        ({"postpone_output": -1}, '"postpone_output" directive invalid value', ""),
        ({"send_timeout": -0.5}, '"send_timeout" directive invalid value', ""),
        ({"etag": 1}, 'invalid value "1" in "etag" directive, it must be "on" or "off"', ""),
        ({"return_": ()}, 'invalid number of arguments in "return" directive', "1 to 2 arguments"),
        ({"worker_processes": 1}, '"worker_processes" directive is not allowed here', "main"),
        ({"ssl_trusted": "x"}, '"ssl_trusted" directive is not supported yet', "TLS"),
        ({"server_rewrite_by_lua": ""}, "invalid location config: no runnable Lua code", ""),
        ({"set": {"x": 1}}, 'invalid variable name "x"', ""),
        ({"location": {"/": 1}}, 'invalid number of arguments in "location" directive', ""),
    ],
)
def test_mistakes(directives: dict[str, Any], message: str, hint: str) -> None:
    app = ConfigBuilder()
    with pytest.raises(ConfigError) as caught:  # noqa: PT012 - some at once, some when built
        app.server(**directives)
        app.build()
    assert caught.value.message == message
    assert hint in caught.value.hint
    assert Path(caught.value.file).name == THIS
    assert caught.value.line > 0


def test_own_directives() -> None:
    table = default_table().copy()

    @table.directive("greeting", Context.SERVER, takes(1))
    def greeting(use: Use) -> None:
        use.block.extra["greeting"] = use.args[0]

    app = ConfigBuilder(table=table)
    server: ServerBuilder = app.server(greeting="hi")
    server.location("^~ /a")
    outer = app.build().http.servers[0].location
    assert outer.settings.extra == {"greeting": "hi"}
    assert outer.locations[0].kind is MatchKind.PREFIX_FINAL


def test_an_empty_program_is_a_configuration() -> None:
    assert ConfigBuilder().build() == Config()


def test_a_lua_application() -> None:
    config = from_lua("ngx.say(1)", listen="127.0.0.1:0", lua_code_cache=False)
    [server] = config.http.servers
    [everything] = server.location.locations
    assert (server.listens[0].port, everything.path) == (0, "/")
    assert everything.content is not None
    assert everything.content.code == "ngx.say(1)"
    assert not everything.settings.lua_code_cache
    [first, second] = from_lua(Path("app.lua"), listen=["81", "82"]).http.servers[0].listens
    assert (first.port, second.port) == (81, 82)
