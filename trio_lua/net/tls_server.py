"""Contexts for TLS of listening sockets, from the ``ssl_*`` directives.

A context is made once for each server of a configuration, so that sessions can be resumed for as long as the
configuration is in use.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from trio_lua.config.model import Config
from trio_lua.config.tls import TlsOptions
from trio_lua.errors import ConfigError
from trio_lua.net.openssl_conf import with_system_level
from trio_lua.net.tls import Certificate, exclude_versions, load_certificate, reason_of

__all__ = ["check_certificates", "context_of", "new_context"]

#: nginx's, without HTTP/0.9.
_ALPN = ["http/1.1", "http/1.0"]

_contexts: WeakKeyDictionary[TlsOptions, ssl.SSLContext] = WeakKeyDictionary()


def context_of(options: TlsOptions) -> ssl.SSLContext:
    """The context of a server.

    Raises:
        ConfigError: A file cannot be used.
    """
    context = _contexts.get(options)
    if context is None:
        context = _contexts[options] = new_context(options)
    return context


def check_certificates(config: Config) -> None:
    """Make the contexts of a configuration that will be needed.

    Raises:
        ConfigError: A file cannot be used.
    """
    for server in config.http.servers:
        tls = server.tls
        if tls is not None and tls.ssl_certificate:
            context_of(tls)


def new_context(
    options: TlsOptions, certificates: Iterable[Certificate] | None = None
) -> ssl.SSLContext:
    """A context of its own.

    Args:
        options: The server's.
        certificates: In place of those of the options.

    Raises:
        ConfigError: A file cannot be used.
        ssl.SSLError: A certificate or its key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= getattr(ssl, "OP_NO_RENEGOTIATION", 0) | getattr(
        ssl, "OP_IGNORE_UNEXPECTED_EOF", 0
    )
    exclude_versions(context, options.ssl_protocols)
    if options.ssl_prefer_server_ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if not options.ssl_session_tickets:
        context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols(_ALPN)
    with _errors(options, f'SSL_CTX_set_cipher_list("{options.ssl_ciphers}") failed'):
        context.set_ciphers(with_system_level(options.ssl_ciphers))
    if options.ssl_ecdh_curve != "auto":
        with _errors(options, f'unknown curve "{options.ssl_ecdh_curve}" in "ssl_ecdh_curve"'):
            context.set_ecdh_curve(options.ssl_ecdh_curve)
    if options.ssl_dhparam is not None:
        with _errors(options, f'cannot use "{options.ssl_dhparam}"'):
            context.load_dh_params(options.ssl_dhparam)
    if certificates is None:
        _load_files(context, options)
    else:
        for certificate in certificates:
            load_certificate(context, certificate)
    if options.ssl_verify_client != "off":
        context.verify_mode = ssl.CERT_OPTIONAL
        for path in (options.ssl_client_certificate, options.ssl_trusted_certificate):
            if path is not None:
                with _errors(options, f'SSL_CTX_load_verify_locations("{path}") failed'):
                    context.load_verify_locations(path)
        if options.ssl_crl is not None:
            with _errors(options, f'X509_LOOKUP_load_file("{options.ssl_crl}") failed'):
                context.load_verify_locations(options.ssl_crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return context


def _load_files(context: ssl.SSLContext, options: TlsOptions) -> None:
    passwords = [b""]
    if options.ssl_password_file is not None:
        with (
            _errors(options, f'open() "{options.ssl_password_file}" failed'),
            open(options.ssl_password_file, "rb") as file,
        ):
            passwords = file.read().splitlines() or passwords
    # a key more than there are certificates is of no use, and nginx takes it
    for certificate, key in zip(options.ssl_certificate, options.ssl_certificate_key, strict=False):
        for path, what in ((certificate, "certificate"), (key, "certificate key")):
            with (
                _errors(options, f'cannot load {what} "{path}": BIO_new_file() failed'),
                open(path),
            ):
                pass
        for password in passwords:
            # a function, because Python would ask at the terminal
            try:
                context.load_cert_chain(certificate, key, lambda password=password: password)
            except (ssl.SSLError, ValueError) as error:
                failure = error
            else:
                break
        else:
            raise _error(
                options, f'cannot load certificate "{certificate}" with key "{key}"', failure
            )


@contextmanager
def _errors(options: TlsOptions, message: str) -> Iterator[None]:
    try:
        # files in an old format, and old parameters, are the user's business
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _error(options, message, error) from None


def _error(options: TlsOptions, message: str, error: Exception) -> ConfigError:
    source = options.source
    return ConfigError(f"{message} ({reason_of(error)})", source.file, source.line)
