"""SIGUSR2: a new executable beside the old one, on the same sockets, without a refused connection.

The protocol is nginx's: the new process finds the numbers of the listening sockets in the environment variable ``NGINX``,
``6;7;``, and the old one's pid file has moved to ``.oldbin``. Whoever upgrades then tells the old master to quit, or the
new one, if it is no good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from trio_lua.errors import TrioLuaError
from trio_lua.log.error_log import ALERT, EMERG, NOTICE, Log
from trio_lua.log.files import os_error
from trio_lua.process.sockets import ListenError, Listeners

if TYPE_CHECKING:
    from trio_lua.process.children import Processes
    from trio_lua.process.cycle import Cycle

__all__ = ["OLD_SUFFIX", "VARIABLE", "Upgrade", "inherited_listeners"]

VARIABLE = "NGINX"
OLD_SUFFIX = ".oldbin"


class Upgrade:
    """Starts the successor of a master.

    Args:
        arguments: The command line to start it with, the program's path first.
        environment: The environment that this process was started with.
        pid_path: Where the pid file of a cycle lies.
        predecessor: The pid of the process whose successor this one is; 0 for none.

    Attributes:
        pid: The successor that runs; 0 if there is none.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        pid_path: Callable[[Cycle], str],
        *,
        predecessor: int = 0,
    ) -> None:
        self.pid = 0
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._pid_path = pid_path
        self._predecessor = predecessor

    def start(self, processes: Processes, cycle: Cycle) -> None:
        """Start it; what goes wrong is in the log."""
        log = cycle.error_log
        if self.pid or (self._predecessor and os.getppid() == self._predecessor):
            log.log(
                NOTICE,
                b"the changing binary signal is ignored: you should shutdown or terminate before "
                b"either old or new binary's process",
            )
            return
        log.log(NOTICE, b"changing binary")
        path = self._pid_path(cycle)
        if not _rename(path, path + OLD_SUFFIX, log):
            return
        fds = cycle.listeners.fds
        environment = {**self._environment, VARIABLE: "".join(f"{fd};" for fd in fds)}
        try:
            self.pid = processes.execute(self._arguments, environment, fds)
        except OSError as exc:
            name = self._arguments[0]
            message = f'execve() failed while executing new binary process "{name}" {os_error(exc)}'
            log.log(ALERT, message.encode("utf-8", "surrogateescape"))
            _rename(path + OLD_SUFFIX, path, log)
            return
        log.log(NOTICE, b"start new binary process %d" % self.pid)

    def ended(self, cycle: Cycle) -> None:
        """It has ended, and this process is the only one again."""
        self.pid = 0
        path = self._pid_path(cycle)
        _rename(path + OLD_SUFFIX, path, cycle.error_log)


def _rename(old: str, new: str, log: Log) -> bool:
    try:
        os.rename(old, new)
    except OSError as exc:
        message = f"rename() {old} to {new} failed {os_error(exc)}"
        log.log(ALERT, message.encode("utf-8", "surrogateescape"))
        return False
    return True


def inherited_listeners(value: str, log: Log) -> Listeners:
    """The sockets that the predecessor has named.

    Raises:
        ListenError: One of them is no listening socket.
    """
    log.log(NOTICE, f'using inherited sockets from "{value}"'.encode())
    listeners = Listeners()
    for number in value.replace(":", ";").split(";"):
        if not number:
            continue
        try:
            listeners.adopt(int(number), own_file=True)
        except (ValueError, OSError, TrioLuaError) as exc:
            message = f'invalid socket number "{number}" in {VARIABLE} environment variable: {exc}'
            log.log(EMERG, message.encode("utf-8", "surrogateescape"))
            listeners.close(leave_files=True)
            raise ListenError(message) from None
    return listeners
