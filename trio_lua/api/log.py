"""``ngx.log`` and all error.log lines about requests: where they go."""

from __future__ import annotations

from trio_lua.log.capture import LogBuffer
from trio_lua.log.error_log import Log
from trio_lua.lua.ops import OpTable

__all__ = ["install"]


def install(table: OpTable, sinks: list[Log], captured: LogBuffer | None = None) -> None:
    """Add ``rt.py.log(sink, level, message, suffix, connection)``, and what ``ngx.errlog`` needs.

    Args:
        table: Where to add it.
        sinks: The error logs of the configuration by number; 0 is the main one. A location with an
            ``error_log`` of its own has a number of its own.
        captured: The lines that are kept for ``ngx.errlog``, if any.
    """

    def log(sink: int, level: int, message: bytes, suffix: bytes, connection: int) -> None:
        sinks[sink].log(level, message + suffix, connection)

    def capture_level(level: int) -> None:
        assert captured is not None
        captured.level = level

    table.call("log", log)
    if captured is not None:
        table.call("capture_level", capture_level)
        table.call("captured", captured.take)
