"""Contexts from the ``ssl_*`` directives, and what is said of files that do not fit."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from trio_lua.config.tls import TlsOptions
from trio_lua.errors import ConfigError
from trio_lua.net.tls_server import context_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    for name, kind in (("a", trustme.KeyType.ECDSA), ("b", trustme.KeyType.RSA)):
        certificate = authority.issue_cert("a.test", key_type=kind)
        certificate.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    key = load_pem_private_key((folder / "a.key").read_bytes(), None)
    secret = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame")
    )
    (folder / "secret.key").write_bytes(secret)
    (folder / "words").write_text("wrong\nsesame\n")
    (folder / "garbage").write_text("garbage")
    return folder


def options(folder: Path, *pairs: tuple[str, str], **more: Any) -> TlsOptions:
    pairs = pairs or (("a.pem", "a.key"),)
    return TlsOptions(
        ssl_certificate=tuple(str(folder / one) for one, _ in pairs),
        ssl_certificate_key=tuple(str(folder / one) for _, one in pairs),
        **more,
    )


def test_made_once_for_each_server(folder: Path) -> None:
    one, other = options(folder), options(folder)
    assert context_of(one) is context_of(one)
    assert context_of(one) is not context_of(other)


def test_settings(folder: Path) -> None:
    context = context_of(
        options(
            folder,
            ("a.pem", "a.key"),
            ("b.pem", "b.key"),
            ssl_protocols=("TLSv1.2",),
            ssl_ciphers="ECDHE-RSA-AES128-GCM-SHA256",
            ssl_session_tickets=False,
            ssl_prefer_server_ciphers=True,
            ssl_ecdh_curve="prime256v1",
            ssl_verify_client="optional",
            ssl_client_certificate=str(folder / "a.pem"),
        )
    )
    assert context.options & ssl.OP_NO_TLSv1_3
    assert not context.options & ssl.OP_NO_TLSv1_2
    assert context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert "ECDHE-RSA-AES128-GCM-SHA256" in [one["name"] for one in context.get_ciphers()]
    assert context.verify_mode is ssl.CERT_OPTIONAL


def test_encrypted_key(folder: Path) -> None:
    pair = ("a.pem", "secret.key")
    context_of(options(folder, pair, ssl_password_file=str(folder / "words")))
    with pytest.raises(ConfigError, match="cannot load certificate "):
        context_of(options(folder, pair))


@pytest.mark.parametrize(
    ("pair", "more", "message"),
    [
        (("no.pem", "a.key"), {}, r'cannot load certificate ".*/no.pem": .* \(2: No such file'),
        (("a.pem", "no.key"), {}, r'cannot load certificate key ".*/no.key": .* \(2: No such file'),
        (("a.pem", "b.key"), {}, r"with key .*b.key\" \(SSL: "),
        (("garbage", "a.key"), {}, r'cannot load certificate ".*/garbage" with key'),
        (("a.pem", "a.key"), {"ssl_ciphers": "NONE-OF-THESE"}, "SSL_CTX_set_cipher_list"),
        (("a.pem", "a.key"), {"ssl_ecdh_curve": "round"}, 'unknown curve "round"'),
        (("a.pem", "a.key"), {"ssl_password_file": "/no/file"}, r"open\(\) \"/no/file\" failed"),
        (("a.pem", "a.key"), {"ssl_dhparam": "/no/file"}, 'cannot use "/no/file"'),
        (
            ("a.pem", "a.key"),
            {"ssl_verify_client": "on", "ssl_client_certificate": "/no/file"},
            "SSL_CTX_load_verify_locations",
        ),
    ],
)
def test_files_that_do_not_fit(
    folder: Path, pair: tuple[str, str], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        context_of(options(folder, pair, **more))
