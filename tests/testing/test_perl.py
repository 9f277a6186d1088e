"""Perl literals of data blocks."""

from __future__ import annotations

import re
from typing import Any

import pytest

from trio_lua.testing.blocks import NeedsPerl
from trio_lua.testing.blocks.perl import literal

VARIABLES = {"HtmlDir": "/html", "TEST_PORT": "1984"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\n\x41\x{42}\101\"\\\$"', 'a\nABA"\\$'),
        (r"'a\n\'$x'", "a\\n'$x"),
        ('"$::HtmlDir ${HtmlDir} $ENV{TEST_PORT}"', "/html /html 1984"),
        ('"a" . "b" x 3 . $HtmlDir', "abbb/html"),
        (r'"\1\0\10"', "\1\0\10"),
        ("[1, 'a', # comment\n ['b'],]", ["1", "a", ["b"]]),
        ("q{a{b}c}", "a{b}c"),
        ('qq{"a\\t"}', '"a\t"'),
        ("('a')", "a"),
        ("'a';", "a"),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert literal(text, VARIABLES) == value


def test_patterns() -> None:
    pattern = literal(r"qr/^a\/(b)$/im", VARIABLES)
    assert pattern.pattern == "^a/(b)$"
    assert pattern.flags & re.IGNORECASE
    assert pattern.flags & re.MULTILINE
    assert literal("qr{a}", VARIABLES).search("bab")


@pytest.mark.parametrize(
    "text",
    ["join ','", "my $x = 1; $x", '"@list"', '"$unknown"', '"a', "'a' . [1]", "qr/(/", "[1 2]"],
)
def test_what_is_more_than_a_literal(text: str) -> None:
    with pytest.raises(NeedsPerl):
        literal(text, VARIABLES)
