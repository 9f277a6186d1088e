"""Certificates in place of those that are on another machine.

An nginx.conf names the certificates of the machine that it is made for. Where a test runs they are not there, and whoever
connects inside a test does not look at them.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace

from trio_lua.config.model import Config, Server

__all__ = ["with_stand_ins"]


class _Made:
    """A certificate that nobody has to trust, in a file that lasts as long as the process."""

    def __init__(self) -> None:
        import trustme

        self._folder = tempfile.TemporaryDirectory(prefix="stand-in")
        self.path = os.path.join(self._folder.name, "stand-in.pem")
        certificate = trustme.CA().issue_cert("localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(self.path)


_made = functools.cache(_Made)


def with_stand_ins(config: Config, tell: Callable[[str], None]) -> Config:
    """A configuration whose certificates exist.

    Args:
        config: The configuration.
        tell: Is told which are not those that it names.

    Without the package trustme, which makes them, it stays as it is.
    """
    servers = tuple(_server(server, tell) for server in config.http.servers)
    return replace(config, http=replace(config.http, servers=servers))


def _server(server: Server, tell: Callable[[str], None]) -> Server:
    tls = server.tls
    if tls is None or all(map(_exists, (*tls.ssl_certificate, *tls.ssl_certificate_key))):
        return server
    try:
        path = _made().path
    except ImportError:
        return server
    missing = [name for name in tls.ssl_certificate if not _exists(name)] or tls.ssl_certificate_key
    tell(f"a stand-in is served for the certificate {missing[0]}")
    dhparam = tls.ssl_dhparam
    own = replace(
        tls,
        ssl_certificate=(path,),
        ssl_certificate_key=(path,),
        ssl_dhparam=dhparam if dhparam is None or _exists(dhparam) else None,
    )
    return replace(server, tls=own)


def _exists(path: str) -> bool:
    # data:... and variables are no files
    return not path.startswith("/") or os.path.exists(path)
