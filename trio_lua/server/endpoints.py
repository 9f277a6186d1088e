"""The endpoints of a worker: one for each address that servers listen on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import Config, Listen
from trio_lua.phases.matcher import ServerTable
from trio_lua.phases.plan import Plans
from trio_lua.server.listener import Endpoint
from trio_lua.server.tls import TlsAddress

__all__ = ["Endpoints"]

_WILDCARDS = frozenset(("", "*", "0.0.0.0", "::"))


class Endpoints:
    """Finds the servers behind a ``listen``.

    Args:
        config: The configuration.
        plans: Its plans.
        runtime: The VM.
        recognise: Whether plain heads take the short way.
        tls: Makes what connections to an address with ``ssl`` do first.
    """

    def __init__(
        self,
        config: Config,
        plans: Plans,
        runtime: Runtime,
        *,
        recognise: bool,
        tls: Callable[[ServerTable], TlsAddress],
    ) -> None:
        self._plans = plans
        self._runtime = runtime
        self._recognise = recognise
        self._tls = tls
        self._known: dict[int, Endpoint] = {}
        self._last = 0
        self._encrypted = {
            plans.tables[listen.host, listen.port, listen.path]
            for server in config.http.servers
            for listen in server.listens
            if listen.ssl
        }

    def get(self, listen: Listen | None) -> Endpoint:
        """The endpoint of a ``listen``; for None that of the first one."""
        tables = self._plans.tables
        if listen is None or (listen.host, listen.port, listen.path) not in tables:
            return self._of(next(iter(tables.values())))
        endpoint = self._of(tables[listen.host, listen.port, listen.path])
        if listen.path is None and _numeric(listen.host) in _WILDCARDS:
            for (host, port, _), table in tables.items():
                if port == listen.port and _numeric(host) not in _WILDCARDS:
                    endpoint.share_port(_numeric(host), self._of(table))
        return endpoint

    def _of(self, table: ServerTable) -> Endpoint:
        endpoint = self._known.get(id(table))
        if endpoint is None:
            endpoint = self._known[id(table)] = self.new(table, Endpoint)
            if table in self._encrypted:
                endpoint.tls = self._tls(table)
        return endpoint

    def new(self, table: ServerTable, kind: type[Endpoint], *, recognise: bool = True) -> Endpoint:
        """Another endpoint for the servers of a table."""
        self._last += 1
        return kind(
            self._last,
            table,
            self._plans,
            self._runtime,
            address=self._address(table),
            recognise=recognise and self._recognise,
        )

    def _address(self, table: ServerTable) -> bytes:
        """What the servers of a table listen on, as nginx writes it."""
        tables = self._plans.tables
        host, port, path = next(key for key, value in tables.items() if value is table)
        if path is not None:
            return f"unix:{path}".encode()
        return f"{'0.0.0.0' if host in ('', '*') else host}:{port}".encode()


def _numeric(host: str) -> str:
    """An address as :meth:`socket.socket.getsockname` gives it."""
    host = host.removeprefix("[").removesuffix("]")
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            return socket.inet_ntop(family, socket.inet_pton(family, host))
    return host
