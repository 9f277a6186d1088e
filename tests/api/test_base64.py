"""``ngx.encode_base64``, ``ngx.decode_base64``, ``ngx.decode_base64mime`` and the module ``ngx.base64``."""

from __future__ import annotations

import base64
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
    """Run code over ``ngx`` and the arguments."""
    return evaluator(VM(calls=codec.calls(), files=[API / "codec.lua", API / "base64.lua"]))


@given(st.binary())
def test_round_trip(lua: Eval, data: bytes) -> None:
    text = base64.b64encode(data)
    assert lua("return ngx.encode_base64(...)", data) == text
    assert lua("return ngx.encode_base64(..., true)", data) == text.rstrip(b"=")
    assert lua("return ngx.decode_base64(...)", text) == data
    assert lua("return ngx.decode_base64(...)", text.rstrip(b"=")) == data


@given(st.binary())
def test_url_alphabet(lua: Eval, data: bytes) -> None:
    text = base64.urlsafe_b64encode(data).rstrip(b"=")
    assert lua("return require('ngx.base64').encode_base64url(...)", data) == text
    assert lua("return require('ngx.base64').decode_base64url(...)", text) == data


def test_url_errors(lua: Eval) -> None:
    code = "return require('ngx.base64').%s"
    assert lua(code % "encode_base64url(1)") == (None, b"must provide a string")
    assert lua(code % "decode_base64url(nil)") == (None, b"must provide a string")
    assert lua(code % "decode_base64url('a+/b')") == (None, b"invalid input")


@pytest.mark.parametrize("text", [b"^*~", b"a", b"aaaaa", b"aGVs\n", b"aGVs bG8="])
def test_refused(lua: Eval, text: bytes) -> None:
    assert lua("return ngx.decode_base64(...)", text) is None


def test_padding_ends_the_text(lua: Eval) -> None:
    assert lua("return ngx.decode_base64(...)", b"aGVsbG8=*garbage") == b"hello"


def test_other_types_of_argument(lua: Eval) -> None:
    assert lua("return ngx.encode_base64(nil), ngx.encode_base64(32)") == (b"", b"MzI=")
    assert error(lua, "ngx.decode_base64(32)") == "test:1: string argument only"
    assert error(lua, "ngx.encode_base64('w', 0)") == (
        "test:1: bad no_padding: boolean expected, got number"
    )


@given(st.binary())
def test_mime(lua: Eval, data: bytes) -> None:
    assert lua("return ngx.decode_base64mime(...)", base64.encodebytes(data)) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [(b"aGVs\r\n-bG8\t=x", b"hello"), (b"", b""), (b"-~", b""), (b"a", None), (b"aaa\naa", None)],
)
def test_mime_passes_over_what_is_no_digit(lua: Eval, text: bytes, data: bytes | None) -> None:
    assert lua("return ngx.decode_base64mime(...)", text) == data


def test_mime_wants_a_string(lua: Eval) -> None:
    assert error(lua, "ngx.decode_base64mime(32)") == "test:1: string argument only"
