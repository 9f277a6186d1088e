from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_lua.config.model import Config, Location, MatchKind, Server, TryFiles

Read = Callable[[str], Server]
Refused = Callable[[Callable[[str], object], str], str]


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("/a", MatchKind.PREFIX, "/a"),
        ("= /a", MatchKind.EXACT, "/a"),
        ("=/a", MatchKind.EXACT, "/a"),
        ("^~ /a", MatchKind.PREFIX_FINAL, "/a"),
        ("^~/a", MatchKind.PREFIX_FINAL, "/a"),
        (r"~ \.x$", MatchKind.REGEX, r"\.x$"),
        (r"~\.x$", MatchKind.REGEX, r"\.x$"),
        ("~* 'a{2} b'", MatchKind.REGEX_NOCASE, "a{2} b"),
        ("~*a", MatchKind.REGEX_NOCASE, "a"),
        ("@a", MatchKind.NAMED, "@a"),
        ("'/a b'", MatchKind.PREFIX, "/a b"),
    ],
)
def test_kinds(server: Read, text: str, kind: MatchKind, path: str) -> None:
    [location] = server(f"location {text} {{\n}}").location.locations
    assert (location.kind, location.path) == (kind, path)
    assert location.source.line == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("location ! /a { }", 'invalid location modifier "!" in nginx.conf:3'),
        (
            "location /a { location /b { } }",
            'location "/b" is outside location "/a" in nginx.conf:3',
        ),
        (
            "location = /a { location /a/b { } }",
            'location "/a/b" cannot be inside the exact location "/a" in nginx.conf:3',
        ),
        (
            "location @a { location /b { } }",
            'location "/b" cannot be inside the named location "@a" in nginx.conf:3',
        ),
        (
            "location /a {\nlocation @b { } }",
            'named location "@b" can be on the server level only in nginx.conf:4',
        ),
        ("root a; root b;", '"root" directive is duplicate in nginx.conf:3'),
        (
            "location / { root a; alias b; }",
            '"alias" directive is duplicate, "root" directive was specified earlier in nginx.conf:3',
        ),
        (
            "location @a { alias b; }",
            'the "alias" directive cannot be used inside the named location in nginx.conf:3',
        ),
        (
            "root ${document_root}/x;",
            'the $document_root variable cannot be used in the "root" directive in nginx.conf:3',
        ),
        ("index a '';", 'index "a" in "index" directive is invalid in nginx.conf:3'),
        ("try_files a =x;", 'invalid code "=x" in nginx.conf:3'),
        ("try_files a =1000;", 'invalid code "=1000" in nginx.conf:3'),
        ("try_files a b; try_files a b;", '"try_files" directive is duplicate in nginx.conf:3'),
        ("location / { internal; internal; }", '"internal" directive is duplicate in nginx.conf:3'),
    ],
)
def test_mistakes(server: Read, refused: Refused, text: str, message: str) -> None:
    assert refused(server, text) == message


def test_nesting(server: Read) -> None:
    [outer] = server("location /a { location /a/b { location ~ x { } } }").location.locations
    [middle] = outer.locations
    [inner] = middle.locations
    assert (middle.path, inner.path) == ("/a/b", "x")


def test_files(location: Callable[[str], Location]) -> None:
    found = location(
        "alias /srv/$host; index a /b$uri; try_files $uri $uri/ @c; types { } internal;"
    )
    assert found.alias is not None
    assert found.alias.raw == "/srv/$host"
    assert [text.raw for text in found.settings.index] == ["a", "/b$uri"]
    assert found.try_files is not None
    assert [text.raw for text in found.try_files.files] == ["$uri", "$uri/"]
    assert found.try_files.uri is not None
    assert (found.try_files.uri.raw, found.try_files.code) == ("@c", None)
    assert found.settings.types == {}
    assert found.internal
    last = location("try_files $uri =404;").try_files
    assert last == TryFiles(last.files if last else (), None, 404)


def test_types_may_be_said_twice(http: Callable[[str], Config]) -> None:
    config = http("types { text/html html HTM; }\ntypes {\n text/x htm; }\nindex /a b;")
    assert config.http.settings.types == {"html": "text/html", "htm": "text/x"}
    assert config.warnings == (
        '[warn] duplicate extension "htm", content type: "text/x", '
        'previous content type: "text/html" in nginx.conf:4',
        '[warn] only the last index in "index" directive should be absolute in nginx.conf:5',
    )


def test_limit_except(server: Read, refused: Refused) -> None:
    [location] = server("location / { limit_except get PUT { deny all; } }").location.locations
    limited = location.limit_except
    assert limited is not None
    assert limited.methods == {"GET", "HEAD", "PUT"}
    assert limited.location.settings.access_rules == ((False, "all"),)
    text = refused(server, "location / { limit_except FETCH { } }")
    assert 'invalid method "FETCH"' in text
    text = refused(server, "location / { limit_except GET { root x; } }")
    assert '"root" directive is not allowed here' in text
