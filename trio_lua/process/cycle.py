"""One configuration in use: its error log, its listening sockets and its shared dictionaries (nginx: a cycle).

A reload makes a second cycle beside the first, which takes over the sockets whose
addresses stay and the dictionaries whose name and size stay; when its worker runs, the first one is closed. When anything of the new
cycle fails, it is undone and the old one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from trio_lua.config.model import Config
from trio_lua.errors import LuaError, TrioLuaError
from trio_lua.log.error_log import ALERT, EMERG, ERROR, ErrorLog, Log
from trio_lua.log.files import os_error
from trio_lua.net.tls_server import check_certificates
from trio_lua.process.sockets import ListenError, Listeners, listens_of
from trio_lua.shm.zone import Zone, open_zones

__all__ = ["Cycle", "detach", "leaves", "open_cycle", "report", "resized"]


@dataclass(frozen=True, slots=True)
class Cycle:
    """A configuration with what the process holds open for it."""

    config: Config
    error_log: Log
    listeners: Listeners
    #: The memory of the shared dictionaries; freed when neither a cycle nor a worker has it any more.
    zones: Mapping[str, Zone] = field(default_factory=dict)

    def close(self, keep: Cycle | None = None) -> None:
        """Close log and sockets, except for what ``keep`` goes on using."""
        if keep is None:
            self.listeners.close(error_log=self.error_log)
        else:
            self.listeners.close(error_log=keep.error_log, keep=keep.listeners)
        if keep is None or keep.error_log is not self.error_log:
            self.error_log.close()


def open_cycle(
    config: Config,
    *,
    default_log: str,
    previous: Cycle | None = None,
    adopted: Listeners | None = None,
    console: bytes | None = None,
    test: bool = False,
    tries: int = 5,
    bind: Callable[..., Listeners] = Listeners.bind,
) -> Cycle:
    """Open the error log of a configuration, make its shared dictionaries and bind its sockets.

    Args:
        config: The configuration.
        default_log: The error log when the configuration names none.
        previous: The cycle in use, on a reload.
        adopted: Sockets that the process inherited, for addresses of the configuration. They
            belong to the cycle from now on.
        console: See :class:`ErrorLog`.
        test: Bind for a try only.
        tries: See :meth:`Listeners.bind`.
        bind: Replaces :meth:`Listeners.bind` in tests.

    Raises:
        ConfigError: The log cannot be opened, or a certificate not be used.
        ListenError: A socket cannot be bound.
        TrioLuaError: There is not enough memory for a shared dictionary.
    """
    available = adopted if previous is None else previous.listeners
    error_log = ErrorLog.open(
        [(log.file, log.level) for log in config.error_logs],
        default=default_log,
        prefix=config.prefix,
        console=console,
    )
    try:
        # in the process that may read the keys, and that all workers come from
        check_certificates(config)
        zones = open_zones(config.http.shared_dicts, None if previous is None else previous.zones)
        listeners = bind(
            listens_of(config),
            error_log=error_log,
            previous=available,
            workers=config.worker_processes if config.master_process else 1,
            test=test,
            tries=tries,
        )
    except BaseException:
        error_log.close()
        raise
    return Cycle(config, error_log, listeners, zones)


def resized(current: Cycle, workers: int, *, default_log: str) -> Cycle | None:
    """The same configuration with another number of workers; None, with the reason in the log, if that fails."""
    config = replace(current.config, worker_processes=workers)
    try:
        return open_cycle(config, default_log=default_log, previous=current)
    except ListenError:
        return None
    except TrioLuaError as exc:
        report(current.error_log, exc)
        return None


def report(error_log: Log, error: BaseException) -> None:
    """Write to the log why something did not start or stopped running.

    What is wrong on the user's side takes one line (Lua's traceback follows it); a traceback
    of Python is left for what nobody foresaw.
    """
    for single in leaves(error):
        if isinstance(single, ListenError):
            continue
        if isinstance(single, LuaError):
            text = f"{single.message}\n{single.traceback}" if single.traceback else single.message
            level = ERROR
        elif isinstance(single, TrioLuaError):
            text, level = str(single), EMERG
        elif isinstance(single, OSError) and single.errno:
            name = f' "{single.filename}"' if single.filename is not None else ""
            text, level = f"system error{name} {os_error(single)}", ALERT
        else:
            import traceback

            for part in traceback.format_exception(single):
                for line in part.rstrip("\n").split("\n"):
                    error_log.log(ALERT, line.encode("utf-8", "backslashreplace"))
            continue
        error_log.log(level, text.encode("utf-8", "surrogateescape"))


def detach(cycle: Cycle) -> None:
    """From now on the log is the only place for messages, whoever writes them."""
    log = cycle.error_log
    if isinstance(log, ErrorLog):
        log.console = None
        log.take_stderr()


def leaves(error: BaseException) -> list[BaseException]:
    """The errors inside nested exception groups."""
    inner = getattr(error, "exceptions", None)
    if not isinstance(inner, tuple):
        return [error]
    return [leaf for member in inner for leaf in leaves(member)]
