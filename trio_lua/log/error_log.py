"""The error log: nginx's line format, levels and sinks.

Tools that read nginx's error.log read this one: a line is

    2026/11/21 02:03:24 [error] PID#TID: *CONNECTION message

and is cut to 2048 bytes with its line feed, as nginx does. The message is bytes, since
it mostly comes from Lua and from clients; who calls :meth:`ErrorLog.log` composes it whole
(with ``, client: ...`` at its end). ``level`` is a plain attribute, so that a caller whose
message would be dropped compares two integers and skips the work of composing it.

:class:`LoggingErrorLog` has the same interface and hands everything to :mod:`logging`, for
programs that embed the server. Everything that logs is typed against :class:`Log`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from threading import get_native_id
from typing import TYPE_CHECKING, Protocol

from trio_lua.errors import ConfigError
from trio_lua.log.files import STDERR, LogFile, LogFiles, resolve
from trio_lua.log.syslog import PREFIX, Syslog

if TYPE_CHECKING:
    import logging

__all__ = [
    "ALERT",
    "CRIT",
    "DEBUG",
    "EMERG",
    "ERROR",
    "INFO",
    "LEVELS",
    "NAMES",
    "NOTICE",
    "WARN",
    "ErrorLog",
    "Log",
    "LoggingErrorLog",
    "NullErrorLog",
]

#: nginx's levels by number; 0 is ``ngx.STDERR``, which has no name in a line.
NAMES = ("", "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")
LEVELS = {name: number for number, name in enumerate(NAMES) if name}
EMERG, ALERT, CRIT, ERROR, WARN, NOTICE, INFO, DEBUG = range(1, 9)

_TAGS = tuple(b" [" + name.encode() + b"] " for name in NAMES)
_MAX_LINE = 2048


class Log(Protocol):
    """What receives error messages."""

    #: The highest (least serious) level that is written anywhere.
    level: int

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        """Write a message; ``connection`` is the connection's number, 0 for none."""

    def reopen(self) -> None:
        """Open the files again by name."""

    def close(self) -> None:
        """Close the files."""


class ErrorLog:
    """Writes to one or more files, each with its own level.

    Args:
        path: A file, or ``"stderr"``; relative paths lie under ``prefix``.
        level: nginx's name of the least serious level to write.
        prefix: The server's prefix directory.
        files: Where files are opened and shared with other logs; by default an own set.
        clock: Seconds since the epoch.
        console: What precedes a message on the standard error stream, such as ``b"nginx: "``.
            While set, messages of level ``warn`` and worse appear there as well (unless a sink
            is the stream itself): the rule for a server that has not gone to the background.
        max_line: Bytes of the longest line, with its line feed.

    Raises:
        ConfigError: The file cannot be opened, or the level or kind of log does not exist.
    """

    __slots__ = (
        "_clock",
        "_files",
        "_heads",
        "_max",
        "_own",
        "_second",
        "_sinks",
        "_stderr",
        "_syslogs",
        "console",
        "level",
    )

    def __init__(
        self,
        path: str = STDERR,
        level: str = "error",
        *,
        prefix: str = "",
        files: LogFiles | None = None,
        clock: Callable[[], float] = time.time,
        console: bytes | None = None,
        max_line: int = _MAX_LINE,
    ) -> None:
        self._own = files is None
        self._files = LogFiles() if files is None else files
        self._clock = clock
        self._max = max_line
        self._second = -1
        self._heads: dict[tuple[int, int], bytes] = {}
        self._sinks: tuple[tuple[int, LogFile], ...] = ()
        self._syslogs: tuple[tuple[int, Syslog], ...] = ()
        self._stderr = False
        self.console = console
        self.level = 0
        self.add(path, level, prefix=prefix)

    @classmethod
    def open(
        cls,
        logs: Iterable[tuple[str, str]],
        *,
        default: str,
        prefix: str = "",
        files: LogFiles | None = None,
        clock: Callable[[], float] = time.time,
        console: bytes | None = None,
        max_line: int = _MAX_LINE,
    ) -> ErrorLog:
        """The log of several ``error_log`` directives, given as (file, level).

        Without any file among them ``default`` is one, at level ``error``.
        """
        wanted = list(logs) or [(default, "error")]
        (path, level), *others = wanted
        log = cls(
            path,
            level,
            prefix=prefix,
            files=files,
            clock=clock,
            console=console,
            max_line=max_line,
        )
        for path, level in others:
            log.add(path, level, prefix=prefix)
        if not log._sinks:
            log.add(default, prefix=prefix)
        return log

    def add(self, path: str, level: str = "error", *, prefix: str = "") -> None:
        """Add a sink.

        Raises:
            ConfigError: As for the class.
        """
        number = LEVELS.get(level)
        if number is None:
            raise ConfigError(f'invalid log level "{level}"')
        self.level = max(self.level, number)
        if path.startswith(PREFIX):
            self._syslogs = (*self._syslogs, (number, Syslog(path.removeprefix(PREFIX))))
            return
        if path.startswith("memory:"):
            raise ConfigError('"error_log" to "memory:" is not supported, use a file or stderr')
        file = self._files.open(resolve(path or STDERR, prefix))
        self._sinks = (*self._sinks, (number, file))

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        """Write a message to every sink that takes the level."""
        if level > self.level:
            return
        second = int(self._clock())
        if second != self._second:
            self._heads = {}
            self._second = second
        # threads log, too; and a fork changes the thread id, so this notices a new process
        key = get_native_id(), level
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = _head(level, second, key[0])
        line = (
            b"%b*%d %b\n" % (head, connection, message)
            if connection
            else b"%b%b\n" % (head, message)
        )
        if len(line) > self._max:
            line = line[: self._max - 1] + b"\n"
        on_stderr = False
        for limit, file in self._sinks:
            if level <= limit:
                file.write(line)
                on_stderr = on_stderr or file.fd == 2
        for limit, syslog in self._syslogs:
            if level <= limit:
                syslog.write(line[:-1], max(0, level - 1))
        if self.console is not None and level <= WARN and not on_stderr:
            try:
                os.write(2, b"%b[%b] %b\n" % (self.console, NAMES[level].encode(), message))
            except OSError:
                self.console = None

    def take_stderr(self) -> None:
        """Send what anybody writes to the standard error stream to the first file, from now on."""
        if not self._sinks or any(file.fd == 2 for _, file in self._sinks):
            return
        self._stderr = True
        os.dup2(self._sinks[0][1].fd, 2)

    @property
    def paths(self) -> list[str]:
        """The paths of the files."""
        return self._files.paths

    def reopen(self) -> None:
        """Open the files again by name; one that cannot be opened stays as it is."""
        self._files.reopen(
            lambda message: self.log(EMERG, message.encode("utf-8", "surrogateescape"))
        )
        if self._stderr:
            self.take_stderr()

    def close(self) -> None:
        """Close the files, unless they were handed in."""
        for _, syslog in self._syslogs:
            syslog.close()
        if self._own:
            self._files.close()


def _head(level: int, second: int, tid: int) -> bytes:
    stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(second)).encode()
    return b"%b%b%d#%d: " % (stamp, _TAGS[level], os.getpid(), tid)


class LoggingErrorLog:
    """Forwards to a :class:`logging.Logger`.

    A record carries ``nginx_level`` (the level's name) and ``connection``.

    Args:
        logger: By default the one named ``trio_lua.error``.
        level: The least serious level to forward; by default what the logger is set to.
    """

    __slots__ = ("_levels", "_logger", "level")

    def __init__(self, logger: logging.Logger | None = None, level: str | None = None) -> None:
        # on first use, as a server that writes files never needs the module
        import logging

        self._logger = logging.getLogger("trio_lua.error") if logger is None else logger
        self._levels = (
            *(logging.CRITICAL,) * 4,
            logging.ERROR,
            logging.WARNING,
            logging.INFO,
            logging.INFO,
            logging.DEBUG,
        )
        if level is not None:
            if level not in LEVELS:
                raise ConfigError(f'invalid log level "{level}"')
            self.level = LEVELS[level]
        else:
            enabled = self._logger.isEnabledFor
            self.level = max((n for n, std in enumerate(self._levels) if enabled(std)), default=-1)

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        """Forward a message; bytes that are not UTF-8 appear as ``\\xNN``."""
        if level > self.level:
            return
        self._logger.log(
            self._levels[level],
            "%s",
            message.decode("utf-8", "backslashreplace"),
            extra={"nginx_level": NAMES[level] or STDERR, "connection": connection},
        )

    def reopen(self) -> None:
        """Nothing: the files belong to the logger's handlers."""

    def close(self) -> None:
        """Nothing: the files belong to the logger's handlers."""


class NullErrorLog:
    """Drops everything."""

    __slots__ = ("level",)

    def __init__(self) -> None:
        self.level = -1

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        """Drop a message."""

    def reopen(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
