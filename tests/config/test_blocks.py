from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_lua.config.model import Config, If, Location, MatchKind, Server

Http = Callable[[str], Config]
Refused = Callable[[Callable[[str], object], str], str]


def locations(config: Config) -> tuple[Location, ...]:
    return config.http.servers[0].location.locations


def test_values_are_inherited_even_by_what_stands_above(http: Http) -> None:
    config = http(
        """
        server { postpone_output 2; location /a { location /a/b { } } location /c { postpone_output 3; } }
        postpone_output 1; lua_code_cache off; keepalive_timeout 5 6;
        """
    )
    first, second = locations(config)
    assert config.http.settings.postpone_output == 1
    assert first.locations[0].settings.postpone_output == 2
    assert second.settings.postpone_output == 3
    assert second.settings.lua_code_cache is False
    assert (second.settings.keepalive_timeout, second.settings.keepalive_header) == (5.0, 6)
    # What adds nothing shares its settings with what is around it.
    assert first.settings is config.http.servers[0].location.settings


def test_lists_are_replaced_as_a_whole(http: Http) -> None:
    config = http(
        """
        add_header A 1; add_header B 2; error_page 404 /x; index a b; allow all; access_log /l;
        server {
            location /a { add_header C 3 always; error_page 500 /y; index c; deny all; access_log /m; }
            location /b { }
        }
        """
    )
    first, second = (location.settings for location in locations(config))
    assert [header.name for header in first.add_headers] == ["C"]
    assert [header.name for header in second.add_headers] == ["A", "B"]
    assert [page.codes for page in first.error_pages] == [(500,)]
    assert [page.codes for page in second.error_pages] == [(404,)]
    assert [text.raw for text in first.index] == ["c"]
    assert [text.raw for text in second.index] == ["a", "b"]
    assert first.access_rules == ((False, "all"),)
    assert second.access_rules == ((True, "all"),)
    assert [log.path.raw for log in first.access_logs] == ["/m"]
    assert [log.path.raw for log in second.access_logs] == ["/l"]


def test_the_access_log_that_nobody_asked_for(http: Http) -> None:
    [log] = http("server { }").http.settings.access_logs
    assert (log.path.raw, log.format) == ("logs/access.log", "combined")
    settings = http("access_log off; server { location / { access_log /x; access_log off; } }").http
    assert settings.settings.access_logs == ()
    assert settings.servers[0].location.locations[0].settings.access_logs == ()


def test_lua_handlers(http: Http) -> None:
    config = http(
        """
        server_rewrite_by_lua_block { a } access_by_lua_block { a } log_by_lua 'a';
        server {
            rewrite_by_lua_file a.lua;
            location /a { access_by_lua_block { b } content_by_lua_block { c } location /a/b { } }
        }
        server { listen 81; server_rewrite_by_lua_file b.lua; }
        """
    )
    [first] = locations(config)
    settings = first.settings
    codes = [settings.server_rewrite_by_lua, settings.access_by_lua, settings.log_by_lua]
    assert [code and code.code for code in codes] == [" a ", " b ", "a"]
    assert settings.rewrite_by_lua is not None
    assert first.content is not None
    [inner] = first.locations
    assert inner.content is None
    assert inner.settings is first.settings
    second = config.http.servers[1].location.settings.server_rewrite_by_lua
    assert second is not None
    assert second.path is not None
    assert second.path.raw == "b.lua"


def test_an_if_has_its_location_s_handler_but_not_its_instructions(http: Http) -> None:
    config = http(
        """
        server { location /a {
            internal; set $x 1; content_by_lua_block { a }
            if ($x) { add_header A 1; set $y 2; }
            if ($y) { content_by_lua_block { b } }
            location /a/b { }
        } }
        """
    )
    [outer] = locations(config)
    _, first, second = outer.rewrite
    assert isinstance(first, If)
    assert isinstance(second, If)
    assert (first.location.kind, first.location.path) == (MatchKind.IF, "/a")
    assert first.location.content is outer.content
    assert first.location.internal
    assert len(first.location.rewrite) == 1
    assert second.location.content is not None
    assert second.location.content.code == " b "
    [inner] = outer.locations
    assert inner.internal
    assert inner.rewrite == ()


def test_server_values_may_stand_in_http(http: Http) -> None:
    config = http(
        """
        client_header_timeout 1s; underscores_in_headers on; large_client_header_buffers 2 1k;
        server { client_header_timeout 2s; merge_slashes off; ignore_invalid_headers off; }
        server { listen 81; client_header_buffer_size 2k; }
        """
    )
    first, second = config.http.servers
    assert (first.client_header_timeout, second.client_header_timeout) == (2.0, 1.0)
    assert first.underscores_in_headers
    assert second.underscores_in_headers
    assert second.large_client_header_buffers == (2, 1024)
    assert (first.merge_slashes, first.ignore_invalid_headers) == (False, False)
    assert (second.merge_slashes, second.client_header_buffer_size) == (True, 2048)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("location /a { }\nlocation /a { }", 'duplicate location "/a" in nginx.conf:4'),
        ("location /a { } location ^~ /a { }", 'duplicate location "/a" in nginx.conf:3'),
        ("location = /a { } location =/a { }", 'duplicate location "/a" in nginx.conf:3'),
    ],
)
def test_duplicate_locations(
    server: Callable[[str], Server], refused: Refused, text: str, message: str
) -> None:
    assert refused(server, text) == message


def test_locations_that_only_look_like_duplicates(server: Callable[[str], Server]) -> None:
    text = "location /a { } location = /a { } location ~ /a { } location ~ /a { } location @a { } location @a { }"
    assert len(server(text).location.locations) == 6


def test_a_variable_set_in_one_server_exists_in_all(http: Http, refused: Refused) -> None:
    config = http(
        "server { location / { return 200 $MINE; } } server { listen 81; set $mine 1; }"
        "server { listen 82; location ~ ^/(?<part>x) { set_by_lua $made 'return 1'; } }"
    )
    assert config.http.variables == {"mine", "made"}
    assert config.http.groups == {"part"}
    assert refused(http, "log_format x\n$nobodys;") == 'unknown "nobodys" variable in nginx.conf:3'


@pytest.mark.parametrize(
    ("first", "second", "conflicts"),
    [
        ("", "", [""]),
        ("server_name a;", "server_name b A;", ["a"]),
        ("server_name .a;", "server_name *.a;", ["*.a"]),
        ("server_name a *.b;", "server_name c *.d ~x;", []),
        ("server_name ~x;", "server_name ~x;", []),
    ],
)
def test_names_that_two_servers_have(
    http: Http, first: str, second: str, conflicts: list[str]
) -> None:
    config = http(f"server {{ listen 81; {first} }} server {{ listen *:81; {second} }}")
    assert list(config.warnings) == [
        f'[warn] conflicting server name "{name}" on 0.0.0.0:81, ignored' for name in conflicts
    ]


@pytest.mark.parametrize("name", ["a.*.b", "*.*.a", "a..b"])
def test_names_that_can_match_nothing(http: Http, refused: Refused, name: str) -> None:
    text = f"server {{ listen 81; server_name x; }}\nserver {{ listen 81; server_name {name}; }}"
    message = f'invalid server name or wildcard "{name}" on 0.0.0.0:81 in nginx.conf:3'
    assert refused(http, text) == message


def test_log_formats(http: Http) -> None:
    formats = http("log_format x escape=json '$uri' \" $status\";").http.log_formats
    assert (formats["x"].template.raw, formats["x"].escape) == ("$uri $status", "json")
    assert formats["combined"].template.raw.startswith("$remote_addr - $remote_user [")
