"""Quoting and encoding."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.modules.set_misc import encoders


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (b"", b"''"),
        (b"plain", b"'plain'"),
        (b"'\"\\$\0\b\n\r\t\x1a\x01", rb"""'\'\"\\\$\0\b\n\r\t\Z""" + b"\x01'"),
        ("é".encode(), "'é'".encode()),
    ],
)
def test_sql(text: bytes, quoted: bytes) -> None:
    assert encoders.quote_sql(text) == quoted


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (b"", b"''"),
        (b"it's", rb"E'it\'s'"),
        ("é".encode(), "E'é'".encode()),
        (b"\xff\xfea", rb"E'\\377\\376a'"),
    ],
)
def test_pgsql(text: bytes, quoted: bytes) -> None:
    assert encoders.quote_pgsql(text) == quoted


def test_json_of_nothing() -> None:
    assert encoders.quote_json(b"") == b"null"
    assert encoders.quote_json(b"\x01\0") == rb'"\u0001\u0000"'


@given(st.text(min_size=1))
def test_json(text: str) -> None:
    assert json.loads(encoders.quote_json(text.encode())) == text


def test_uris() -> None:
    assert encoders.escape_uri(b"aZ0-_.~!*'(),$@|`") == b"aZ0-_.~!*'(),$@|`"
    assert encoders.escape_uri(b" /?#[]\xff") == b"%20%2F%3F%23%5B%5D%FF"
    assert encoders.unescape_uri(b"a+b%2bc%zz%1z%+%") == b"a b+czz+"


@given(st.binary())
def test_uris_there_and_back(text: bytes) -> None:
    assert encoders.unescape_uri(encoders.escape_uri(text)) == text


@pytest.mark.parametrize("length", range(11))
def test_base32(length: int) -> None:
    text = bytes(range(250, 250 + length)) if length < 6 else b"0123456789"[:length]
    code = encoders.encode_base32(text)
    assert encoders.decode_base32(code) == text
    assert encoders.decode_base32(code.rstrip(b"=")) == text
    assert encoders.encode_base32(text, padding=False) == code.rstrip(b"=")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    assert encoders.encode_base32(text, alphabet) == base64.b32encode(text)
    assert encoders.decode_base32(base64.b32encode(text), alphabet) == text


@pytest.mark.parametrize("code", [b"!", b"a", b"abc", b"abcdef", b"AB"])
def test_what_is_not_base32(code: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - binascii has texts of its own
        encoders.decode_base32(code)


@given(st.binary())
def test_base64_and_hex(text: bytes) -> None:
    assert encoders.decode_base64(encoders.encode_base64(text)) == text
    url = encoders.encode_base64url(text)
    assert not set(url) & set(b"+/=")
    assert encoders.decode_base64url(url) == text
    assert encoders.decode_hex(encoders.encode_hex(text)) == text


@pytest.mark.parametrize("code", [b"#", b"a", b"abcde", b"ab-_"])
def test_what_is_not_base64(code: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - binascii has texts of its own
        encoders.decode_base64(code)


def test_hash() -> None:
    assert encoders.hash_lower(b"") == 0
    assert encoders.hash_lower(b"AB") == 97 * 31 + 98
