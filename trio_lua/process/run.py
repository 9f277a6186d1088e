"""From a cycle to an exit status: the event loop, the worker, and the clean-up behind them.

Both commands end here, ``trio-lua-nginx`` with a pid file and a parent that waits, ``trio-lua
serve`` with a line on the terminal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_lua.config.model import Config
from trio_lua.errors import TrioLuaError
from trio_lua.log.error_log import ALERT, EMERG, NOTICE, Log
from trio_lua.log.files import resolve
from trio_lua.process import environment, pidfile
from trio_lua.process.cycle import Cycle, detach, report
from trio_lua.process.daemon import Ready
from trio_lua.process.single import RunWorker, SingleProcess, StartError, Worker

if TYPE_CHECKING:
    from trio_lua.ipc.mesh import Mesh
    from trio_lua.process.children import Children
    from trio_lua.process.master import Master

__all__ = ["PidFile", "default_worker", "pid_path", "prepare", "run", "run_master", "run_nginx"]


def pid_path(config: Config) -> str:
    """Where the pid file of a configuration lies."""
    return resolve(config.pid, config.prefix)


def prepare(config: Config, inherited: Mapping[str, str], log: Log) -> None:
    """Make the process what the configuration wants before its worker runs.

    Args:
        config: The configuration.
        inherited: The environment that the command was started with.
        log: Where a limit that the system refuses is reported; nginx goes on, too.

    Raises:
        TrioLuaError: ``working_directory`` cannot be entered.
    """
    environment.apply(config.env, inherited)
    try:
        environment.limit_files(config.worker_rlimit_nofile)
    except TrioLuaError as exc:
        log.log(ALERT, str(exc).encode())
    environment.change_folder(config.working_directory)


def default_worker(product: str | None = None) -> RunWorker:
    """The server's worker, imported when it is first needed.

    Args:
        product: What ``Server`` names; nginx by default.
    """
    from trio_lua.server.worker import run_worker

    return run_worker if product is None else partial(run_worker, product=product)


def run(process: SingleProcess, finish: Callable[[Cycle], None] | None = None) -> int:
    """Run it and return the exit status.

    At the end ``finish`` is called with the cycle in use, then that is closed.
    """
    try:
        with environment.large_stack():
            return trio.run(process.run)
    except StartError:
        return 1
    finally:
        if finish is not None:
            finish(process.cycle)
        process.cycle.close()


def run_master(
    master: Master,
    children: Children,
    mesh: Mesh,
    finish: Callable[[Cycle], None] | None = None,
) -> int:
    """Run a master and return the exit status.

    At the end ``finish`` is called with the cycle in use, then that is closed.
    """
    try:
        with environment.large_stack(), children, contextlib.closing(mesh):
            return master.run()
    except Exception as exc:
        report(master.cycle.error_log, exc)
        return 1
    finally:
        if finish is not None:
            finish(master.cycle)
        master.cycle.close()


class PidFile:
    """The pid file of the process behind nginx's command line, and what belongs to the same moments.

    Args:
        announce: The parent that waits, if there is one.
    """

    def __init__(self, announce: Ready | None = None) -> None:
        self._announce = announce
        #: Where it lies; None before it is written.
        self.path: str | None = None

    def write(self, cycle: Cycle) -> None:
        """The first workers serve: write it."""
        path = pid_path(cycle.config)
        pidfile.write(path)
        self.path = path

    def announce(self, cycle: Cycle) -> None:
        """Leave the terminal, and tell the parent."""
        detach(cycle)
        if self._announce is not None:
            self._announce.notify()

    def replaced(self, new: Cycle, old: Cycle) -> None:
        """After a reload it may have to lie elsewhere."""
        detach(new)
        path, before = pid_path(new.config), pid_path(old.config)
        if path != before:
            pidfile.write(path)
            self.path = path
            pidfile.remove(before)

    def finish(self, last: Cycle, suffix: str = "") -> None:
        """The end: remove it. ``suffix``: what was added to its name meanwhile."""
        if self.path is None:
            return
        try:
            pidfile.remove(self.path + suffix)
        except pidfile.PidFileError as exc:
            last.error_log.log(EMERG, str(exc).encode("utf-8", "surrogateescape"))
        last.error_log.log(NOTICE, b"exit")


def run_nginx(
    cycle: Cycle,
    *,
    reload: Callable[[Cycle], Cycle | None],
    announce: Ready | None = None,
    account: environment.Account | None = None,
    run_worker: RunWorker | None = None,
) -> int:
    """Serve as the process behind nginx's command line.

    Writes the pid file when the worker serves, takes the error stream into the log, then tells
    the waiting parent.

    Args:
        cycle: What to serve.
        reload: See :class:`SingleProcess`.
        announce: The parent that waits, if there is one.
        account: Whom to become when everything is open.
        run_worker: By default the server's.
    """
    file = PidFile(announce)

    def ready(_worker: Worker) -> None:
        file.write(cycle)
        if account is not None:
            environment.become(account)
        file.announce(cycle)

    process = SingleProcess(
        cycle,
        default_worker() if run_worker is None else run_worker,
        reload=reload,
        ready=ready,
        replaced=file.replaced,
    )
    return run(process, file.finish)
