"""What a listening address means: its servers, and which of them a request gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_lua.api.runtime import Runtime
from trio_lua.errors import ProtocolError
from trio_lua.http.h11_protocol import HeadLimits
from trio_lua.phases.matcher import ServerTable
from trio_lua.phases.plan import Plans, ServerPlan

if TYPE_CHECKING:
    import socket

    import trio

    from trio_lua.request.state import Request
    from trio_lua.server.tls import TlsAddress

__all__ = ["Endpoint", "RefusedError"]

#: Host names that the short way knows at most.
_REMEMBERED = 1024


class RefusedError(ProtocolError):
    """A request is well-formed, but must not be made on its connection."""


class Endpoint:
    """The servers behind one listening address.

    Args:
        number: Its number in the VM.
        table: The servers by name.
        plans: The plans of the configuration.
        runtime: The VM.
        address: What it listens on, as text.
        recognise: Whether plain heads take the short way; off, every head goes to h11.

    Attributes:
        tls: What connections do first, where they are encrypted.
    """

    __slots__ = (
        "_hosts",
        "_others",
        "_plans",
        "_runtime",
        "_single",
        "_table",
        "address",
        "default",
        "limits",
        "number",
        "plans",
        "recognise",
        "tls",
    )

    def __init__(
        self,
        number: int,
        table: ServerTable,
        plans: Plans,
        runtime: Runtime,
        *,
        address: bytes = b"",
        recognise: bool = True,
    ) -> None:
        self.number = number
        self.address = address
        self._table = table
        self._runtime = runtime
        self._hosts = 0
        self._others: dict[str, Endpoint] = {}
        self._plans = plans.servers
        self.plans = plans.numbered
        self.default: ServerPlan = self._plans[id(table.default)]
        self.recognise = recognise
        self.tls: TlsAddress | None = None
        server = table.default
        count, size = server.large_client_header_buffers
        self.limits = HeadLimits(server.client_header_buffer_size, count, size)
        self._single = (
            not [name for s in [server] for name in s.names if name] and len(plans.servers) == 1
        )
        runtime.define_endpoint(number, size, self.default.number if self._single else None)

    def share_port(self, address: str, endpoint: Endpoint) -> None:
        """This is a wildcard address, and connections to one address of its port are for other servers.

        Args:
            address: The address as numbers.
            endpoint: Its servers.
        """
        self._others[address] = endpoint

    def local(self, sock: socket.socket | trio.socket.SocketType) -> Endpoint:
        """The endpoint that a connection accepted here belongs to."""
        if not self._others:
            return self
        name: Any = sock.getsockname()
        return self._others.get(name[0], self) if isinstance(name, tuple) else self

    def plan_of(self, host: bytes) -> ServerPlan:
        """The server for a host name, without effects on a request."""
        return self._plans[id(self._table.find(host).server)]

    def server(self, host: bytes, request: Request) -> ServerPlan:
        """The server for a host name."""
        if self._single:
            return self.default
        match = self._table.find(host)
        plan = self._plans[id(match.server)]
        if match.captures is not None:
            request.set_captures(match.captures)
            for name, value in match.variables:
                request.set_variable(name, value)
        else:
            self._remember(host, plan)
        return plan

    def _remember(self, host: bytes, plan: ServerPlan) -> None:
        """Teach the short way which server a host name belongs to (bounded)."""
        if self._hosts >= _REMEMBERED:
            self._runtime.forget_hosts(self.number)
            self._hosts = 0
        self._hosts += 1
        self._runtime.remember_host(self.number, host, plan.number)
