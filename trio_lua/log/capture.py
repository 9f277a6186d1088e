"""``lua_capture_error_log``: the latest lines of the error log in memory, for ``ngx.errlog``.

What is captured is what goes to the log, at a level that Lua may lower further. The oldest lines make
room for new ones.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from threading import get_native_id

from trio_lua.log.error_log import DEBUG, NAMES, Log

__all__ = ["CapturedLog", "LogBuffer"]

#: What a line costs beside its bytes, and where it is cut: as in OpenResty.
_HEADER, _MAX_LINE = 16, 4096


class LogBuffer:
    """The captured lines.

    Args:
        size: How many bytes there is room for.
        clock: Seconds since the epoch.

    Attributes:
        level: The least serious level that is captured (1 is emerg, 8 is debug).
    """

    __slots__ = ("_clock", "_lines", "_size", "_used", "level")

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        self._lines: deque[tuple[int, float, bytes]] = deque()
        self._used = 0
        self.level = DEBUG

    def add(self, level: int, message: bytes, connection: int) -> None:
        """Capture a message."""
        if level > self.level:
            return
        now = self._clock()
        stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(now))
        number = f"*{connection} " if connection else ""
        head = f"{stamp} [{NAMES[level]}] {os.getpid()}#{get_native_id()}: {number}"
        line = (head.encode() + message)[:_MAX_LINE]
        if len(line) + _HEADER > self._size:
            line = line[: self._size - _HEADER]
        self._used += len(line) + _HEADER
        self._lines.append((level, now, line))
        while self._used > self._size:
            self.take()

    def take(self) -> tuple[int, float, bytes] | None:
        """Remove the oldest line: its level, its time and its text; None when there is none."""
        if not self._lines:
            return None
        entry = self._lines.popleft()
        self._used -= len(entry[2]) + _HEADER
        return entry


class CapturedLog:
    """A log whose lines are captured.

    Args:
        log: Where they go.
        buffer: Where they are kept as well.
    """

    __slots__ = ("_buffer", "_log")

    def __init__(self, log: Log, buffer: LogBuffer) -> None:
        self._log = log
        self._buffer = buffer

    @property
    def level(self) -> int:
        """As for any log."""
        return self._log.level

    @level.setter
    def level(self, level: int) -> None:
        self._log.level = level

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        """Write and capture a message."""
        if level <= self._log.level:
            self._buffer.add(level, message, connection)
        self._log.log(level, message, connection)

    def reopen(self) -> None:
        """As for any log."""
        self._log.reopen()

    def close(self) -> None:
        """As for any log."""
        self._log.close()
