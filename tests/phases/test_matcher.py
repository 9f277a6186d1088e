from __future__ import annotations

from typing import Any

import pytest

from trio_lua.config.model import Listen
from trio_lua.errors import ConfigError
from trio_lua.phases.matcher import LocationTable, ServerTable, server_tables


def servers_table(make: Any, *names: tuple[str, ...], default: int | None = None) -> Any:
    servers = [make.server(*group) for group in names]
    chosen = None if default is None else servers[default]
    table = ServerTable(servers, make.regexes(), default=chosen)
    return table, servers


@pytest.mark.parametrize(
    ("host", "index"),
    [
        (b"a.example.com", 1),
        (b"A", 0),
        (b"example.com", 2),
        (b"x.example.com", 2),
        (b"x.y.example.com", 2),
        (b"x.sub.example.com", 3),
        (b"sub.example.com", 2),
        (b"www.example.org", 4),
        (b"www.sub.example.org", 4),
        (b"www", 0),
        (b"mail.sub.org", 5),
        (b"mail.org", 0),
        (b".example.com", 2),
        (b"r1.test", 6),
        (b"r12.test", 6),
        (b"r123.test", 7),
        (b"", 0),
        (b"nothing", 0),
    ],
)
def test_server_name_precedence(make: Any, host: bytes, index: int) -> None:
    table, servers = servers_table(
        make,
        ("first",),
        ("A.example.com",),
        (".example.com",),
        ("*.sub.example.com",),
        ("www.*",),
        ("mail.sub.*",),
        (r"~^r\d\d?\.test$",),
        (r"~^r\d+\.test$",),
    )
    assert servers.index(table.find(host).server) == index


def test_leading_wildcard_beats_longer_trailing_one(make: Any) -> None:
    table, servers = servers_table(make, ("a.b.c.*",), ("*.d",))
    assert table.find(b"a.b.c.d").server is servers[1]


def test_longest_trailing_wildcard(make: Any) -> None:
    table, servers = servers_table(make, ("a.*",), ("a.b.*",))
    assert table.find(b"a.b.c").server is servers[1]
    assert table.find(b"a.c").server is servers[0]
    assert table.find(b"a.b").server is servers[0]


def test_wildcards_beat_regexes_and_exact_beats_wildcards(make: Any) -> None:
    table, servers = servers_table(make, ("~.",), ("*.a",), ("x.a",))
    assert table.find(b"x.a").server is servers[2]
    assert table.find(b"y.a").server is servers[1]
    assert table.find(b"y.b").server is servers[0]


def test_default_server_takes_what_no_name_matches(make: Any) -> None:
    table, servers = servers_table(make, ("a",), ("b",), default=1)
    assert table.find(b"zzz").server is servers[1]


def test_server_without_name_takes_requests_without_host(make: Any) -> None:
    table, servers = servers_table(make, ("a",), ())
    assert table.find(b"").server is servers[1]
    assert table.find(b"b").server is servers[0]


def test_regex_server_name_captures(make: Any) -> None:
    table, servers = servers_table(make, ("a",), (r"~^(?P<user>\w+)\.(com|org)$",))
    match = table.find(b"bob.org")
    assert match.server is servers[1]
    assert match.captures == (b"bob.org", b"bob", b"org")
    assert match.variables == (("user", b"bob"),)


def test_regex_server_name_with_capitals_ignores_case(make: Any) -> None:
    table, servers = servers_table(make, ("a",), ("~^WWW$",))
    assert table.find(b"www").server is servers[1]


def test_hostname(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    table, servers = servers_table(make, ("a",), ("$hostname",))
    assert table.find(b"box").server is servers[1]


@pytest.mark.parametrize(
    ("names", "conflicts"),
    [
        (["a", "a"], ["a"]),
        (["a.b", ".a.b"], [".a.b"]),
        ([".a.b", "a.b"], ["a.b"]),
        ([".a.b", "*.a.b"], ["*.a.b"]),
        (["*.a.b", ".a.b"], [".a.b"]),
        (["w.*", "w.*"], ["w.*"]),
        (["a", "~a", "~a"], []),
    ],
)
def test_earlier_name_wins(make: Any, names: list[str], conflicts: list[str]) -> None:
    table, _ = servers_table(make, *[(name,) for name in names])
    assert table.conflicts == conflicts


@pytest.mark.parametrize("name", ["a..b", "*.*", "a.*.b", "*", "*a.b", "~(", "~"])
def test_bad_server_name(make: Any, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        servers_table(make, (name,))
    assert caught.value.line == 7


def test_server_tables_group_by_address(make: Any) -> None:
    one = Listen("", 80)
    two = Listen("127.0.0.1", 81)
    unix = Listen("", 0, path="/tmp/s")
    first = make.server("a", listens=(one, two))
    second = make.server("b", listens=(Listen("", 80, default_server=True), unix))
    tables = server_tables([first, second], make.regexes())
    assert set(tables) == {("", 80, None), ("127.0.0.1", 81, None), ("", 0, "/tmp/s")}
    assert tables["", 80, None].default is second
    assert tables["", 80, None].find(b"a").server is first
    assert tables["127.0.0.1", 81, None].find(b"b").server is first


@pytest.mark.parametrize(
    ("listens", "message"),
    [
        ([(False,), (False, False)], "a duplicate listen 0.0.0.0:80"),
        ([(True,), (True,)], "a duplicate default server for 0.0.0.0:80"),
    ],
)
def test_bad_listens(make: Any, listens: list[tuple[bool, ...]], message: str) -> None:
    servers = [
        make.server("a", listens=tuple(Listen("", 80, default_server=flag) for flag in flags))
        for flags in listens
    ]
    with pytest.raises(ConfigError, match=message):
        server_tables(servers, make.regexes())


def test_duplicate_unix_listen_names_the_path(make: Any) -> None:
    listen = Listen("", 0, path="/s")
    with pytest.raises(ConfigError, match="a duplicate listen unix:/s"):
        server_tables([make.server("a", listens=(listen, listen))], make.regexes())


def locations_table(make: Any, *locations: Any) -> LocationTable:
    return LocationTable(make.server("a", locations=locations).location, make.regexes())


def chosen(table: LocationTable, uri: bytes) -> str | None:
    location = table.find(uri).location
    return None if location is None else f"{location.kind.value} {location.path}".strip()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (b"/", "= /"),
        (b"/index.html", "/"),
        (b"/documents/document.html", "/documents/"),
        (b"/images/1.gif", "^~ /images/"),
        (b"/documents/1.jpg", r"~* \.(gif|jpg|jpeg)$"),
        (b"/documents/1.JPG", r"~* \.(gif|jpg|jpeg)$"),
    ],
)
def test_example_of_nginx_manual(make: Any, uri: bytes, expected: str) -> None:
    table = locations_table(
        make,
        make.location("= /"),
        make.location("/"),
        make.location("/documents/"),
        make.location("^~ /images/"),
        make.location(r"~* \.(gif|jpg|jpeg)$"),
    )
    assert chosen(table, uri) == expected


def test_no_location(make: Any) -> None:
    table = locations_table(make, make.location("/a"), make.location("~ ^/b$"))
    assert table.find(b"/c").location is None
    assert chosen(table, b"") is None


def test_longest_prefix_among_neighbours(make: Any) -> None:
    paths = ["/", "/a", "/a/b", "/a/b/c", "/a/bb", "/ab", "/b", "/a/b/d"]
    table = locations_table(make, *map(make.location, paths))
    for uri in ["/a/b/cz", "/a/b/", "/a/b/e", "/a/ba", "/a/bbb", "/aa", "/abc", "/zz", "/a/b/d/e"]:
        expected = max((path for path in paths if uri.startswith(path)), key=len)
        assert chosen(table, uri.encode()) == expected


def test_regexes_in_file_order(make: Any) -> None:
    table = locations_table(make, make.location("~ b"), make.location("~ a"))
    assert chosen(table, b"/ab") == "~ b"
    assert chosen(table, b"/a") == "~ a"


def test_exact_and_prefix_of_one_path(make: Any) -> None:
    table = locations_table(make, make.location("/a"), make.location("= /a"))
    assert chosen(table, b"/a") == "= /a"
    assert chosen(table, b"/ab") == "/a"


def test_captures_and_variables(make: Any) -> None:
    table = locations_table(make, make.location("/"), make.location("~ ^/(?P<name>a+)(b)?"))
    match = table.find(b"/aa")
    assert match.captures == (b"/aa", b"aa", None)
    assert match.variables == (("name", b"aa"),)
    assert table.find(b"/b").captures is None


def test_nested_regex_comes_before_outer_ones(make: Any) -> None:
    table = locations_table(
        make,
        make.location("~ x"),
        make.location("/a/", make.location("~ y$"), make.location("/a/b/")),
    )
    assert chosen(table, b"/a/xy") == "~ y$"
    assert chosen(table, b"/a/b/x") == "~ x"
    assert chosen(table, b"/a/b/z") == "/a/b/"
    assert chosen(table, b"/a/z") == "/a/"


def test_final_prefix_stops_outer_regexes_only(make: Any) -> None:
    table = locations_table(
        make,
        make.location("~ ."),
        make.location("^~ /a/", make.location("~ y$"), make.location("/a/b")),
    )
    assert chosen(table, b"/a/y") == "~ y$"
    assert chosen(table, b"/a/b") == "/a/b"
    assert chosen(table, b"/a/c") == "^~ /a/"


def test_final_prefix_nested_in_plain_one_does_not_stop_outer_regexes(make: Any) -> None:
    table = locations_table(
        make,
        make.location("~ z$"),
        make.location("/a/", make.location("^~ /a/b/"), make.location("~ y")),
    )
    assert chosen(table, b"/a/b/yz") == "~ z$"
    assert chosen(table, b"/a/yz") == "~ y"


def test_nested_exact_location_ends_the_search(make: Any) -> None:
    table = locations_table(
        make, make.location("~ ."), make.location("/a", make.location("= /a/b"))
    )
    assert chosen(table, b"/a/b") == "= /a/b"
    assert chosen(table, b"/a/c") == "~ ."


def test_locations_inside_a_regex(make: Any) -> None:
    table = locations_table(
        make,
        make.location(
            "~ ^/(?P<outer>\\w)",
            make.location("~ (?P<inner>\\d)$"),
            make.location("/a/"),
        ),
    )
    match = table.find(b"/a/1")
    assert match.location is not None
    assert match.location.path == "(?P<inner>\\d)$"
    assert match.captures == (b"1", b"1")
    assert match.variables == (("outer", b"a"), ("inner", b"1"))
    prefix = table.find(b"/a/b")
    assert prefix.location is not None
    assert prefix.location.path == "/a/"
    assert prefix.captures == (b"/a", b"a")
    assert chosen(table, b"/b") == "~ ^/(?P<outer>\\w)"


def test_named_locations(make: Any) -> None:
    named = make.location("@fallback")
    table = locations_table(make, make.location("/"), named)
    assert table.named(b"@fallback") is named
    assert table.named(b"fallback") is named
    assert table.named(b"@other") is None
    assert chosen(table, b"@fallback") is None


@pytest.mark.parametrize(
    "paths", [("/a", "/a"), ("/a", "^~ /a"), ("= /a", "= /a"), ("@a", "@a"), ("~ (",)]
)
def test_bad_locations(make: Any, paths: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        locations_table(make, *map(make.location, paths))
    assert (caught.value.file, caught.value.line) == ("nginx.conf", 7)


def test_answers_without_captures_are_remembered(make: Any) -> None:
    regexes = make.regexes()
    locations = [make.location("/"), make.location("~ ^/a")]
    table = LocationTable(make.server("a", locations=locations).location, regexes)
    for _ in range(3):
        assert chosen(table, b"/b") == "/"
    assert regexes.runs == 1
    for _ in range(3):
        assert table.find(b"/a").captures == (b"/a",)
    assert regexes.runs == 4


def test_memory_is_bounded(make: Any) -> None:
    table = locations_table(make, make.location("/"))
    for number in range(5000):
        assert chosen(table, b"/%d" % number) == "/"
    assert chosen(table, b"/" + b"x" * 4000) == "/"
    assert len(table._known) <= 1024
    assert max(map(len, table._known)) <= 256


def test_failing_regex_is_the_callers_business(make: Any) -> None:
    class Limited(make.regexes):  # type: ignore[misc]
        def exec(self, id: int, subject: bytes) -> None:
            raise ValueError("match limit")

    location = make.server("a", locations=[make.location("~ a")]).location
    with pytest.raises(ValueError, match="match limit"):
        LocationTable(location, Limited()).find(b"/a")
