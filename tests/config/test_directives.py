from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_lua.config.directives import (
    Context,
    Directive,
    DirectiveTable,
    Use,
    default_table,
    takes,
)
from trio_lua.config.model import Config, Expires, Source, Template, Var
from trio_lua.config.nginx import loads
from trio_lua.config.syntax import Statement
from trio_lua.errors import ConfigError


def nothing(use: Use) -> None:
    """Accepts whatever it gets."""


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "contnet_by_lua x;",
            'unknown directive "contnet_by_lua"',
            'did you mean "content_by_lua"?',
        ),
        ("servr { }", 'unknown directive "servr"', 'did you mean "server"?'),
        ("zzz;", 'unknown directive "zzz"', ""),
        ("gzip_static on;", 'unknown directive "gzip_static"', "an nginx module"),
        ("echo hi;", 'unknown directive "echo"', "the echo module"),
        ("more_set_headers a;", 'unknown directive "more_set_headers"', "headers-more"),
        ("return 200;", '"return" directive is not allowed here', 'belongs into "server" or'),
        ("server a { }", 'invalid number of arguments in "server" directive', "no arguments"),
        ("log_format a;", 'invalid number of arguments in "log_format" directive', "at least 2"),
        ("root;", 'invalid number of arguments in "root" directive', "takes 1 argument"),
        (
            "keepalive_timeout 1 2 3;",
            'invalid number of arguments in "keepalive_timeout"',
            "1 to 2",
        ),
        ("root a { }", 'directive "root" is not terminated by ";"', ""),
        ("server;", 'directive "server" has no opening "{"', ""),
        ("init_by_lua_block;", 'directive "init_by_lua_block" has no opening "{"', ""),
        ("etag maybe;", 'invalid value "maybe" in "etag" directive, it must be "on" or "off"', ""),
        ("etag on; etag on;", '"etag" directive is duplicate', ""),
        ("postpone_output x;", '"postpone_output" directive invalid value', ""),
        ("keepalive_requests x;", '"keepalive_requests" directive invalid number', ""),
        ("satisfy some;", 'invalid value "some"', 'one of "all", "any"'),
        ("ssl_conf_command a b;", '"ssl_conf_command" directive is not supported yet', "TLS"),
        ("upstream a { server b; }", '"upstream" directive is not supported yet', "proxying"),
        (
            "proxy_pass http://a;",
            '"proxy_pass" directive is not supported yet',
            "no such way of proxying",
        ),
        (
            "proxy_ssl_verify_by_lua_block { }",
            '"proxy_ssl_verify_by_lua_block" directive',
            "proxying",
        ),
    ],
)
def test_mistakes_have_a_place_and_a_hint(text: str, message: str, hint: str) -> None:
    error = refused(f"events {{}} http {{\n{text}\n}}")
    assert error.message.startswith(message)
    assert str(error) == f"{error.message} in nginx.conf:2"
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)


def test_the_first_mistake_counts() -> None:
    assert "nope" in str(refused("events {} nope; http { ' "))


@pytest.fixture
def table() -> DirectiveTable:
    return default_table().copy()


def test_a_program_adds_its_own_directives(table: DirectiveTable) -> None:
    @table.directive("greeting", Context.SETTING_IF, takes(1, 2))
    def greeting(use: Use) -> None:
        use.block.extra["greeting"] = use.template(0)

    @table.directive("answer", Context.LOCATION, takes(0), form="{")
    def answer(use: Use) -> None:
        use.block.handlers["answer"] = [words for words, _ in use.entries()]  # type: ignore[attr-defined]

    config = loads(
        """events {} http { greeting hello;
        server { location /a { greeting $arg_x; } location /b { answer { a b; c; } if ($uri) { } } } }
        """,
        table=table,
    )
    [server] = config.http.servers
    first, second = server.location.locations
    assert config.http.settings.extra["greeting"].literal == "hello"
    assert first.settings.extra["greeting"].raw == "$arg_x"
    assert second.settings.extra is config.http.settings.extra
    assert second.handlers == {"answer": (("a", "b"), ("c",))}
    [condition] = second.rewrite
    assert condition.location.handlers == second.handlers  # type: ignore[union-attr]
    assert "greeting" not in default_table()


def test_one_name_may_mean_different_things_in_different_blocks(table: DirectiveTable) -> None:
    table.register(Directive("root", Context.EVENTS, takes(0), nothing))
    loads("events { root; } http { root a; }", table=table)
    with pytest.raises(ValueError, match='"root" is already registered'):
        table.register(Directive("root", Context.HTTP, takes(0), nothing))


def test_families(table: DirectiveTable) -> None:
    table.register_family("my_", nothing)
    loads("events { my_x; } my_y a b; http { my_z x; }", table=table.copy())


def test_a_statement_finds_its_row() -> None:
    statement = Statement(("etag", "on"), ";", Source("f", 1))
    assert default_table().find(statement, Context.HTTP).name == "etag"


@pytest.mark.parametrize(
    "directive",
    [
        "lua_code_cache",
        "lua_need_request_body",
        "lua_http10_buffering",
        "lua_check_client_abort",
        "lua_transform_underscores_in_response_headers",
        "lua_use_default_type",
        "lua_socket_log_errors",
        "etag",
        "chunked_transfer_encoding",
        "absolute_redirect",
        "port_in_redirect",
        "server_name_in_redirect",
        "msie_padding",
        "log_not_found",
        "log_subrequest",
        "recursive_error_pages",
        "tcp_nodelay",
        "tcp_nopush",
        "sendfile",
        "reset_timedout_connection",
        "rewrite_log",
        "uninitialized_variable_warn",
        "client_body_in_single_buffer",
    ],
)
def test_switches_are_stored(http: Callable[[str], Config], directive: str) -> None:
    for text, value in (("on", True), ("off", False)):
        assert getattr(http(f"{directive} {text};").http.settings, directive) is value


@pytest.mark.parametrize(
    ("directive", "text", "value"),
    [
        ("lua_socket_connect_timeout", "10ms", 0.01),
        ("lua_socket_send_timeout", "1m", 60.0),
        ("lua_socket_read_timeout", "2", 2.0),
        ("lua_socket_keepalive_timeout", "1h30m", 5400.0),
        ("lua_socket_buffer_size", "8k", 8192),
        ("lua_socket_pool_size", "7", 7),
        ("client_max_body_size", "1g", 1 << 30),
        ("client_body_buffer_size", "2m", 2 << 20),
        ("client_body_timeout", "3s", 3.0),
        ("client_body_in_file_only", "clean", "clean"),
        ("client_body_temp_path", "spool/ 1 2", "spool"),
        ("keepalive_requests", "5", 5),
        ("keepalive_time", "1d", 86400.0),
        ("keepalive_disable", "safari none", ("safari",)),
        ("lingering_close", "always", "always"),
        ("lingering_time", "1", 1.0),
        ("lingering_timeout", "2", 2.0),
        ("send_timeout", "500ms", 0.5),
        ("postpone_output", "0", 0),
        ("default_type", "text/html", "text/html"),
        ("if_modified_since", "before", "before"),
        ("max_ranges", "0", 0),
        ("satisfy", "any", "any"),
        ("server_tokens", "off", False),
        ("server_tokens", "build", True),
        ("charset", "utf-8", Template("utf-8", ("utf-8",))),
        ("charset", "off", None),
        ("charset_types", "TEXT/CSS *", ("text/html", "text/css", "*")),
        ("expires", "modified +1h", Expires(Template("+1h", ("+1h",)), modified=True)),
        ("expires", "$http_x", Expires(Template("$http_x", (Var("http_x"),)))),
        ("expires", "off", None),
        ("gzip", "on", True),
        ("gzip_types", "text/css", ("text/html", "text/css")),
        ("gzip_comp_level", "9", 9),
        ("gzip_min_length", "1k", 1024),
        ("gzip_proxied", "no-cache auth", ("no-cache", "auth")),
        ("gzip_http_version", "1.0", "1.0"),
        ("gzip_disable", "degradation a.b", ("a.b",)),
        ("gzip_vary", "on", True),
        ("gunzip", "on", True),
        ("resolver", "127.0.0.1:53 valid=5s ipv6=off", ("127.0.0.1:53", "valid=5s", "ipv6=off")),
        ("resolver_timeout", "5", 5.0),
    ],
)
def test_settings_are_stored(
    http: Callable[[str], Config], directive: str, text: str, value: object
) -> None:
    assert getattr(http(f"{directive} {text};").http.settings, directive) == value


@pytest.mark.parametrize(
    ("directive", "text", "value"),
    [
        ("lua_package_path", "'/a/?.lua;;'", "/a/?.lua;;"),
        ("lua_package_cpath", "/a/?.so", "/a/?.so"),
        ("lua_shared_globals", "on", True),
        ("lua_regex_cache_max_entries", "5", 5),
        ("lua_regex_match_limit", "6", 6),
        ("lua_max_pending_timers", "7", 7),
        ("lua_max_running_timers", "8", 8),
        ("rewrite_by_lua_no_postpone", "on", True),
        ("access_by_lua_no_postpone", "on", True),
        ("precontent_by_lua_no_postpone", "on", True),
        ("lua_capture_error_log", "32k", 32768),
        ("lua_worker_thread_vm_pool_size", "3", 3),
    ],
)
def test_http_values_are_stored(
    http: Callable[[str], Config], directive: str, text: str, value: object
) -> None:
    assert getattr(http(f"{directive} {text};").http, directive) == value
