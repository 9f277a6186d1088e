"""What a listening address means: its servers, and which of them a request gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_lua.http.h11_protocol import HeadLimits
from trio_lua.phases.matcher import ServerTable
from trio_lua.phases.plan import Plans, ServerPlan

if TYPE_CHECKING:
    from trio_lua.request.state import Request

__all__ = ["Endpoint"]


class Endpoint:
    """The servers behind one listening address.

    Args:
        table: The servers by name.
        plans: The plans of the configuration.
        recognise: Whether plain heads take the short way; off, every head goes to h11.
    """

    __slots__ = ("_plans", "_single", "_table", "default", "limits", "recognise")

    def __init__(self, table: ServerTable, plans: Plans, *, recognise: bool = True) -> None:
        self._table = table
        self._plans = plans.servers
        self.default: ServerPlan = self._plans[id(table.default)]
        self.recognise = recognise
        server = table.default
        count, size = server.large_client_header_buffers
        self.limits = HeadLimits(server.client_header_buffer_size, count, size)
        self._single = (
            not [name for s in [server] for name in s.names if name] and len(plans.servers) == 1
        )

    def server(self, host: bytes, request: Request) -> ServerPlan:
        """The server for a host name."""
        if self._single:
            return self.default
        match = self._table.find(host)
        if match.captures is not None:
            request.set_captures(match.captures)
            for name, value in match.variables:
                request.set_variable(name, value)
        return self._plans[id(match.server)]
