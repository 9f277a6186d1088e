"""The ``ssl_*`` directives of servers."""

from __future__ import annotations

import pytest

from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError

FILES = "ssl_certificate a.pem; ssl_certificate_key a.key;"


def server(text: str, http: str = "") -> str:
    return f"events {{}} http {{ {http} server {{ listen 443 ssl; {text} }} }}"


def test_inherited_one_by_one() -> None:
    text = server(
        "ssl_certificate_key b.key; ssl_ciphers X; ssl_verify_depth 3;",
        http="ssl_certificate a.pem; ssl_protocols TLSv1.3; ssl_ciphers Y; ssl_session_tickets off;",
    )
    config = loads(text, prefix="/p/")
    tls = config.http.servers[0].tls
    assert tls is not None
    assert [
        path.rpartition("/")[2] for path in (*tls.ssl_certificate, *tls.ssl_certificate_key)
    ] == [
        "a.pem",
        "b.key",
    ]
    assert (tls.ssl_protocols, tls.ssl_ciphers) == (("TLSv1.3",), "X")
    assert (tls.ssl_verify_depth, tls.ssl_session_tickets) == (3, False)
    assert config.http.servers[0].listens[0].ssl
    assert not config.warnings


def test_nothing_without_directives() -> None:
    assert loads("events {} http { server { } }").http.servers[0].tls is None


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("ssl_stapling on;", '"ssl_stapling" is ignored, stapling of OCSP'),
        ("ssl_early_data on;", '"ssl_early_data" is ignored'),
        ("ssl_session_ticket_key x;", '"ssl_session_ticket_key" is ignored'),
        ("ssl_ecdh_curve X25519:prime256v1;", 'only the first curve, "X25519", is used'),
        ("listen 444 ssl http2;", '"http2" of "listen" is ignored, HTTP/1.1 is served'),
        ("http2 on;", '"http2 on" is ignored'),
        ("ssl on;", 'the "ssl" directive is deprecated'),
    ],
)
def test_accepted_with_a_warning(text: str, warning: str) -> None:
    config = loads(server(FILES + text))
    [given] = config.warnings
    assert warning in given


@pytest.mark.parametrize(
    "text",
    [
        "ssl_session_cache shared:SSL:10m; ssl_session_timeout 1d;",
        "ssl_session_cache builtin:1000 shared:SSL:10m;",
        "ssl_session_cache off;",
        "ssl_stapling off; ssl_early_data off; http2 off; ssl_buffer_size 4k;",
        "ssl_prefer_server_ciphers on; ssl_dhparam x; ssl_password_file y;",
    ],
)
def test_accepted(text: str) -> None:
    assert not loads(server(FILES + text)).warnings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'no "ssl_certificate" is defined for the "listen ... ssl" directive'),
        ("ssl_certificate a;", 'no "ssl_certificate_key" is defined for certificate "'),
        (FILES + "ssl_verify_client on;", "no ssl_client_certificate for ssl_verify_client"),
        (FILES + "ssl_protocols TLSv9;", 'invalid value "TLSv9"'),
        (FILES + "ssl_session_cache shared;", 'invalid session cache "shared"'),
        (FILES + "ssl_verify_client optional_no_ca;", "is not supported"),
        ("ssl_certificate $x;", 'variables in "ssl_certificate" are not supported'),
        (FILES + "ssl_conf_command a b;", '"ssl_conf_command" directive is not supported yet'),
        (FILES + "listen 444 http2;", 'the "http2" parameter of the "listen" directive'),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(server(text))
    assert message in str(caught.value)


def test_only_the_default_server_needs_a_certificate() -> None:
    text = f"""events {{}} http {{
        server {{ listen 443 ssl; server_name a; }}
        server {{ listen 443 ssl default_server; {FILES} }}
        server {{ listen 444 ssl; ssl_reject_handshake on; }}
    }}"""
    assert len(loads(text).http.servers) == 3
