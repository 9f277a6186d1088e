"""What the ``ssl_*`` directives of a server say.

Contexts are made from it elsewhere (:mod:`trio_lua.net.tls_server`), once for each of these objects: two servers
with the same words are two objects, and a reload reads its files again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trio_lua.config.model import LuaCode, Source

__all__ = ["VERSIONS", "TlsOptions"]

#: The versions of the protocol that nginx knows; SSLv2 and SSLv3 are not in today's OpenSSL.
VERSIONS = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


@dataclass(frozen=True, eq=False)
class TlsOptions:
    """The TLS side of one ``server``; each field has the name of its directive. Paths are absolute.

    Attributes:
        ssl_certificate: Files with certificates and their chains; several for several types of key.
        ssl_certificate_key: The files with their keys, in the same order.
        ssl_verify_client: "off", "on" or "optional".
        source: The ``server``.
    """

    ssl_certificate: tuple[str, ...] = ()
    ssl_certificate_key: tuple[str, ...] = ()
    ssl_password_file: str | None = None
    ssl_protocols: tuple[str, ...] = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
    ssl_ciphers: str = "HIGH:!aNULL:!MD5"
    ssl_prefer_server_ciphers: bool = False
    ssl_ecdh_curve: str = "auto"
    ssl_dhparam: str | None = None
    ssl_session_tickets: bool = True
    ssl_client_certificate: str | None = None
    ssl_trusted_certificate: str | None = None
    ssl_crl: str | None = None
    ssl_verify_client: str = "off"
    ssl_verify_depth: int = 1
    ssl_reject_handshake: bool = False
    ssl_client_hello_by_lua: LuaCode | None = None
    ssl_certificate_by_lua: LuaCode | None = None
    source: Source = field(default_factory=lambda: Source("", 0))
