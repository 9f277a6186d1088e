"""DER and PEM."""

from __future__ import annotations

import contextlib

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.net import pem


def test_chain() -> None:
    authority = trustme.CA().create_child_ca()
    chain = b"".join(one.bytes() for one in authority.issue_cert("a.test").cert_chain_pems)
    assert chain.count(b"BEGIN") == 2
    der = pem.certificates_to_der(b"Some words.\n" + chain)
    assert pem.certificates_to_pem(der) == chain
    assert pem.certificates_to_der(chain.replace(b"\n", b"\r\n")) == der


@pytest.mark.parametrize("kind", [trustme.KeyType.RSA, trustme.KeyType.ECDSA])
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_key(kind: trustme.KeyType, form: PrivateFormat) -> None:
    key = load_pem_private_key(
        trustme.CA().issue_cert("a.test", key_type=kind).private_key_pem.bytes(), None
    )
    text = key.private_bytes(Encoding.PEM, form, NoEncryption())
    der = key.private_bytes(Encoding.DER, form, NoEncryption())
    assert pem.key_to_pem(der) == text


@given(st.binary(max_size=40))
def test_garbage(data: bytes) -> None:
    with pytest.raises(ValueError, match="no "):
        pem.certificates_to_der(data)
    for convert in (pem.certificates_to_pem, pem.key_to_pem):
        with contextlib.suppress(ValueError):
            assert convert(data).startswith(b"-----BEGIN ")
