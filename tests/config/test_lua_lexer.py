from __future__ import annotations

import crossplane
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.config.lua_lexer import LUA_BLOCKS, LuaBlockError, read_body
from trio_lua.config.syntax import Statement, statements


def body(text: str) -> tuple[str, str]:
    """The block that ``text`` begins with, and what is left."""
    rest = ((char, 1 + text.count("\n", 0, place)) for place, char in enumerate(text))
    code = read_body(rest)
    return code, "".join(char for char, _ in rest)


@pytest.mark.parametrize(
    "code",
    [
        "",
        " ngx.say('hi') ",
        "if x then y = { { } } end",
        "a = '}' b = \"}\"",
        r"a = '\'}' b = " + r'"\"}"',
        r"a = '\\' b = {}",
        "-- it's }\n",
        "--[[ } ]] x()",
        "--[==[ }]] ]=] \n } ]==] x()",
        "--[= } \n",
        "--[\n}".replace("}", ""),
        "x = [[ } ]]",
        "x = [[\\]] y = {}",
        "x = [==[ ]] ]=] } ]==]",
        "x = t[t[1]]",
        "x = a[=\n1]",
        "a - b -c - -d",
        "]] ]==] x",
        "s = 'a\\\n}b'",
        "x = 'a\\z\n  }'",
        'print("é ✓ \udcff")',
    ],
)
def test_the_block_ends_at_its_brace(code: str) -> None:
    assert body(code + "} rest }") == (code, " rest }")


def test_a_quote_without_its_partner_is_no_string() -> None:
    code = " return it's { ok }\n  more()"
    assert body(code + "\n}")[0] == code + "\n"
    # What follows the block on the line of such a quote is read already; blanks do not matter.
    assert body(" it's }  \n")[0] == " it's "
    with pytest.raises(LuaBlockError, match="unfinished string"):
        body(" it's } foo;\n")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "unexpected end of file, expecting terminating characters for lua code block"),
        ("\n\n{ \n x", 3, "unexpected end of file, expecting terminating"),
        ("-- }", 1, "unexpected end of file, expecting terminating"),
        ("\n--[", 1, "unexpected end of file, expecting terminating"),
        ("'}", 1, None),
        ("x\n = [[ }", 2, 'Lua code block missing the closing long bracket "]]", the inlined Lua'),
        (
            "\n\n--[==[ }\n",
            3,
            'Lua code block missing the closing long bracket "]==]", the inlined',
        ),
        ("x = [=[ ]] }\n", 1, 'missing the closing long bracket "]=]"'),
    ],
)
def test_a_block_without_end(text: str, line: int, message: str | None) -> None:
    if message is None:
        assert body(text) == ("'", "")
        return
    with pytest.raises(LuaBlockError) as caught:
        body(text)
    assert message in caught.value.message
    assert caught.value.line == line


_strings = st.text(st.characters(exclude_characters="\r\n\\"), max_size=8).flatmap(
    lambda text: st.sampled_from(
        ['"' + text.replace('"', r"\"") + '"', "'" + text.replace("'", r"\'") + "'"]
    )
)


def _long(parts: tuple[int, str]) -> str:
    level, text = parts
    close = "]" + "=" * level + "]"
    while close in text or text.endswith(close[:-1]) or text.endswith("]"):
        text = text.replace(close, "").rstrip("]=")
    return "[" + "=" * level + "[" + text + close


_longs = st.tuples(
    st.integers(0, 3), st.text(st.characters(exclude_characters="\r"), max_size=12)
).map(_long)
_comments = st.one_of(
    st.text(st.characters(exclude_characters="\r\n["), max_size=8).map(lambda text: f"--{text}\n"),
    _longs.map(lambda text: "--" + text),
)
_plain = st.sampled_from(
    [
        "local x = 1",
        "a[1]",
        "b[c]",
        " - ",
        "\n",
        " ",
        "end",
        "f()",
        "x == y",
        "t[ [[k]] ]",
        "~=",
        "..",
        "]]",
    ]
)
_code = st.recursive(
    st.one_of(_plain, _strings, _longs, _comments),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: "{" + " ".join(parts) + " }"),
    max_leaves=20,
).flatmap(lambda first: st.lists(st.just(first) | _plain | _strings | _comments, max_size=6))


@given(_code, st.sampled_from([" ", "", "\n "]))
def test_code_comes_out_as_it_went_in(parts: list[str], blank: str) -> None:
    # A minus before a comment would make it another one.
    code = " " + " ".join(parts) + " "
    text = f"a 1;\ncontent_by_lua_block{blank}{{{code}}}\nb 2;\nset_by_lua_block $x{blank}{{{code}}} c;"
    first, block, second, other, last, end = statements(text, "x.conf")
    assert block == Statement(("content_by_lua_block",), "lua", block.source, code)
    assert block.source.line == 2 + blank.count("\n")
    line = block.source.line + code.count("\n") + 1
    assert (second.words, second.source.line) == (("b", "2"), line)
    assert (other.words, other.code) == (("set_by_lua_block", "$x"), code)
    assert last.words == ("c",)
    assert last.source.line == end.source.line == text.count("\n") + 1
    assert first.words == ("a", "1")


@given(st.text(st.sampled_from("{}[]=-'\"\\\n ax"), max_size=40))
def test_any_text_gives_a_block_or_an_error(text: str) -> None:
    try:
        code, _ = body(text)
    except LuaBlockError as error:
        line = error.line
    else:
        line = 1
        assert text.startswith(code + "}")
    assert 1 <= line <= text.count("\n") + 1


def test_it_serves_other_users_of_crossplane(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "nginx.conf"
    path.write_text(
        "http { server { location / {\n"
        "  server_rewrite_by_lua_block { x = [[ } ]] }\n"
        '  set_by_lua_block "$y" # comment {\n'
        "  { return '}' }\n"
        "  return 200;\n"
        "} } }\n"
    )
    payload = crossplane.parse(str(path), check_ctx=False, check_args=False)
    assert payload["status"] == "ok", payload["errors"]
    [http] = payload["config"][0]["parsed"]
    first, second, third = http["block"][0]["block"][0]["block"]
    assert (first["directive"], first["args"]) == (
        "server_rewrite_by_lua_block",
        [" x = [[ } ]] "],
    )
    assert second["args"] == ["$y", " return '}' "]
    assert (third["directive"], third["line"]) == ("return", 5)


def test_all_directives_are_known() -> None:
    assert "exit_worker_by_lua_block" in LUA_BLOCKS
    assert "proxy_ssl_verify_by_lua_block" in LUA_BLOCKS
