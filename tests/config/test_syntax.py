from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.config.syntax import COMMAND_LINE, statements, unescape
from trio_lua.errors import ConfigError


def words(text: str) -> list[tuple[str, ...]]:
    return [statement.words for statement in statements(text, "a.conf") if statement.words]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# only a comment", []),
        ("a;", [("a",)]),
        ("a b\tc\r\n  d;", [("a", "b", "c", "d")]),
        ("a#b c; # d\n#e\nf;", [("a#b", "c"), ("f",)]),
        ("a 'b c' \"d;e{}\";", [("a", "b c", "d;e{}")]),
        ("a b'c\"d;", [("a", "b'c\"d")]),
        (r"""a "\"\'\\\t\r\n\a" '\'' \" \;;""", [("a", "\"'\\\t\r\n\\a", "'", '"', r"\;")]),
        ("a '' b;", [("a", "", "b")]),
        ("a ${b}c $d{ }", [("a", "${b}c", "$d")]),
        ("a $x;b{}", [("a", "$x"), ("b",)]),
        ('if ("$a" = "b") {}', [("if", '("$a"', "=", "b", ")")]),
        ("a 'b\n#c\n' d;", [("a", "b\n#c\n", "d")]),
        ('"a" b;', [("a", "b")]),
        ("a b}c}} d} e} ;", [("a", "b}c}}", "d}", "e}")]),
    ],
)
def test_words(text: str, expected: list[tuple[str, ...]]) -> None:
    assert words(text) == expected


def test_a_statement_is_where_it_ends() -> None:
    text = "a\n  b;\nc {\n  d 'x\ny'\n  ;\n}\r\n\ncontent_by_lua_block\n{ x\n }"
    found = [(s.words[:1], s.end, s.source.line) for s in statements(text, "a.conf")]
    assert found == [
        (("a",), ";", 2),
        (("c",), "{", 3),
        (("d",), ";", 6),
        ((), "}", 7),
        (("content_by_lua_block",), "lua", 10),
        ((), "", 11),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", 'unexpected end of file, expecting ";" or "}" in a.conf:1'),
        ("a;\nb c\n\n", 'unexpected end of file, expecting ";" or "}" in a.conf:4'),
        ("a 'b;\n", 'unexpected end of file, expecting ";" or "}" in a.conf:2'),
        ("'", 'unexpected end of file, expecting ";" or "}" in a.conf:1'),
        ("a \\", 'unexpected end of file, expecting ";" or "}" in a.conf:1'),
        ("a;\n;", 'unexpected ";" in a.conf:2'),
        ("{", 'unexpected "{" in a.conf:1'),
        ("a b }", 'unexpected "}" in a.conf:1'),
        ("a 'b'c;", 'unexpected "c" in a.conf:1'),
        ('a "b"}', 'unexpected "}" in a.conf:1'),
        ("content_by_lua 'ngx.say('hi')';", 'unexpected "h" in a.conf:1'),
        (
            "\ncontent_by_lua_block {\n {\n",
            "unexpected end of file, expecting terminating characters for lua code block in a.conf:3",
        ),
        (
            "content_by_lua_block{\n\n}\ncontent_by_lua_block {\n [[",
            'Lua code block missing the closing long bracket "]]", '
            "the inlined Lua code may be too long in a.conf:5",
        ),
        ("content_by_lua_block", 'unexpected end of file, expecting ";" or "}" in a.conf:1'),
        ("content_by_lua_block 'x", 'unexpected end of file, expecting ";" or "}" in a.conf:1'),
        ("content_by_lua_block a }", 'unexpected "}" in a.conf:1'),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(statements(text, "a.conf"))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("daemon", 'unexpected end of parameter, expecting ";" in command line'),
        ("http {", "block directives are not supported in -g option in command line"),
        ("a 'b'c;", 'unexpected "c" in command line'),
    ],
)
def test_mistakes_on_the_command_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(statements(text, COMMAND_LINE))
    assert str(caught.value) == message


def test_a_lua_block_may_have_quoted_words_or_no_block() -> None:
    found = [s for s in statements('set_by_lua_block \'$a\' "b\\"" {x}\nlog_by_lua_block;', "f")]
    assert found[0].words == ("set_by_lua_block", "$a", 'b"')
    assert (found[0].code, found[1].end) == ("x", ";")


@given(st.lists(st.text(max_size=10), min_size=1, max_size=5))
def test_quoted_words_come_out_as_they_went_in(values: list[str]) -> None:
    for quote in "\"'":
        quoted = [
            quote + v.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote for v in values
        ]
        assert words(f"x {' '.join(quoted)};") == [("x", *values)]


@given(st.text(st.sampled_from("ab{};'\"\\$# \n"), max_size=30))
def test_any_text_gives_statements_or_an_error(text: str) -> None:
    try:
        line = list(statements(text, "a.conf"))[-1].source.line
    except ConfigError as error:
        line = error.line
    assert 1 <= line <= text.count("\n") + 1


def test_unescape_reads_pairs_from_the_left() -> None:
    assert unescape(r"\\n\n\x\\") == "\\n\n\\x\\"
