"""An error log that a test can read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from trio_lua.log.error_log import DEBUG, ERROR, LEVELS, NAMES

__all__ = ["LogRecord", "LogRecords"]


@dataclass(frozen=True)
class LogRecord:
    """One record.

    Attributes:
        level: nginx's name of the level, such as ``error``; "" for ``ngx.STDERR``.
        message: The text without time and process, the request's suffix included.
        connection: The number of the connection; 0 for none.
    """

    level: str
    message: str
    connection: int = 0

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
    """

    def __init__(self, level: str = "debug") -> None:
        self.level = LEVELS.get(level, DEBUG)
        self.records: list[LogRecord] = []
        self._allowed: list[re.Pattern[str]] = []

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        """Take a record; the server calls this."""
        text = message.decode("utf-8", "replace")
        self.records.append(LogRecord(NAMES[level], text, connection))

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
