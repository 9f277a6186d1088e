"""Logs that a test can read: error.log as records, the others as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trio_lua.log.error_log import DEBUG, ERROR, LEVELS, NAMES
from trio_lua.log.files import LogFile, LogFiles

__all__ = ["LogRecord", "LogRecords", "MemoryLogFiles"]


@dataclass(frozen=True)
class LogRecord:
    """One record.

    Attributes:
        level: nginx's name of the level, such as ``error``; "" for ``ngx.STDERR``.
        message: The text without time and process, the request's suffix included.
        connection: The number of the connection; 0 for none.
        time: When, in seconds since 1970 on the run's clock; 0 where there is no server.
    """

    level: str
    message: str
    connection: int = 0
    time: float = 0.0

    @property
    def number(self) -> int:
        """nginx's number of the level: the less, the more serious."""
        return LEVELS.get(self.level, 0)

    def __str__(self) -> str:
        return f"[{self.level}] {self.message}"


class LogRecords:
    """Takes the place of error.log.

    Args:
        level: The least serious level to keep.

    Attributes:
        clock: Seconds since 1970; set by the server that writes.
    """

    def __init__(self, level: str = "debug") -> None:
        self.level = LEVELS.get(level, DEBUG)
        self.records: list[LogRecord] = []
        self.clock: Callable[[], float] = lambda: 0.0
        self._allowed: list[re.Pattern[str]] = []

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        """Take a record; the server calls this."""
        text = message.decode("utf-8", "replace")
        self.records.append(LogRecord(NAMES[level], text, connection, self.clock()))

    def reopen(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close."""

    def __iter__(self) -> Iterator[LogRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __contains__(self, text: str) -> bool:
        """Whether some message contains a text."""
        return any(text in record.message for record in self.records)

    def at(self, level: str) -> list[LogRecord]:
        """The records of a level and of those that are more serious."""
        limit = LEVELS[level]
        return [record for record in self.records if record.number <= limit]

    def matching(self, pattern: str) -> list[LogRecord]:
        """The records in whose message a regular expression is found."""
        return [record for record in self.records if re.search(pattern, record.message)]

    def clear(self) -> None:
        """Forget what has come."""
        self.records.clear()

    def allow(self, pattern: str) -> None:
        """Records that match are expected: they do not fail the test."""
        self._allowed.append(re.compile(pattern))

    def unexpected(self) -> list[LogRecord]:
        """The records of level ``error`` and above that nobody has allowed."""
        return [
            record
            for record in self.records
            if record.number <= ERROR
            and not any(pattern.search(record.message) for pattern in self._allowed)
        ]

    def __str__(self) -> str:
        return "\n".join(map(str, self.records))


class _MemoryFile(LogFile):
    """A log file that is none."""

    __slots__ = ("_lines",)

    def __init__(self, path: str, lines: list[str]) -> None:
        self.path = path
        self.fd = -1
        self._lines = lines

    def write(self, line: bytes) -> None:
        self._lines.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


class MemoryLogFiles(LogFiles):
    """Takes the place of all log files.

    Attributes:
        lines: What is in them, by path.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, list[str]] = {}

    def open(self, path: str) -> LogFile:
        """A file in memory."""
        return _MemoryFile(path, self.lines.setdefault(path, []))

    def write_once(self, path: str, line: bytes) -> None:
        """Write to one."""
        self.open(path).write(line)
