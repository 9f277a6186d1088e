"""Digests for ``codec.lua``: what the standard library has in C and Lua would do slowly."""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Callable

__all__ = ["calls"]


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


def _md5_bin(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _sha1_bin(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _hmac_sha1(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha1")


def _crc32(data: bytes) -> int:
    return zlib.crc32(data)


def calls() -> dict[str, Callable[..., bytes | int]]:
    """The functions that ``codec.lua`` expects in ``rt.py``."""
    return {
        "md5": _md5,
        "md5_bin": _md5_bin,
        "sha1_bin": _sha1_bin,
        "hmac_sha1": _hmac_sha1,
        "crc32": _crc32,
    }
