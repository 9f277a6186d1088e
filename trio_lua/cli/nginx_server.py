"""What ``trio-lua-nginx`` does once its command line is understood: check, signal or serve.

The order is nginx's, and other programs depend on it: the log of ``-e`` is opened before
the configuration is read, so that it holds the reason when that fails; the
configuration's own log is opened before the sockets, the sockets before the process leaves for
the background, the pid file when the worker serves.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from trio_lua import __version__
from trio_lua.about import NGINX_VERSION
from trio_lua.cli.loading import from_conf, log_warnings
from trio_lua.cli.nginx import DEFAULT_CONF, DEFAULT_ERROR_LOG
from trio_lua.errors import ConfigError, TrioLuaError
from trio_lua.log.error_log import ALERT, EMERG, ERROR, NOTICE, ErrorLog
from trio_lua.log.files import STDERR, os_error, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_lua.cli.nginx import Options
    from trio_lua.config.model import Config
    from trio_lua.log.error_log import Log
    from trio_lua.process.cycle import Cycle
    from trio_lua.process.daemon import Ready
    from trio_lua.process.environment import Account

__all__ = ["run"]

_CONSOLE = b"nginx: "


def _say(text: str) -> None:
    sys.stderr.write(f"nginx: {text}\n")
    sys.stderr.flush()


class _Command:
    """The paths of one command line, and the log of its start."""

    def __init__(self, options: Options) -> None:
        self.options = options
        folder = os.getcwd()
        if options.prefix is not None:
            folder = os.path.join(folder, options.prefix)
        self.prefix = folder if folder.endswith("/") else f"{folder}/"
        self.conf = resolve(options.conf or DEFAULT_CONF, self.prefix)
        log = DEFAULT_ERROR_LOG if options.error_log is None else options.error_log
        self.error_log = resolve(log or STDERR, self.prefix)
        level = "info" if options.test else "notice"
        try:
            self.log = ErrorLog(self.error_log, level, console=_CONSOLE)
        except ConfigError as exc:
            _say(f"[alert] could not open error log file: {exc}")
            self.log = ErrorLog(STDERR, level, console=_CONSOLE)

    def load(self) -> Config:
        return from_conf(self.conf, prefix=self.prefix, directives=self.options.directives)


def run(options: Options) -> int:
    """Check, signal or serve; returns the exit status."""
    command = _Command(options)
    try:
        status = _run(command)
    except TrioLuaError as exc:
        _log(command.log, EMERG, exc)
        status = 1
    except KeyboardInterrupt:
        status = 130
    except Exception as exc:
        from trio_lua.process.cycle import report

        report(command.log, exc)
        status = 1
    finally:
        command.log.close()
    if status and options.test:
        _say(f"configuration file {command.conf} test failed")
    return status


def _log(log: ErrorLog, level: int, error: object) -> None:
    log.log(level, str(error).encode("utf-8", "surrogateescape"))


def _run(command: _Command) -> int:
    config = command.load()
    log_warnings(config, command.log)
    if command.options.test:
        return _test(command, config)
    if command.options.signal is not None:
        return _signal(command, config, command.options.signal)
    return _serve(command, config)


def _test(command: _Command, config: Config) -> int:
    from trio_lua.process import pidfile
    from trio_lua.process.cycle import open_cycle
    from trio_lua.process.run import pid_path
    from trio_lua.process.sockets import ListenError

    if not command.options.quiet:
        _say(f"the configuration file {command.conf} syntax is ok")
    try:
        pidfile.test(pid_path(config))
    except pidfile.PidFileError as exc:
        _log(command.log, EMERG, exc)
        return 1
    try:
        cycle = open_cycle(config, default_log=command.error_log, console=_CONSOLE, test=True)
    except ListenError:
        return 1
    cycle.close()
    if not command.options.quiet:
        _say(f"configuration file {command.conf} test is successful")
    if command.options.dump:
        _dump(command)
    return 0


def _dump(command: _Command) -> None:
    from trio_lua.config import nginx
    from trio_lua.modules import BUNDLED

    text = nginx.dump(
        command.conf,
        prefix=command.prefix,
        overrides=command.options.directives,
        modules=BUNDLED,
    )
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def _signal(command: _Command, config: Config, name: str) -> int:
    from trio_lua.process import pidfile
    from trio_lua.process.run import pid_path
    from trio_lua.process.signals import BY_NAME

    command.log.log(NOTICE, b"signal process started")
    try:
        pid = pidfile.read(pid_path(config))
    except pidfile.PidFileError as exc:
        _log(command.log, ERROR, exc)
        return 1
    number = BY_NAME[name]
    try:
        os.kill(pid, number)
    except OSError as exc:
        _log(command.log, ALERT, f"kill({pid}, {int(number)}) failed {os_error(exc)}")
        return 1
    return 0


def _serve(command: _Command, config: Config) -> int:
    from trio_lua.process import environment
    from trio_lua.process.cycle import open_cycle
    from trio_lua.process.daemon import daemonize
    from trio_lua.process.sockets import ListenError
    from trio_lua.process.upgrade import VARIABLE, inherited_listeners

    account = environment.account(config.user) if config.master_process else None
    environment.make_folder(
        resolve(config.http.settings.client_body_temp_path, config.prefix), account
    )
    inherited = dict(os.environ)
    sockets = inherited.pop(VARIABLE, "")
    adopted = None
    try:
        if sockets:
            adopted = inherited_listeners(sockets, command.log)
        cycle = open_cycle(config, default_log=command.error_log, console=_CONSOLE, adopted=adopted)
    except ListenError:
        return 1
    if adopted is not None:
        adopted.close(keep=cycle.listeners)
    try:
        # a successor (SIGUSR2) is in the background already
        announce = daemonize() if config.daemon and not sockets else None
        log = cycle.error_log
        log.log(NOTICE, f"nginx/{NGINX_VERSION} (trio_lua {__version__})".encode())
    except BaseException:
        cycle.close()
        raise
    if config.master_process:
        predecessor = os.getppid() if sockets else 0
        return _serve_master(command, cycle, inherited, announce, account, predecessor)
    return _serve_single(command, cycle, inherited, announce)


def _next_cycle(
    command: _Command, current: Cycle, prepare: Callable[[Config, Log], None] | None = None
) -> Cycle | None:
    """Read the configuration again."""
    from trio_lua.process.cycle import open_cycle
    from trio_lua.process.sockets import ListenError

    try:
        fresh = command.load()
        log_warnings(fresh, current.error_log)
        if prepare is not None:
            prepare(fresh, current.error_log)
        return open_cycle(fresh, default_log=command.error_log, previous=current)
    except ListenError:
        pass
    except TrioLuaError as exc:
        current.error_log.log(EMERG, str(exc).encode("utf-8", "surrogateescape"))
    return None


def _serve_single(
    command: _Command, cycle: Cycle, inherited: Mapping[str, str], announce: Ready | None
) -> int:
    from trio_lua.process.run import prepare, run_nginx

    def make(config: Config, log: Log) -> None:
        prepare(config, inherited, log)

    try:
        make(cycle.config, cycle.error_log)
    except BaseException:
        cycle.close()
        raise
    command.log.close()
    return run_nginx(
        cycle, reload=lambda current: _next_cycle(command, current, make), announce=announce
    )


def _serve_master(
    command: _Command,
    cycle: Cycle,
    inherited: Mapping[str, str],
    announce: Ready | None,
    account: Account | None,
    predecessor: int,
) -> int:
    from trio_lua.ipc.mesh import Mesh
    from trio_lua.process.children import Children
    from trio_lua.process.cycle import resized
    from trio_lua.process.master import Master
    from trio_lua.process.run import PidFile, pid_path, run_master
    from trio_lua.process.signals import MASTER_ACTIONS
    from trio_lua.process.upgrade import OLD_SUFFIX, Upgrade
    from trio_lua.process.worker import WorkerApplication

    command.log.close()
    file = PidFile(announce)
    upgrade = Upgrade(
        [sys.executable, *sys.orig_argv[1:]],
        inherited,
        lambda cycle: pid_path(cycle.config),
        predecessor=predecessor,
    )
    children = Children(MASTER_ACTIONS)
    mesh = Mesh()

    def ready() -> None:
        file.write(master.cycle)
        file.announce(master.cycle)

    master = Master(
        cycle,
        lambda cycle: WorkerApplication(cycle, inherited=inherited, account=account),
        children,
        reload=lambda current: _next_cycle(command, current),
        resize=lambda current, number: resized(current, number, default_log=command.error_log),
        ready=ready,
        replaced=file.replaced,
        upgrade=upgrade,
        mesh=mesh,
        background=announce is not None or predecessor != 0,
    )
    return run_master(
        master, children, mesh, lambda last: file.finish(last, OLD_SUFFIX if upgrade.pid else "")
    )
