"""A log whose lines somebody else receives as well: ``ngx.errlog``, or who observes a server."""

from __future__ import annotations

from collections.abc import Callable

from trio_lua.log.error_log import Log

__all__ = ["TeeLog"]


class TeeLog:
    """A log, and a function beside it.

    Args:
        log: Where lines go.
        also: Receives level, message and connection of each line that goes there.
    """

    __slots__ = ("_also", "_log")

    def __init__(self, log: Log, also: Callable[[int, bytes, int], None]) -> None:
        self._log = log
        self._also = also

    @property
    def level(self) -> int:
        """As for any log."""
        return self._log.level

    @level.setter
    def level(self, level: int) -> None:
        self._log.level = level

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        """Write a message, and hand it on."""
        self._log.log(level, message, connection)
        if level <= self._log.level:
            self._also(level, message, connection)

    def reopen(self) -> None:
        """As for any log."""
        self._log.reopen()

    def close(self) -> None:
        """As for any log."""
        self._log.close()
