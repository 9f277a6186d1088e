"""The built-in cjson against what lua-cjson does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_lua.api
from trio_lua.api import codec
from trio_lua.lua.vm import VM

API = Path(trio_lua.api.__file__).parent

Eval = Callable[..., Any]


def make() -> Eval:
    vm = VM(calls=codec.calls(), files=[API / "codec.lua"])
    vm.run(b"package.path, package.cpath = '', ''", "=test")
    compiled: dict[str, Callable[..., Any]] = {}

    def run(code: str, *args: Any) -> Any:
        if code not in compiled:
            chunk = f"""local rt = ... local cjson = require "cjson" local null = rt.ngx.null
                function rt.export.f(...) {code} end"""
            vm.run(chunk.encode(), "=test")
            compiled[code] = vm.export("f")
        return compiled[code](*args)

    return run


@pytest.fixture
def lua() -> Eval:
    return make()


@pytest.fixture(scope="module")
def steady() -> Eval:
    """For many calls that change no setting."""
    return make()


def failure(lua: Eval, code: str, *args: Any) -> str:
    ok, message = lua(f"return pcall({code})", *args)
    assert ok is False
    return message.decode()


DECODE_ERRORS = [
    (b"", "value", "T_END", 1),
    (b" ", "value", "T_END", 2),
    (b"[1", "comma or array end", "T_END", 3),
    (b"[1}", "comma or array end", "T_OBJ_END", 3),
    (b"[1 2]", "comma or array end", "T_NUMBER", 4),
    (b"[1,]", "value", "T_ARR_END", 4),
    (b"[truefalse]", "comma or array end", "T_BOOLEAN", 6),
    (b"{a", "object key string", "invalid token", 2),
    (b"{1:2}", "object key string", "T_NUMBER", 2),
    (b'{"a" 1}', "colon", "T_NUMBER", 6),
    (b'{"a":1 "b"}', "comma or object end", "T_STRING", 8),
    (b'{"a":1,}', "object key string", "T_OBJ_END", 8),
    (b'{"a":}', "value", "T_OBJ_END", 6),
    (b"nullnull", "the end", "T_NULL", 5),
    (b"1,", "the end", "T_COMMA", 2),
    (b'"abc', "value", "unexpected end of string", 5),
    (b'"a\\qb"', "value", "invalid escape code", 3),
    (b'"\\u12x4"', "value", "invalid unicode escape code", 2),
    (b'"\\ud800\\u0041"', "value", "invalid unicode escape code", 2),
    (b'"\\udc00\\ud800"', "value", "invalid unicode escape code", 2),
    (b"-", "value", "invalid number", 1),
    (b"--1", "value", "invalid number", 1),
    (b".5", "value", "invalid token", 1),
    (b"1e", "the end", "invalid token", 2),
    (b"tru", "value", "invalid token", 1),
    (b"'a'", "value", "invalid token", 1),
    (b"[1]x", "the end", "invalid token", 4),
]


class TestDecode:
    def test_values(self, steady: Eval) -> None:
        assert steady("return cjson.decode(...)", b' "a\\n\\u00e9\\ud83d\\ude00\\/" ') == (
            "a\n\u00e9\U0001f600/".encode()
        )
        assert steady("return cjson.decode('null') == null, cjson.null == null") == (True, True)
        assert steady("return cjson.decode('true'), cjson.decode(' false ')") == (True, False)
        assert steady("local t = cjson.decode(...) return t[1], t[2].b, #t", b'[1,{"b":"x"}]') == (
            1,
            b"x",
            2,
        )
        assert steady("return cjson.decode(...).a", b'{"a":1,"a":2}') == 2
        assert steady("return cjson.decode(12)") == 12

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("0", 0),
            ("-12", -12),
            ("1.", 1),
            ("-.5", -0.5),
            ("0.1", 0.1),
            ("1E+2", 100),
            ("123456789012345678901234567890", 123456789012345678901234567890),
            ("0.30000000000000004", 0.30000000000000004),
            ("1e400", float("inf")),
            ("1e99999999", float("inf")),
            ("0e99999999", 0),
            ("1e-99999999", 0),
            ("01", 1),
            ("+1", 1),
            ("0x1F", 31),
            ("-0x1.8p1", -3),
            ("inf", float("inf")),
            ("-Infinity", float("-inf")),
        ],
    )
    def test_numbers(self, steady: Eval, text: str, value: float) -> None:
        assert steady("return cjson.decode(...)", text.encode()) == float(value)

    def test_nan(self, steady: Eval) -> None:
        assert steady("local x = cjson.decode('NaN') return x ~= x") is True

    @pytest.mark.parametrize("text", [b"01", b"-inf", b"0x1F", b"-nan"])
    def test_strict_numbers(self, lua: Eval, text: bytes) -> None:
        assert lua("return cjson.decode_invalid_numbers(false)") is False
        assert lua("return cjson.decode('-0.5e1')") == -5
        assert failure(lua, "cjson.decode, ...", text) == (
            "Expected value but found invalid number at character 1"
        )

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_floats_are_exact(self, steady: Eval, number: float) -> None:
        assert steady("return cjson.decode(...)", json.dumps(number).encode()) == number
        assert steady("return cjson.decode(...)", f"{number:.20f}".encode()) == float(
            f"{number:.20f}"
        )

    @pytest.mark.parametrize(("text", "expected", "found", "at"), DECODE_ERRORS)
    def test_errors(self, steady: Eval, text: bytes, expected: str, found: str, at: int) -> None:
        assert failure(steady, "cjson.decode, ...", text) == (
            f"Expected {expected} but found {found} at character {at}"
        )

    def test_error_names_the_callers_line(self, steady: Eval) -> None:
        assert failure(steady, "function() local x = cjson.decode('[[{') end").startswith(
            "test:2: Expected object key string but found T_END at character 4"
        )

    def test_text_ends_at_nul(self, steady: Eval) -> None:
        assert steady("return cjson.decode(...)", b"123\0garbage") == 123
        assert failure(steady, "cjson.decode, ...", b"1\0") == (
            "JSON parser does not support UTF-16 or UTF-32"
        )

    def test_depth(self, lua: Eval) -> None:
        assert lua("return cjson.decode_max_depth(3)") == 3
        assert lua("return #cjson.decode('[[[]]]')") == 1
        assert failure(lua, "cjson.decode, ...", b'[{"a":[{') == (
            "Found too many nested data structures (4) at character 8"
        )
        lua("return cjson.decode_max_depth(1000)")
        assert failure(lua, "cjson.decode, ...", b"[" * 1001) == (
            "Found too many nested data structures (1001) at character 1001"
        )

    def test_depth_that_the_stack_cannot_hold(self, lua: Eval) -> None:
        lua("return cjson.decode_max_depth(1e6), cjson.encode_max_depth(1e6)")
        nested = b"[" * 2000 + b"1" + b"]" * 2000
        assert lua("return cjson.encode(cjson.decode(...))", nested) == nested
        deeper = b"[" * 2600 + b"1" + b"]" * 2600
        assert failure(lua, "function(s) cjson.encode(cjson.decode(s)) end, ...", deeper) == (
            "test:2: Cannot serialise, excessive nesting (2001)"
        )
        assert "(2601)" in failure(lua, "cjson.decode, ...", b"[" * 100_000)

    def test_array_metatable(self, lua: Eval) -> None:
        code = "return getmetatable(cjson.decode('[]')) == cjson.array_mt"
        assert lua(code) is False
        assert lua("return cjson.decode_array_with_array_mt(true)") is True
        assert lua(code) is True
        assert lua("return cjson.encode(cjson.decode('[[],{}]'))") == b"[[],{}]"


class TestEncode:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("nil", "null"),
            ("null", "null"),
            ("true", "true"),
            ("-0.0", "-0"),
            ("2^53", "9.007199254741e+15"),
            ("1/3", "0.33333333333333"),
            ("12345678901234", "12345678901234"),
            ("'a\"/\\\\\\b\\1\\127\\200'", '"a\\"\\/\\\\\\b\\u0001\\u007f\udcc8"'),
            ("{}", "{}"),
            ("{1, 'x', {a = 1}}", '[1,"x",{"a":1}]'),
            ("{1, nil, 3}", "[1,null,3]"),
            ("{[1] = 1, [10] = 2}", "[1,null,null,null,null,null,null,null,null,2]"),
            ("{[0] = 1}", '{"0":1}'),
            ("{[1.5] = 1}", '{"1.5":1}'),
            ("cjson.empty_array", "[]"),
            ("{arr = cjson.empty_array}", '{"arr":[]}'),
            ("setmetatable({}, cjson.empty_array_mt)", "[]"),
            ("setmetatable({a = 1}, cjson.empty_array_mt)", "[]"),
            ("setmetatable({'a'}, cjson.empty_array_mt)", '["a"]'),
            ("setmetatable({}, cjson.array_mt)", "[]"),
            ("setmetatable({'a', b = 1}, cjson.array_mt)", '["a"]'),
            (
                "setmetatable({}, {__len = function() return 2 end,"
                " __index = function(_, k) return k * 2 end})",
                "[2,4]",
            ),
        ],
    )
    def test_values(self, steady: Eval, value: str, expected: str) -> None:
        text = steady(f"return cjson.encode({value})")
        assert text == expected.encode("utf-8", "surrogateescape")

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("print", "Cannot serialise function: type not supported"),
            ("{io.stdout}", "Cannot serialise userdata: type not supported"),
            ("{a = 1LL}", "Cannot serialise cdata: type not supported"),
            ("0/0", "Cannot serialise number: must not be NaN or Infinity"),
            ("{[-1/0] = 1}", "Cannot serialise number: must not be NaN or Infinity"),
            ("{[21] = 1}", "Cannot serialise table: excessively sparse array"),
            ("{[true] = 1}", "Cannot serialise boolean: table key must be a number or string"),
        ],
    )
    def test_errors(self, steady: Eval, value: str, message: str) -> None:
        assert failure(steady, f"cjson.encode, {value}") == message
        assert failure(steady, f"function() local x = cjson.encode({value}) end") == (
            f"test:2: {message}"
        )

    def test_depth(self, lua: Eval) -> None:
        assert lua("return cjson.encode_max_depth(2)") == 2
        assert lua("return cjson.encode{{}}") == b"[{}]"
        assert failure(lua, "cjson.encode, {{{}}}") == "Cannot serialise, excessive nesting (3)"
        lua("return cjson.encode_max_depth(1000)")
        loop = "(function() local t = {} t[1] = t return t end)()"
        assert failure(lua, f"cjson.encode, {loop}") == (
            "Cannot serialise, excessive nesting (1001)"
        )

    def test_settings(self, lua: Eval) -> None:
        assert lua("return cjson.encode_sparse_array(true)") == (True, 2, 10)
        assert lua("return cjson.encode{[21] = 1}") == b'{"21":1}'
        assert lua("return cjson.encode_number_precision(16), cjson.encode(2^53)") == (
            16,
            b"9007199254740992",
        )
        assert lua("return cjson.encode_invalid_numbers('null')") == b"null"
        assert lua("return cjson.encode{1/0}") == b"[null]"
        assert lua("return cjson.encode_invalid_numbers(true)") is True
        assert lua("return cjson.encode{1/0, -1/0, 0/0}") == b"[Infinity,-Infinity,NaN]"
        assert lua("return cjson.encode_escape_forward_slash(false)") is False
        assert lua("return cjson.encode('/')") == b'"/"'
        assert lua("return cjson.encode_empty_table_as_object(false)") is False
        assert lua("return cjson.encode{{}}") == b"[[]]"
        assert lua("return cjson.encode_skip_unsupported_value_types('on')") is True
        assert lua("return cjson.encode{1, print, 2, null}, cjson.encode{a = print}") == (
            b"[1,2,null]",
            b"{}",
        )
        assert lua("return cjson.encode_keep_buffer(false)") is False
        assert lua("return cjson.encode{1}") == b"[1]"

    def test_settings_belong_to_an_instance(self, lua: Eval) -> None:
        code = """
            local other = cjson.new()
            other.encode_escape_forward_slash(false)
            return other.encode("/"), cjson.encode("/"), other.array_mt == cjson.array_mt
        """
        assert lua(code) == (b'"/"', b'"\\/"', True)

    def test_metamethods_may_encode(self, steady: Eval) -> None:
        code = """
            local inner = setmetatable({}, {
                __len = function() return 1 end,
                __index = function() return cjson.encode{1} end,
            })
            return cjson.encode{2, inner, 3}
        """
        assert steady(code) == b'[2,["[1]"],3]'

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("encode()", "bad argument #1 to 'encode' (expected 1 argument)"),
            ("encode(1, 2)", "bad argument #1 to 'encode' (expected 1 argument)"),
            ("decode({})", "bad argument #1 to 'decode' (string expected, got table)"),
            (
                "encode_max_depth(0)",
                "bad argument #1 to 'encode_max_depth' (expected integer between 1 and 2147483647)",
            ),
            (
                "encode_number_precision('x')",
                "bad argument #1 to 'encode_number_precision' (number expected, got string)",
            ),
            (
                "decode_invalid_numbers('x')",
                "bad argument #1 to 'decode_invalid_numbers' (invalid option 'x')",
            ),
            (
                "encode_keep_buffer(1, 2)",
                "bad argument #2 to 'encode_keep_buffer' (found too many arguments)",
            ),
        ],
    )
    def test_arguments(self, steady: Eval, call: str, message: str) -> None:
        assert failure(steady, f"function() local x = cjson.{call} end") == f"test:2: {message}"


def test_safe(lua: Eval) -> None:
    code = 'local safe = require "cjson.safe" '
    assert lua(code + "return safe.decode('[')") == (
        None,
        b"Expected value but found T_END at character 2",
    )
    assert lua(code + "return safe.encode(print)") == (
        None,
        b"Cannot serialise function: type not supported",
    )
    assert lua(code + "return safe.encode(safe.decode('[1]'))") == b"[1]"
    assert lua(code + "return safe.new().decode('x')") == (
        None,
        b"Expected value but found invalid token at character 1",
    )
    assert lua(code + "return pcall(safe.decode)")[0] is False


def test_fields(steady: Eval) -> None:
    assert steady("return cjson._NAME, cjson._VERSION, type(cjson.empty_array)") == (
        b"cjson",
        b"2.1.0.11",
        b"userdata",
    )


documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**13), 10**13) | st.text(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=5)
        | st.dictionaries(st.text().filter(lambda k: "\0" not in k), inner, min_size=1, max_size=5)
    ),
    max_leaves=20,
)


@given(documents, st.sampled_from([None, 0, 3]), st.booleans())
def test_round_trip(steady: Eval, document: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    assert json.loads(steady("return cjson.encode(cjson.decode(...))", text)) == document


@given(documents, st.data())
def test_damaged_documents(steady: Eval, document: Any, data: st.DataObject) -> None:
    text = bytearray(json.dumps(document).encode())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + 1] = data.draw(st.binary(max_size=2))
    ok, result = steady(
        "return pcall(function(s) return cjson.encode(cjson.decode(s)) end, ...)", bytes(text)
    )
    if ok:
        json.loads(result.decode("utf-8", "replace"))
    else:
        assert b" at character " in result or b"UTF-16" in result or b"Cannot serialise" in result
