"""Quoting, escaping and encoding of text: the functions behind most ``set_...`` directives.

All take bytes and return bytes; those that decode raise ``ValueError`` for what is not the encoding.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping

from trio_lua.http.uri import unescape

__all__ = [
    "BASE32_ALPHABET",
    "decode_base32",
    "decode_base64",
    "decode_base64url",
    "decode_hex",
    "encode_base32",
    "encode_base64",
    "encode_base64url",
    "encode_hex",
    "escape_uri",
    "hash_lower",
    "quote_json",
    "quote_pgsql",
    "quote_sql",
    "unescape_uri",
]


def _replacing(table: Mapping[bytes, bytes]) -> Callable[[bytes], bytes]:
    pattern = re.compile(b"[" + b"".join(map(re.escape, table)) + b"]")
    return lambda text: pattern.sub(lambda match: table[match[0]], text)


# ---------------------------------------------------------------- quoting

_escape_sql = _replacing(
    {
        b"\0": b"\\0",
        b"\b": b"\\b",
        b"\n": b"\\n",
        b"\r": b"\\r",
        b"\t": b"\\t",
        b"\\": b"\\\\",
        b"'": b"\\'",
        b'"': b'\\"',
        b"$": b"\\$",
        b"\x1a": b"\\Z",
    }
)

_escape_json = _replacing(
    {bytes([code]): b"\\u%04x" % code for code in range(32)}
    | {
        b"\b": b"\\b",
        b"\t": b"\\t",
        b"\n": b"\\n",
        b"\f": b"\\f",
        b"\r": b"\\r",
        b'"': b'\\"',
        b"\\": b"\\\\",
    }
)

_not_ascii = re.compile(rb"[\x80-\xff]")


def quote_sql(text: bytes) -> bytes:
    """A string literal of MySQL."""
    return b"'" + _escape_sql(text) + b"'"


def quote_pgsql(text: bytes) -> bytes:
    """A string literal of PostgreSQL. Bytes that are not UTF-8 are written in octal, for ``bytea``."""
    if not text:
        return b"''"
    quoted = b"E" + quote_sql(text)
    try:
        quoted.decode()
    except UnicodeDecodeError:
        return _not_ascii.sub(lambda match: b"\\\\%03o" % match[0][0], quoted)
    return quoted


def quote_json(text: bytes) -> bytes:
    """A string of JSON; ``null`` for an empty text."""
    return b'"' + _escape_json(text) + b'"' if text else b"null"


# ---------------------------------------------------------------- URIs

# Less than RFC 3986 has for a component, more than nginx escapes in a path.
_escape_uri = _replacing(
    {
        bytes([code]): b"%%%02X" % code
        for code in (*range(33), *b'"#%&+/:;<=>?[\\]^{}', *range(127, 256))
    }
)

_plus = re.compile(rb"(?<!%)\+")


def escape_uri(text: bytes) -> bytes:
    """Escape text for a component of a URI."""
    return _escape_uri(text)


def unescape_uri(text: bytes) -> bytes:
    """Decode a component of a URI; a plus sign is a space, broken escapes lose their ``%``."""
    return unescape(_plus.sub(b" ", text))


# ---------------------------------------------------------------- base32, base64, hex

#: "base32hex" of RFC 4648, in lower case.
BASE32_ALPHABET = b"0123456789abcdefghijklmnopqrstuv"

_STANDARD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def encode_base32(text: bytes, alphabet: bytes = BASE32_ALPHABET, *, padding: bool = True) -> bytes:
    """Base32 with an alphabet of 32 characters."""
    code = base64.b32encode(text).translate(bytes.maketrans(_STANDARD, alphabet))
    return code if padding else code.rstrip(b"=")


def decode_base32(code: bytes, alphabet: bytes = BASE32_ALPHABET) -> bytes:
    """The reverse; padding may be missing."""
    code = code.partition(b"=")[0]
    if code.translate(None, alphabet):
        raise ValueError("not base32")
    code = code.translate(bytes.maketrans(alphabet, _STANDARD))
    return base64.b32decode(code + b"=" * (-len(code) % 8))


encode_base64 = base64.b64encode


def encode_base64url(text: bytes) -> bytes:
    """Base64 for URLs and file names, without padding."""
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def _decode(code: bytes, others: bytes) -> bytes:
    code = code.partition(b"=")[0]
    return base64.b64decode(code + b"=" * (-len(code) % 4), altchars=others, validate=True)


def decode_base64(code: bytes) -> bytes:
    """Base64; padding may be missing, and what follows it is ignored."""
    return _decode(code, b"+/")


def decode_base64url(code: bytes) -> bytes:
    """The same with "-" and "_"."""
    return _decode(code, b"-_")


encode_hex = binascii.hexlify
decode_hex = binascii.unhexlify


# ---------------------------------------------------------------- hashing


def hash_lower(text: bytes) -> int:
    """nginx's hash of a name, whatever its case (``ngx_hash_key_lc``), cut to 32 bits."""
    key = 0
    for byte in text.lower():
        key = (key * 31 + byte) & 0xFFFFFFFF
    return key
