"""The error logs of a worker: the main one, and those that parts of the configuration have for themselves."""

from __future__ import annotations

from collections.abc import Callable

from trio_lua.config.model import Config, Settings
from trio_lua.log.capture import LogBuffer
from trio_lua.log.error_log import ErrorLog, Log
from trio_lua.log.files import LogFiles
from trio_lua.log.tee import TeeLog
from trio_lua.server.observe import Audience

__all__ = ["ErrorLogs"]


class ErrorLogs:
    """Opens logs, and wraps them for those who look on.

    Args:
        config: The configuration.
        main: The main error log.
        files: The files that the worker opens.
        clock: Seconds since the epoch.
        captured: The lines that ``ngx.errlog`` keeps, if it does.
        audience: Who is told of lines.

    Attributes:
        main: The main error log.
        sinks: All logs, by number; 0 is the main one.
    """

    def __init__(
        self,
        config: Config,
        main: Log,
        *,
        files: LogFiles,
        clock: Callable[[], float],
        captured: LogBuffer | None,
        audience: Audience | None,
    ) -> None:
        self._prefix = config.prefix
        self._files = files
        self._clock = clock
        self._captured = captured
        self._audience = audience
        self._numbers: dict[object, int] = {}
        self.main = self._wrapped(main)
        self.sinks: list[Log] = [self.main]

    def _wrapped(self, log: Log) -> Log:
        if self._audience is not None:
            log = TeeLog(log, self._audience.record)
        return log if self._captured is None else TeeLog(log, self._captured.add)

    def sink_of(self, settings: Settings) -> tuple[int, int]:
        """Number and level of the log of a location."""
        own = settings.error_log
        if own is None:
            return 0, self.main.level
        number = self._numbers.get(own)
        if number is None:
            log = ErrorLog(
                own.file, own.level, prefix=self._prefix, files=self._files, clock=self._clock
            )
            number = self._numbers[own] = len(self.sinks)
            self.sinks.append(self._wrapped(log))
        return number, self.sinks[number].level
