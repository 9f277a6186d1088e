"""``ngx.log`` and all error.log lines about requests: where they go."""

from __future__ import annotations

from trio_lua.log.error_log import Log
from trio_lua.lua.ops import OpTable

__all__ = ["install"]


def install(table: OpTable, sinks: list[Log]) -> None:
    """Add ``rt.py.log(sink, level, message, suffix, connection)``.

    Args:
        table: Where to add it.
        sinks: The error logs of the configuration by number; 0 is the main one. A location with an
            ``error_log`` of its own has a number of its own.
    """

    def log(sink: int, level: int, message: bytes, suffix: bytes, connection: int) -> None:
        sinks[sink].log(level, message + suffix, connection)

    table.call("log", log)
