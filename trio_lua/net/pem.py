"""Certificates and private keys between their two forms: DER, and PEM with its base64."""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["certificates_to_der", "certificates_to_pem", "key_to_pem"]

_BLOCK = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]+)-----\s*\n(.*?)-----END \1-----", re.DOTALL | re.MULTILINE
)

_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04


def _encode(label: str, der: bytes) -> bytes:
    text = base64.encodebytes(der).replace(b"\n", b"")
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    name = label.encode()
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (name, b"\n".join(lines), name)


def _decode(pem: bytes, *labels: bytes) -> list[bytes]:
    try:
        return [
            base64.b64decode(b"".join(text.split()), validate=True)
            for label, text in _BLOCK.findall(pem)
            if label in labels
        ]
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element of DER: its tag, its content, and what follows it."""
    if len(data) < 2:
        raise ValueError("it ends too early")
    tag, size, at = data[0], data[1], 2
    if size >= 0x80:
        count = size & 0x7F
        size, at = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    if len(data) < at + size:
        raise ValueError("it ends too early")
    return tag, data[at : at + size], data[at + size :]


def certificates_to_pem(der: bytes) -> bytes:
    """A chain of certificates.

    Raises:
        ValueError: It is none.
    """
    pem = b""
    while der:
        tag, _, rest = _element(der)
        if tag != _SEQUENCE:
            raise ValueError("not a certificate")
        pem += _encode("CERTIFICATE", der[: len(der) - len(rest)])
        der = rest
    if not pem:
        raise ValueError("no certificate")
    return pem


def certificates_to_der(pem: bytes) -> bytes:
    """A chain of certificates; the other blocks of the text are left out.

    Raises:
        ValueError: There is none.
    """
    found = _decode(pem, b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE")
    if not found:
        raise ValueError("no certificate")
    return b"".join(found)


def key_to_pem(der: bytes) -> bytes:
    """A private key: PKCS #8, PKCS #1 (RSA) or SEC 1 (elliptic curves).

    Raises:
        ValueError: It is none.
    """
    tag, content, _ = _element(der)
    if tag != _SEQUENCE:
        raise ValueError("not a key")
    tag, _, rest = _element(content)
    if tag != _INTEGER:
        raise ValueError("not a key")
    # what follows the version number tells the format
    label = {_SEQUENCE: "PRIVATE KEY", _INTEGER: "RSA PRIVATE KEY", _OCTETS: "EC PRIVATE KEY"}.get(
        _element(rest)[0]
    )
    if label is None:
        raise ValueError("not a key")
    return _encode(label, der)
