"""``ngx.ssl``, and the handlers that run in front of a handshake.

They run before OpenSSL has seen anything of it, when nobody waits in a callback; so they may wait themselves. What they
choose is kept in a :class:`~trio_lua.net.tls_choice.Choice`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from trio_lua.lua.ops import OpTable
from trio_lua.net import pem
from trio_lua.net.client_hello import ClientHello
from trio_lua.net.tls_choice import Choice
from trio_lua.request.context import ClientConnection

__all__ = ["Handshakes"]

_VERSIONS = {"SSLv3": 0x300, "TLSv1": 0x301, "TLSv1.1": 0x302, "TLSv1.2": 0x303, "TLSv1.3": 0x304}

#: nil and an error.
Failure = tuple[None, bytes]

_NO_TLS: Failure = (None, b"bad ssl conn")
_BAD_PHASE: Failure = (None, b"the handshake is over")


class Handshakes:
    """The handshakes whose handlers run, and the calls of ``ngx.ssl``.

    Args:
        table: Where to add the calls.
        connections: Connections by number.
    """

    def __init__(self, table: OpTable, connections: Mapping[int, ClientConnection]) -> None:
        self._connections = connections
        self._choices: dict[int, Choice] = {}
        for name in (
            "address",
            "authorities",
            "clear",
            "ciphers",
            "extension",
            "extensions",
            "protocols",
            "random",
            "server_name",
            "session",
            "use",
            "use_der",
            "version",
        ):
            table.call(f"ssl_{name}", getattr(self, f"_{name}"))
        table.call("der_of_chain", _converted(pem.certificates_to_der))

    @contextmanager
    def of(self, number: int, choice: Choice) -> Iterator[None]:
        """Let handlers decide about the handshake of a connection."""
        self._choices[number] = choice
        try:
            yield
        finally:
            del self._choices[number]

    # ------------------------------------------------------------- what there is

    def _hello(self, number: int) -> ClientHello | None:
        choice = self._choices.get(number)
        if choice is not None:
            return choice.hello
        facts = self._connections[number].facts
        return None if facts is None else facts.hello

    def _server_name(self, number: int) -> bytes | Failure | None:
        hello = self._hello(number)
        return _NO_TLS if hello is None else hello.server_name

    def _session(self, number: int) -> bytes | Failure:
        choice = self._choices.get(number)
        return _BAD_PHASE if choice is None else choice.session.hex().upper().encode()

    def _version(self, number: int) -> int | Failure:
        """The version that is spoken, or before the handshake the highest one of the client."""
        if number not in self._choices:
            facts = self._connections[number].facts
            version = None if facts is None else facts.object.version()
            return _NO_TLS if version is None else _VERSIONS.get(version, 0)
        choice = self._choices[number]
        if choice.hello is None:
            return _NO_TLS
        known = [_VERSIONS[name] for name in choice.protocols or _VERSIONS if name in _VERSIONS]
        return min(choice.hello.version, max(known))

    def _random(self, number: int) -> bytes | Failure:
        hello = self._hello(number)
        return _NO_TLS if hello is None else hello.random

    def _address(self, number: int, server: bool) -> tuple[bytes, bytes, int | None]:
        """An address in binary form, its type, and its port."""
        host, port, own_host, own_port = self._connections[number].addresses()
        if server:
            host, port = own_host, own_port
        if host == b"unix:":
            return b"", b"unix", None
        text = host.decode()
        if ":" in text:
            return socket.inet_pton(socket.AF_INET6, text), b"inet6", int(port)
        return socket.inet_pton(socket.AF_INET, text), b"inet", int(port)

    def _extension(self, number: int, kind: int) -> bytes | None:
        hello = self._hello(number)
        return None if hello is None else hello.extensions.get(kind)

    def _extensions(self, number: int) -> tuple[int, ...]:
        hello = self._hello(number)
        return () if hello is None else tuple(hello.extensions)

    def _ciphers(self, number: int) -> tuple[int, ...]:
        hello = self._hello(number)
        return () if hello is None else hello.ciphers

    # ------------------------------------------------------------------ decisions

    def _clear(self, number: int) -> bool | Failure:
        choice = self._choices.get(number)
        if choice is None:
            return _BAD_PHASE
        choice.chains, choice.keys = [], []
        return True

    def _use_der(self, number: int, what: bytes, der: bytes) -> bool | Failure:
        try:
            text = pem.key_to_pem(der) if what == b"key" else pem.certificates_to_pem(der)
        except ValueError:
            return (
                None,
                b"d2i_PrivateKey_bio() failed" if what == b"key" else b"d2i_X509_bio() failed",
            )
        return self._use(number, what, text)

    def _use(self, number: int, what: bytes, text: bytes) -> bool | Failure:
        choice = self._choices.get(number)
        if choice is None:
            return _BAD_PHASE
        if what == b"key":
            choice.keys = [*(choice.keys or ()), text]
        else:
            choice.chains = [*(choice.chains or ()), text]
        return True

    def _authorities(self, number: int, text: bytes, depth: int) -> bool | Failure:
        choice = self._choices.get(number)
        if choice is None:
            return _BAD_PHASE
        choice.authorities = text
        choice.depth = depth
        return True

    def _protocols(self, number: int, *names: bytes) -> bool | Failure:
        choice = self._choices.get(number)
        if choice is None:
            return _BAD_PHASE
        choice.protocols = tuple(name.decode("latin-1") for name in names)
        return True


def _converted(convert: Callable[[bytes], bytes]) -> Callable[[bytes], bytes | None]:
    def call(data: bytes) -> bytes | None:
        try:
            return convert(data)
        except ValueError:
            return None

    return call
