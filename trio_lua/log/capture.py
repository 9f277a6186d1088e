"""``lua_capture_error_log``: the latest lines of the error log in memory, for ``ngx.errlog``.

What is captured is what goes to the log, at a level that Lua may lower further. Threads of pools log as well, so there is a
lock. The oldest lines make room for new ones, as many as in OpenResty: there the lines lie in a ring of bytes, each in
one piece, so the places count here although the bytes are elsewhere.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from threading import Lock, get_native_id

from trio_lua.log.error_log import DEBUG, NAMES

__all__ = ["LogBuffer"]

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

    __slots__ = ("_clock", "_lines", "_lock", "_size", "_tail", "level")

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        #: Where each line lies, its level, its time and its text.
        self._lines: deque[tuple[int, int, float, bytes]] = deque()
        self._lock = Lock()
        self._tail = 0
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
        with self._lock:
            at = self._make_room(len(line) + _HEADER)
            self._lines.append((at, level, now, line))

    def _make_room(self, size: int) -> int:
        """Drop what lies in the way of the next line; where that goes."""
        lines, at = self._lines, self._tail if self._lines else 0
        if at + size > self._size:
            while lines and lines[0][0] >= at:
                lines.popleft()
            at = 0
        while lines and at <= lines[0][0] < at + size:
            lines.popleft()
        if not lines:
            at = 0
        self._tail = at + size
        return at

    def take(self) -> tuple[int, float, bytes] | None:
        """Remove the oldest line: its level, its time and its text; None when there is none."""
        with self._lock:
            return self._lines.popleft()[1:] if self._lines else None
