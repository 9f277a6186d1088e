"""Escaping, query arguments, checksums and digests of ``ngx.*``."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import urllib.parse
import zlib
from pathlib import Path

import pytest
from chunks import Eval, error, evaluator
from hypothesis import given
from hypothesis import strategies as st

import trio_lua.api
from trio_lua.api import codec
from trio_lua.lua.vm import VM

API = Path(trio_lua.api.__file__).parent


@pytest.fixture(scope="module")
def lua() -> Eval:
    """Run an expression over ``ngx``, ``rt`` and the arguments; tables come back as text."""
    return evaluator(VM(calls=codec.calls(), files=[API / "codec.lua"]))


class TestEscape:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            (0, b"https://www.google.com/%3Ft=abc@%20:"),
            (1, b"https://www.google.com/%3Ft=abc@%20:"),
            (2, b"https%3A%2F%2Fwww.google.com%2F%3Ft%3Dabc%40%20%3A"),
            (3, b"https://www.google.com/?t=abc@%20:"),
            (4, b"https://www.google.com/?t=abc@%20:"),
            (5, b"https://www.google.com/?t=abc@%20:"),
            (6, b"https://www.google.com/?t=abc@%20:"),
        ],
    )
    def test_types(self, lua: Eval, kind: int, expected: bytes) -> None:
        assert lua("return ngx.escape_uri(...)", b"https://www.google.com/?t=abc@ :", kind) == (
            expected
        )

    def test_reserved(self, lua: Eval) -> None:
        assert lua("return ngx.escape_uri(...)", b"-_.!~*'()") == b"-_.!~*'()"
        assert lua("return ngx.escape_uri(...)", b",$@|`") == b"%2C%24%40%7C%60"

    def test_other_types_of_argument(self, lua: Eval) -> None:
        assert lua("return ngx.escape_uri(nil), ngx.escape_uri(false), ngx.escape_uri(32)") == (
            b"",
            b"",
            b"32",
        )

    @given(st.binary())
    def test_component_as_quote(self, lua: Eval, text: bytes) -> None:
        expected = urllib.parse.quote(text, safe="-_.!~*'()").encode()
        assert lua("return ngx.escape_uri(...)", text) == expected
        assert lua("return ngx.unescape_uri(...)", expected) == text

    def test_text_longer_than_the_shared_buffers(self, lua: Eval) -> None:
        for size in (3000, 40_000, 2_000_000):
            assert lua("return ngx.escape_uri(...)", b"\0" * size) == b"%00" * size

    @pytest.mark.parametrize("kind", [-1, 7, 10])
    def test_type_out_of_range(self, lua: Eval, kind: int) -> None:
        message = error(lua, f"ngx.escape_uri('x', {kind})")
        assert message == f'"type" {kind} out of range'

    def test_type_not_a_number(self, lua: Eval) -> None:
        assert error(lua, "ngx.escape_uri('x', true)") == '"type" is not a number'

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (b"%ua%%20%au", b"%ua% %au"),
            (b"%a", b"%a"),
            (b"%", b"%"),
            (b"good%20job%", b"good job%"),
            (b"a+b%2B%2b", b"a b++"),
            (b"%00", b"\0"),
        ],
    )
    def test_unescape(self, lua: Eval, text: bytes, expected: bytes) -> None:
        assert lua("return ngx.unescape_uri(...)", text) == expected

    def test_header_kinds(self, lua: Eval) -> None:
        assert lua("return rt.escape(...)", b"X Y:\t", 7) == b"X%20Y%3A%09"
        assert lua("return rt.escape(...)", b"a\tb\r\n\x7f\xe9", 8) == b"a\tb%0D%0A%7F\xe9"

    def test_escape_args_keeps_what_is_escaped(self, lua: Eval) -> None:
        assert lua("return rt.escape_args(...)", b"a=%20 &\n\xe9") == b"a=%20%20&%0A\xe9"


SHOW = """
    local parts = {}
    local args, err = %s
    for key, value in pairs(args) do
        if type(value) == "table" then
            for i, item in ipairs(value) do value[i] = tostring(item) end
            value = table.concat(value, "|")
        end
        parts[#parts + 1] = key .. ":" .. tostring(value)
    end
    table.sort(parts)
    return table.concat(parts, " "), err
"""
DECODE = SHOW % "ngx.decode_args(...)"
URI_ARGS = SHOW % "rt.uri_args(...)"


class TestArgs:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (b"a=bar&b=foo", b"a:bar b:foo"),
            (b"a=bar&b=foo&a=baz&a", b"a:bar|baz|true b:foo"),
            (b"a&b", b"a:true b:true"),
            (b"a=&b=", b"a: b:"),
            (b"=x&&=&", b""),
            (b"f+f=b%61r==&%41", b"A:true f f:bar=="),
            (b"", b""),
        ],
    )
    def test_decode(self, lua: Eval, text: bytes, expected: bytes) -> None:
        assert lua(DECODE, text) == (expected, None)

    def test_limits(self, lua: Eval) -> None:
        assert lua(DECODE, b"a=1&b=2", 1) == (b"a:1", b"truncated")
        assert lua(DECODE, b"&&a=1&b=2", 2) == (b"", b"truncated")
        assert lua(DECODE, b"a=1&b=2", -1) == (b"a:1 b:2", None)
        many = b"&".join(b"k%d" % i for i in range(150))
        shown, err = lua(DECODE, many)
        assert (len(shown.split()), err) == (100, b"truncated")
        shown, err = lua(DECODE, many, 0)
        assert (len(shown.split()), err) == (150, None)

    def test_limit_of_request_arguments_counts_kept_keys(self, lua: Eval) -> None:
        assert lua(URI_ARGS, b"&&a=1&b=2", 2) == (b"a:1 b:2", b"truncated")
        assert lua(URI_ARGS, b"a=1&b=2", 2) == (b"a:1 b:2", None)
        assert lua(URI_ARGS, b"a=1&b=2", 0) == (b"a:1 b:2", None)
        assert lua(URI_ARGS, b"&a=1", 0) == (b"a:1", None)
        assert lua(URI_ARGS, b"=x&a=1", 1) == (b"a:1", b"truncated")

    def test_table_is_reused(self, lua: Eval) -> None:
        code = "local t = {old = 1} return rt.%s('a=1', nil, t) == t, t.old, t.a"
        assert lua(code % "decode_args") == (True, None, b"1")
        assert lua(code % "uri_args") == (True, None, b"1")

    def test_encode(self, lua: Eval) -> None:
        assert lua("return ngx.encode_args{['a b'] = 'x y+&'}") == b"a%20b=x%20y%2B%26"
        assert lua("return ngx.encode_args{a = {9, true, false, 'x'}}") == b"a=9&a&a=x"
        assert lua("return ngx.encode_args{a = true}") == b"a"
        assert lua("return ngx.encode_args{a = false, b = {}, c = {false}}") == b""
        assert sorted(lua("return ngx.encode_args{a = 1, b = 'foo', c = 0.5}").split(b"&")) == [
            b"a=1",
            b"b=foo",
            b"c=0.5",
        ]

    @given(st.dictionaries(st.binary(min_size=1), st.binary(), max_size=5))
    def test_round_trip(self, lua: Eval, args: dict[bytes, bytes]) -> None:
        flat = [part for pair in args.items() for part in pair]
        code = """
            local args = {}
            for i = 1, select("#", ...), 2 do args[(select(i, ...))] = (select(i + 1, ...)) end
            local again = ngx.decode_args(ngx.encode_args(args))
            for k, v in pairs(args) do if again[k] ~= v then return false end end
            for k, v in pairs(again) do if args[k] ~= v then return false end end
            return true
        """
        assert lua(code, *flat) is True

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("ngx.encode_args()", "test:1: expecting 1 argument but seen 0"),
            (
                "ngx.encode_args(true)",
                "test:1: bad argument #1 to 'encode_args' (table expected, got boolean)",
            ),
            (
                "ngx.encode_args{1}",
                'test:1: attempt to use a non-string key in the "args" option table',
            ),
            ("ngx.encode_args{a = {{}}}", "test:1: attempt to use table as query arg value"),
            ("ngx.encode_args{a = print}", "test:1: attempt to use function as query arg value"),
            ("ngx.encode_args{a = ngx.null}", "test:1: attempt to use userdata as query arg value"),
            ("ngx.decode_args()", "test:1: expecting 1 or 2 arguments but seen 0"),
            (
                "ngx.decode_args(nil)",
                "test:1: bad argument #1 to 'decode_args' (string expected, got nil)",
            ),
            (
                "ngx.decode_args('a', nil)",
                "test:1: bad argument #2 to 'decode_args' (number expected, got nil)",
            ),
        ],
    )
    def test_errors(self, lua: Eval, code: str, message: str) -> None:
        assert error(lua, code) == message

    def test_unnamed_function_in_errors(self, lua: Eval) -> None:
        assert lua("return pcall(ngx.encode_args, true)") == (
            False,
            b"bad argument #1 to '?' (table expected, got boolean)",
        )


class TestDigests:
    @given(st.one_of(st.binary(), st.binary(min_size=250, max_size=600)))
    def test_values(self, lua: Eval, data: bytes) -> None:
        code = """
            local s = ...
            return ngx.md5(s), ngx.md5_bin(s), ngx.sha1_bin(s), ngx.crc32_short(s),
                ngx.crc32_long(s), ngx.hmac_sha1("key", s)
        """
        assert lua(code, data) == (
            hashlib.md5(data).hexdigest().encode(),
            hashlib.md5(data).digest(),
            hashlib.sha1(data).digest(),
            zlib.crc32(data),
            zlib.crc32(data),
            hmac.digest(b"key", data, "sha1"),
        )

    def test_other_types_of_argument(self, lua: Eval) -> None:
        assert lua("return ngx.md5(nil) == ngx.md5(''), ngx.md5(32) == ngx.md5('32')") == (
            True,
            True,
        )
        assert lua("return ngx.crc32_long(nil)") == binascii.crc32(b"")

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("ngx.hmac_sha1('k')", "test:1: expecting 2 arguments, but got 1"),
            (
                "ngx.hmac_sha1('k', nil)",
                "test:1: bad argument #2 to 'hmac_sha1' (string expected, got nil)",
            ),
            ("ngx.quote_sql_str()", "test:1: expecting one argument"),
            (
                "ngx.quote_sql_str({})",
                "test:1: bad argument #1 to 'quote_sql_str' (string expected, got table)",
            ),
            (
                "ngx:quote_sql_str()",
                "test:1: calling 'quote_sql_str' on bad self (string expected, got table)",
            ),
        ],
    )
    def test_errors(self, lua: Eval, code: str, message: str) -> None:
        assert error(lua, code) == message


def test_quote_sql_str(lua: Eval) -> None:
    assert lua("return ngx.quote_sql_str(...)", b"a\0b\b\n\r\t\x1a\\'\"\xe4c") == (
        b"'a\\0b\\b\\n\\r\\t\\Z\\\\\\'\\\"\xe4c'"
    )
    assert lua("return ngx.quote_sql_str(12)") == b"'12'"
    assert lua("return ngx.quote_sql_str('')") == b"''"


def test_null_is_the_null_pointer(lua: Eval) -> None:
    assert lua("return type(ngx.null), tostring(ngx.null)") == (b"userdata", b"userdata: NULL")
