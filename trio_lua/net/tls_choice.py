"""What Lua code has decided about one handshake, in front of it."""

from __future__ import annotations

import ssl
from collections import OrderedDict
from dataclasses import dataclass, replace

from trio_lua.config.tls import TlsOptions
from trio_lua.net.client_hello import ClientHello
from trio_lua.net.tls import Certificate
from trio_lua.net.tls_server import context_of, new_context

__all__ = ["Choice", "ChosenContexts"]

#: Contexts that are kept: sessions are resumed only by the context that has begun them.
_KEPT = 256


@dataclass(slots=True)
class Choice:
    """The decisions; None where the directives decide.

    Attributes:
        hello: What the client offers; None when it cannot be read.
        protocols: Versions.
        chains: Certificates with their chains, as PEM.
        keys: Their keys, in the same order.
        authorities: Certificates (PEM) that a client's certificate must come from; b"" for those of the directives.
        session: The number (RFC 5246) of the session that the client wants, or has got.
        depth: Of the chain of a client's certificate; -1 for that of the directives.
    """

    hello: ClientHello | None
    protocols: tuple[str, ...] | None = None
    chains: list[bytes] | None = None
    keys: list[bytes] | None = None
    authorities: bytes | None = None
    depth: int = -1
    session: bytes = b""


class ChosenContexts:
    """Contexts by what they are made from."""

    def __init__(self) -> None:
        self._contexts: OrderedDict[object, ssl.SSLContext] = OrderedDict()

    def get(self, options: TlsOptions, choice: Choice) -> ssl.SSLContext:
        """The context for a handshake.

        Raises:
            ssl.SSLError: A certificate or its key cannot be used.
        """
        chosen = None
        if choice.chains is not None or choice.keys is not None:
            pairs = zip(choice.chains or (), choice.keys or (), strict=False)
            chosen = tuple(Certificate(chain, key) for chain, key in pairs)
        if chosen is None and choice.protocols is None and choice.authorities is None:
            return context_of(options)
        key = (options, choice.protocols, chosen, choice.authorities)
        context = self._contexts.get(key)
        if context is None:
            context = self._new(options, choice, chosen)
            if len(self._contexts) >= _KEPT:
                self._contexts.popitem(last=False)
            self._contexts[key] = context
        else:
            self._contexts.move_to_end(key)
        return context

    def _new(
        self, options: TlsOptions, choice: Choice, chosen: tuple[Certificate, ...] | None
    ) -> ssl.SSLContext:
        if choice.protocols is not None:
            options = replace(options, ssl_protocols=choice.protocols)
        context = new_context(options, chosen)
        if choice.authorities is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            if choice.authorities:
                context.load_verify_locations(cadata=choice.authorities.decode("latin-1"))
        return context
