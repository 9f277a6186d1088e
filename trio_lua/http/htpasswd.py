"""Password files as ``htpasswd`` writes them, for ``auth_basic``.

A line is ``name:hash`` or ``name:hash:comment``. The hashes that nginx computes itself are computed here: ``$apr1$``
(Apache's MD5), ``{SHA}``, ``{SSHA}`` and ``{PLAIN}``. All others (traditional DES, ``$1$``, ``$5$``, ``$6$``, ``$2y$`` ...)
are those of the system's ``crypt``.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import ctypes.util
import hashlib
import hmac
import threading
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["apr1", "credentials", "find_hash", "verify"]

_ALPHABET = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

#: ``crypt`` keeps its result in memory of its own.
_crypt_lock = threading.Lock()


def credentials(authorization: bytes | None) -> tuple[bytes, bytes] | None:
    """User and password of an ``Authorization`` header; None when there are none (RFC 7617)."""
    if authorization is None:
        return None
    scheme, _, rest = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(rest.strip()).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon and user else None


def find_hash(lines: Iterable[bytes], user: bytes) -> bytes | None:
    """The hash of a user; None when no line is theirs."""
    for line in lines:
        if line.startswith(b"#"):
            continue
        name, colon, rest = line.rstrip(b"\r\n").partition(b":")
        if colon and name == user:
            return rest.partition(b":")[0]
    return None


def verify(password: bytes, stored: bytes) -> bool:
    """Whether a password fits a hash. Some hashes take milliseconds on purpose.

    Raises:
        ValueError: The hash is of a kind that this system does not know, or malformed.
    """
    return hmac.compare_digest(_hash(password, stored), stored)


def _hash(password: bytes, stored: bytes) -> bytes:
    if stored.startswith(b"$apr1$"):
        return apr1(password, stored[6:].partition(b"$")[0])
    if stored.startswith(b"{PLAIN}"):
        return b"{PLAIN}" + password
    if stored.startswith(b"{SHA}"):
        return b"{SHA}" + base64.b64encode(hashlib.sha1(password).digest())
    if stored.startswith(b"{SSHA}"):
        try:
            salt = base64.b64decode(stored[6:], validate=True)[20:]
        except binascii.Error as error:
            raise ValueError(str(error)) from None
        return b"{SSHA}" + base64.b64encode(hashlib.sha1(password + salt).digest() + salt)
    return _system_crypt(password, stored)


def apr1(password: bytes, salt: bytes) -> bytes:
    """Apache's MD5 hash of a password: ``$apr1$salt$...``."""
    salt = salt[:8]
    inner = hashlib.md5(password + salt + password).digest()
    text = password + b"$apr1$" + salt
    text += (inner * (len(password) // 16 + 1))[: len(password)]
    length = len(password)
    while length:
        text += b"\0" if length & 1 else password[:1]
        length >>= 1
    digest = hashlib.md5(text).digest()
    for number in range(1000):
        text = password if number & 1 else digest
        if number % 3:
            text += salt
        if number % 7:
            text += password
        text += digest if number & 1 else password
        digest = hashlib.md5(text).digest()
    out = bytearray()
    for a, b, c in ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)):
        _append(out, digest[a] << 16 | digest[b] << 8 | digest[c], 4)
    _append(out, digest[11], 2)
    return b"$apr1$" + salt + b"$" + bytes(out)


def _append(out: bytearray, value: int, count: int) -> None:
    for _ in range(count):
        out.append(_ALPHABET[value & 63])
        value >>= 6


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("crypt")
    if name is None:
        return None
    library = ctypes.CDLL(name, use_errno=True)
    library.crypt.restype = ctypes.c_char_p
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    return library


def _system_crypt(password: bytes, stored: bytes) -> bytes:
    library = _library()
    if library is None:
        raise ValueError("this system has no crypt()")
    if b"\0" in password:
        return b""
    with _crypt_lock:
        result: bytes | None = library.crypt(password, stored)
    if result is None or result.startswith(b"*"):
        raise ValueError("crypt() failed")
    return result
