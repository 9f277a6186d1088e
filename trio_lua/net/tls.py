"""TLS for client sockets: contexts from the ``lua_ssl_*`` directives, handshakes, sessions.

OpenSSL's checks are used as they are, with the exception of the depth of a chain, which Python cannot set: it is counted
after the handshake.
"""

from __future__ import annotations

import os
import ssl
import warnings
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from trio_lua.net.errors import SocketError
from trio_lua.net.openssl_conf import with_system_level

__all__ = [
    "Certificate",
    "Contexts",
    "TlsSettings",
    "chain_length",
    "check_depth",
    "exclude_versions",
    "handshake_error",
    "load_certificate",
    "reason_of",
]

#: Contexts that are kept.
_KEPT = 128

_VERSIONS = {
    "TLSv1": ssl.OP_NO_TLSv1,
    "TLSv1.1": ssl.OP_NO_TLSv1_1,
    "TLSv1.2": ssl.OP_NO_TLSv1_2,
    "TLSv1.3": ssl.OP_NO_TLSv1_3,
}

#: X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH, _CERT_CHAIN_TOO_LONG.
_HOST_MISMATCHES, _CHAIN_TOO_LONG = (62, 64), 22


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What the ``lua_ssl_*`` directives say.

    Attributes:
        protocols: Versions, such as "TLSv1.3".
        ciphers: OpenSSL's list.
        depth: Certificates between the peer's and the trusted one.
        trusted: File with trusted certificates.
        crl: File with revocation lists.
        certificate: File with the client's certificate.
        key: File with its key.
        key_log: File that gets the secrets of connections, for who wants to read what they carry.
    """

    protocols: tuple[str, ...]
    ciphers: str = "DEFAULT"
    depth: int = 1
    trusted: str | None = None
    crl: str | None = None
    certificate: str | None = None
    key: str | None = None
    key_log: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate (with its chain) and its key, both as PEM."""

    chain: bytes
    key: bytes


class Contexts:
    """TLS contexts by what they are made from."""

    def __init__(self) -> None:
        self._contexts: OrderedDict[object, ssl.SSLContext] = OrderedDict()

    def get(
        self, settings: TlsSettings, verify: bool, named: bool, client: Certificate | None
    ) -> ssl.SSLContext:
        """The context for a handshake.

        Args:
            settings: What the directives say.
            verify: Whether the peer's certificate is verified.
            named: Whether its name is, too.
            client: The client's certificate, in place of that of the directives.

        Raises:
            SocketError: The settings or the certificate cannot be used.
        """
        key = (settings, verify, named, client)
        context = self._contexts.get(key)
        if context is None:
            try:
                context = _new_context(settings, verify, named, client)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise SocketError("failed to create ssl connection", f"TLS: {error}") from None
            if len(self._contexts) >= _KEPT:
                self._contexts.popitem(last=False)
            self._contexts[key] = context
        return context


def _new_context(
    settings: TlsSettings, verify: bool, named: bool, client: Certificate | None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = verify and named
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    # a peer that closes without saying so has closed all the same
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    exclude_versions(context, settings.protocols)
    ciphers = with_system_level(settings.ciphers)
    if ciphers != "DEFAULT":
        context.set_ciphers(ciphers)
    if settings.key_log is not None:
        context.keylog_filename = settings.key_log
    if verify and settings.trusted:
        context.load_verify_locations(settings.trusted)
    if verify and settings.crl:
        context.load_verify_locations(settings.crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if client is not None:
        _load_client(context, client)
    elif settings.certificate:
        context.load_cert_chain(settings.certificate, settings.key)
    return context


def _load_client(context: ssl.SSLContext, client: Certificate) -> None:
    try:
        load_certificate(context, client)
    except ssl.SSLError as error:
        what = "private key" if error.reason == "KEY_VALUES_MISMATCH" else "certificate"
        raise SocketError(f"ssl set client {what} failed", f"TLS: {error}") from None


def exclude_versions(context: ssl.SSLContext, versions: Collection[str]) -> None:
    """Let a context speak these versions only."""
    with warnings.catch_warnings():
        # whoever asks for an old version gets it
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        for version, option in _VERSIONS.items():
            if version not in versions:
                context.options |= option


def load_certificate(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Give a context a certificate, which Python only takes from files."""
    fd = os.memfd_create("certificate")
    try:
        os.write(fd, certificate.chain + b"\n" + certificate.key)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def chain_length(connection: ssl.SSLSocket | ssl.SSLObject) -> int:
    """How many certificates the verified chain of a peer has; 0 where Python does not tell."""
    inner = getattr(connection, "_sslobj", None)
    return len(getattr(inner, "get_verified_chain", lambda: None)() or ())


def check_depth(sock: ssl.SSLSocket, depth: int) -> None:
    """Refuse a verified chain that is longer than the settings allow.

    Raises:
        SocketError: It is.
    """
    # neither the peer's own certificate nor the trusted one counts
    if chain_length(sock) - 2 > depth:
        raise _verify_error(_CHAIN_TOO_LONG, "certificate chain too long")


def _verify_error(code: int, text: str) -> SocketError:
    return SocketError(f"{code}: {text}", f"lua ssl certificate verify error: ({code}: {text})")


def handshake_error(error: OSError, server_name: str | None) -> SocketError:
    """The failure of a handshake in OpenResty's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in _HOST_MISMATCHES:
            return SocketError(
                "certificate host mismatch",
                f'lua ssl certificate does not match host "{server_name}"',
            )
        return _verify_error(code, error.verify_message.rstrip("."))
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)):
        reset = f" ({reason_of(error)})" if isinstance(error, ConnectionError) else ""
        return SocketError("handshake failed", f"peer closed connection in SSL handshake{reset}")
    return SocketError("handshake failed", f"SSL_do_handshake() failed ({reason_of(error)})")


def reason_of(error: Exception) -> str:
    """What an error of Python's ssl module says, in the form that nginx gives OpenSSL's errors."""
    if isinstance(error, ssl.SSLError):
        name: str | None = getattr(error, "reason", None)
        reason = str(error) if name is None else name.lower().replace("_", " ")
        if isinstance(error, ssl.SSLCertVerificationError):
            reason += f": {error.verify_message}"
        return f"SSL: {reason}"
    if isinstance(error, OSError) and error.errno:
        return f"{error.errno}: {error.strerror}"
    return f"SSL: {error}"
