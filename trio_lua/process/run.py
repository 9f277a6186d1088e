"""From a cycle to an exit status: the event loop, the worker, and the clean-up behind them.

Both commands end here, ``trio-lua-nginx`` with a pid file and a parent that waits, ``trio-lua
serve`` with a line on the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import trio

from trio_lua.config.model import Config
from trio_lua.errors import TrioLuaError
from trio_lua.log.error_log import ALERT, EMERG, NOTICE, ErrorLog, Log
from trio_lua.log.files import resolve
from trio_lua.process import environment, pidfile
from trio_lua.process.cycle import Cycle
from trio_lua.process.daemon import Ready
from trio_lua.process.single import RunWorker, SingleProcess, StartError, Worker

__all__ = ["default_worker", "pid_path", "prepare", "run", "run_nginx"]


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
        return trio.run(process.run)
    except StartError:
        return 1
    finally:
        if finish is not None:
            finish(process.cycle)
        process.cycle.close()


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
    written: list[str] = []

    def ready(_worker: Worker) -> None:
        path = pid_path(cycle.config)
        pidfile.write(path)
        written.append(path)
        if account is not None:
            environment.become(account)
        _detach(cycle)
        if announce is not None:
            announce.notify()

    def replaced(new: Cycle, old: Cycle) -> None:
        _detach(new)
        path, before = pid_path(new.config), pid_path(old.config)
        if path != before:
            pidfile.write(path)
            written.append(path)
            pidfile.remove(before)
            written.remove(before)

    def finish(last: Cycle) -> None:
        for path in written:
            try:
                pidfile.remove(path)
            except pidfile.PidFileError as exc:
                last.error_log.log(EMERG, str(exc).encode("utf-8", "surrogateescape"))
        if written:
            last.error_log.log(NOTICE, b"exit")

    process = SingleProcess(
        cycle,
        default_worker() if run_worker is None else run_worker,
        reload=reload,
        ready=ready,
        replaced=replaced,
    )
    return run(process, finish)


def _detach(cycle: Cycle) -> None:
    """From now on the log is the only place for messages, whoever writes them."""
    log = cycle.error_log
    if isinstance(log, ErrorLog):
        log.console = None
        log.take_stderr()
