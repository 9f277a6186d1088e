"""Hashes of password files; the ones with a salt are those of ``openssl passwd``."""

from __future__ import annotations

import base64
import ctypes.util
import hashlib

import pytest

from trio_lua.http.htpasswd import credentials, find_hash, verify

LONG = b"a longer password, with more than sixteen bytes"
SSHA = b"{SSHA}" + base64.b64encode(hashlib.sha1(b"secretsalt").digest() + b"salt")


@pytest.mark.parametrize(
    ("password", "stored"),
    [
        (b"myPassword", b"$apr1$qHDFfhPC$nITSVHgYbDAK1Y0acGRnY0"),
        (LONG, b"$apr1$ab$LtXIzukLdalw5rZA4ue6/1"),
        (b"", b"$apr1$x$tMwYqBfQwi3FYAr0aJc8M/"),
        (b"secret", b"{PLAIN}secret"),
        (b"secret", b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
        (b"secret", SSHA),
    ],
)
def test_own_hashes(password: bytes, stored: bytes) -> None:
    assert verify(password, stored)
    assert not verify(password + b"x", stored)


@pytest.mark.skipif(ctypes.util.find_library("crypt") is None, reason="no libcrypt")
@pytest.mark.parametrize(
    "stored",
    [
        b"$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
        b"$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
        b"$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN."
        b"Pq.H91p5hVO1",
    ],
)
def test_hashes_of_the_system(stored: bytes) -> None:
    assert verify(b"secret", stored)
    assert not verify(b"Secret", stored)
    assert not verify(b"sec\0ret", stored)


@pytest.mark.parametrize(
    ("stored", "message"),
    [(b"{SSHA}?", "base64|padding"), (b"", "crypt"), (b"*", "crypt"), (b"$nothing$x", "crypt")],
)
def test_hashes_that_are_none(stored: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(b"secret", stored)


def test_lines() -> None:
    lines = [b"#a:1\n", b"\n", b"nothing\n", b"a:2\r\n", b"b:3:comment\n", b"a:4\n", b"c:\n"]
    assert [find_hash(lines, user) for user in (b"a", b"b", b"c", b"d", b"#a")] == [
        b"2",
        b"3",
        b"",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("header", "result"),
    [
        (None, None),
        (b"", None),
        (b"Bearer abc", None),
        (b"Basic !", None),
        (b"Basic " + base64.b64encode(b"nocolon"), None),
        (b"Basic " + base64.b64encode(b":x"), None),
        (b"basic  " + base64.b64encode(b"u:p:q"), (b"u", b"p:q")),
    ],
)
def test_credentials(header: bytes | None, result: object) -> None:
    assert credentials(header) == result
