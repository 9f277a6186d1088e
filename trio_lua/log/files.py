"""Log files: append-only, one system call per line, reopened by name on request.

A line is written by a single ``write`` on a descriptor opened with ``O_APPEND``, so
lines of several processes never mix, a reader sees a line as soon as the call that
logged it returned, and log rotation needs nothing but :meth:`LogFiles.reopen`.

A path is opened once however many directives name it (nginx: ``open_files``).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from trio_lua.errors import ConfigError

__all__ = ["STDERR", "LogFile", "LogFiles", "os_error", "resolve"]

#: The name of the standard error stream in ``error_log``.
STDERR = "stderr"

#: Names of the inherited streams: opening these by path would fail where they are sockets.
_STREAMS = {STDERR: 2, "/dev/stderr": 2, "/dev/stdout": 1}

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT


def os_error(error: OSError) -> str:
    """An operating system error as nginx writes it: ``(2: No such file or directory)``."""
    number = error.errno or 0
    return f"({number}: {os.strerror(number)})"


def resolve(path: str, prefix: str) -> str:
    """The path of a log file: relative ones lie under ``prefix``, ``"stderr"`` stays."""
    if path.startswith("/") or not prefix or path == STDERR:
        return path
    return prefix + path if prefix.endswith("/") else f"{prefix}/{path}"


class LogFile:
    """One open log file.

    Args:
        path: Where it lies. ``"stderr"``, ``"/dev/stderr"`` and ``"/dev/stdout"`` are the
            streams that the process inherited; they are never reopened or closed.

    Raises:
        OSError: The file cannot be opened for appending.
    """

    __slots__ = ("_full_until", "_stream", "fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._stream = path in _STREAMS
        self.fd = _STREAMS[path] if self._stream else os.open(path, _FLAGS, 0o644)
        self._full_until = 0.0

    def write(self, line: bytes) -> None:
        """Append a line. Failures are dropped: there is no place left to report them.

        After ``ENOSPC`` the file is left alone for a second, as a write to a full file
        system can block for long.
        """
        if self._full_until:
            if time.monotonic() < self._full_until:
                return
            self._full_until = 0.0
        try:
            os.write(self.fd, line)
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                self._full_until = time.monotonic() + 1.0

    def reopen(self) -> None:
        """Open the path again, as after a rotation; on failure the old file stays in use.

        Raises:
            OSError: The path cannot be opened.
        """
        if self._stream or self.fd < 0:
            return
        fd = os.open(self.path, _FLAGS, 0o644)
        # the number stays: a thread may be about to write to it
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)

    def close(self) -> None:
        """Close it; later writes are dropped."""
        if not self._stream and self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


class LogFiles:
    """The log files of a process, by path."""

    def __init__(self) -> None:
        self._files: dict[str, LogFile] = {}

    def open(self, path: str) -> LogFile:
        """The open file of that (absolute) path or stream.

        Raises:
            ConfigError: It cannot be opened, with nginx's message.
        """
        file = self._files.get(path)
        if file is None:
            try:
                file = LogFile(path)
            except OSError as exc:
                raise ConfigError(f'open() "{path}" failed {os_error(exc)}') from None
            self._files[path] = file
        return file

    def write_once(self, path: str, line: bytes) -> None:
        """Append a line to a file that is opened for it alone: a path that holds variables.

        Args:
            path: The path.
            line: The line, with its line feed.

        Raises:
            OSError: The file cannot be opened.
        """
        file = LogFile(path)
        try:
            file.write(line)
        finally:
            file.close()

    def reopen(self, failed: Callable[[str], None]) -> None:
        """Reopen every file by name; ``failed`` receives a message for each that cannot be."""
        for path, file in list(self._files.items()):
            try:
                file.reopen()
            except OSError as exc:
                failed(f'open() "{path}" failed {os_error(exc)}')

    @property
    def paths(self) -> list[str]:
        """The paths of those that are files, and not streams."""
        return [path for path in self._files if path not in _STREAMS]

    def close(self) -> None:
        """Close all of them."""
        for file in self._files.values():
            file.close()
        self._files.clear()
