"""Certificates and keys that OpenSSL's own functions can look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from serving import nginx

from trio_lua.net.pem import certificates_to_der

Serve = Callable[..., Any]
Run = Callable[..., Any]


@pytest.fixture
def run(serve: Serve, tmp_path: Any) -> Run:
    """What a handler says; ``data(NAME)`` is a file."""

    async def run_it(code: str, **files: bytes) -> list[str]:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        start = f"""
            local ssl = require "ngx.ssl"
            local function data(name) return assert(io.open("{tmp_path}/" .. name, "rb")):read("*a") end
        """
        conf = nginx(f"location / {{ content_by_lua_block {{ {start} {code} }} }}")
        async with serve(conf) as running:
            client = await running.connect()
            status, _, body = await client.get("/")
            assert status == 200, running.log.text()
            return body.decode().splitlines()  # type: ignore[no-any-return]

    return run_it


def chain_of(leaf: trustme.LeafCert) -> bytes:
    return b"".join(part.bytes() for part in leaf.cert_chain_pems)


async def test_chain(run: Run) -> None:
    leaf = trustme.CA().create_child_ca().issue_cert("a.test", common_name="a.test")
    pem = chain_of(leaf)
    code = """
        local ffi = require "ffi"
        ffi.cdef [[
            typedef struct x509_st X509; typedef struct X509_name_st X509_NAME;
            int OPENSSL_sk_num(const void *);
            void *OPENSSL_sk_value(const void *, int);
            X509_NAME *X509_get_subject_name(const X509 *);
            char *X509_NAME_oneline(const X509_NAME *, char *, int);
        ]]
        for _, chain in ipairs { ssl.parse_pem_cert(data "pem"), ssl.parse_der_cert(data "der") } do
            ngx.print(type(chain), " ", ffi.C.OPENSSL_sk_num(chain), " ")
            local x509 = ffi.cast("X509 *", ffi.C.OPENSSL_sk_value(chain, 0))
            local buffer = ffi.new("char[100]")
            ngx.say(ffi.string(ffi.C.X509_NAME_oneline(ffi.C.X509_get_subject_name(x509), buffer, 100)):match("CN=.*"))
        end
        ngx.say(ssl.cert_pem_to_der(data "pem") == data "der")
        ngx.say(ssl.parse_pem_cert("nonsense"))
        ngx.say(ssl.parse_pem_cert(data "pem" .. data "broken"))
        ngx.say(ssl.parse_der_cert("nonsense"))
        collectgarbage()
    """
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    lines = await run(code, pem=pem, der=certificates_to_der(pem), broken=broken)
    assert lines == [
        "cdata 2 CN=a.test",
        "cdata 2 CN=a.test",
        "true",
        "nilPEM_read_bio_X509_AUX() failed",
        "nilPEM_read_bio_X509() failed",
        "nild2i_X509_bio() failed",
    ]


@pytest.mark.parametrize("kind", list(trustme.KeyType))
async def test_key(run: Run, kind: trustme.KeyType) -> None:
    leaf = trustme.CA().issue_cert("a.test", key_type=kind)
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    form = PrivateFormat.PKCS8
    locked = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"sesame"))
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    code = """
        for _, key in ipairs { ssl.parse_pem_priv_key(data "pem"), ssl.parse_der_priv_key(data "der") } do
            ngx.print(type(key), " ")
            ngx.say(ngx.socket.tcp():setclientcert(ssl.parse_pem_cert(data "chain"), key))
        end
        ngx.say(ssl.priv_key_pem_to_der(data "pem") == data "der")
        ngx.say(ssl.priv_key_pem_to_der(data "locked", "sesame") == data "der")
        ngx.say(ssl.priv_key_pem_to_der(data "locked", "wrong"))
        ngx.say(ssl.parse_pem_priv_key(data "locked"))
        ngx.say(ssl.parse_pem_priv_key("nonsense"))
        ngx.say(ssl.parse_der_priv_key("nonsense"))
        collectgarbage()
    """
    pem = leaf.private_key_pem.bytes()
    lines = await run(code, pem=pem, der=der, locked=locked, chain=chain_of(leaf))
    refused = "nilPEM_read_bio_PrivateKey() failed"
    assert lines == [
        "cdata true",
        "cdata true",
        "true",
        "true",
        refused,
        refused,
        refused,
        "nild2i_PrivateKey_bio() failed",
    ]
