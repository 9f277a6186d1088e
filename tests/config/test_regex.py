from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from trio_lua.config import regex
from trio_lua.config.model import Config


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(regex, "_NAMES", ())
    for cached in (regex._library, regex.mistake):
        cached.cache_clear()
    yield
    for cached in (regex._library, regex.mistake):
        cached.cache_clear()


needs_library = pytest.mark.skipif(regex._library() is None, reason="PCRE2 is not installed")


@needs_library
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", 'pcre2_compile() failed: missing closing parenthesis in "a("'),
        ("a)b", 'pcre2_compile() failed: unmatched closing parenthesis in "a)b" at ")b"'),
        ("(?<x>a)(?P=x)[[:alpha:]]\\K", ""),
        ("\udcff", ""),
        ("a\0(?=b)", ""),
    ],
)
def test_patterns(pattern: str, message: str) -> None:
    assert regex.mistake(pattern) == regex.mistake(pattern, True) == message


@needs_library
@pytest.mark.parametrize(
    "text",
    [
        "server { server_name ~(; }",
        "server { location ~ ( { } }",
        "server { location ~* ( { } }",
        "server { rewrite ( /; }",
        "server { if ($uri ~ '(') { } }",
    ],
)
def test_mistakes_have_a_place(
    http: Callable[[str], Config], refused: Callable[[object, str], str], text: str
) -> None:
    assert refused(http, text) == (
        'pcre2_compile() failed: missing closing parenthesis in "(" in nginx.conf:2'
    )


@pytest.mark.usefixtures("without_library")
def test_without_the_library_nothing_is_wrong(http: Callable[[str], Config]) -> None:
    assert regex.mistake("(") == ""
    assert http("server { rewrite '(?<x>(' /; }").http.groups == {"x"}
