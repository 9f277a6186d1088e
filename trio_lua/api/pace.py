"""``limit_rate``: from the configuration and ``$limit_rate`` to the connection (see :mod:`trio_lua.server.pace`)."""

from __future__ import annotations

from collections.abc import Mapping

from trio_lua.config.units import parse_size
from trio_lua.lua.ops import OpTable
from trio_lua.request.context import ClientConnection

__all__ = ["install"]


def install(table: OpTable, connections: Mapping[int, ClientConnection]) -> None:
    """Add the calls ``pace`` and ``parse_size``."""

    def pace(connection: int, rate: float, after: float) -> None:
        connections[connection].pace(int(rate), int(after))

    def size(text: bytes) -> int | None:
        try:
            return parse_size(text.decode("ascii", "replace"))
        except ValueError:
            return None

    table.call("pace", pace)
    table.call("parse_size", size)
