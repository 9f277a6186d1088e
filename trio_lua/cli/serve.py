"""``trio-lua serve``: in the foreground, with messages on the terminal.

The configuration is nginx's, or stands for one Lua file; the command line may change
what a developer wants to change without editing: addresses, logs, log level.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from trio_lua import __version__
from trio_lua.cli import loading
from trio_lua.config.families.main import cpus
from trio_lua.config.overrides import (
    add_listens,
    with_access_log,
    with_certificate,
    with_error_log,
    without_implied_logs,
)
from trio_lua.errors import ConfigError, TrioLuaError
from trio_lua.log.error_log import EMERG
from trio_lua.log.files import STDERR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_lua.config.model import Config, Listen
    from trio_lua.config.tls import TlsOptions
    from trio_lua.log.error_log import Log
    from trio_lua.process.cycle import Cycle
    from trio_lua.process.single import RunWorker, SingleProcess, Worker
    from trio_lua.process.sockets import Listeners

__all__ = ["ServeOptions", "load", "serve"]

_CONSOLE = b"trio-lua: "
_PRODUCT = f"trio-lua/{__version__}"


@dataclass(frozen=True)
class ServeOptions:
    """The command line of ``serve``: either a target or code."""

    target: str | None = None
    code: str | None = None
    binds: tuple[str, ...] = ()
    prefix: str | None = None
    directives: str = ""
    log_level: str | None = None
    error_log: str | None = None
    access_log: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    reload: bool = False
    quiet: bool = False
    workers: int | None = None

    @property
    def folder(self) -> str:
        """The prefix, absolute and with a trailing slash."""
        folder = os.path.abspath(self.prefix or ".")
        return folder if folder.endswith("/") else f"{folder}/"

    @property
    def is_conf(self) -> bool:
        """Whether an nginx.conf is served."""
        return self.target is not None and not loading.is_script(self.target)

    @property
    def title(self) -> str:
        """What is served, for people."""
        return self.target if self.target is not None else "code of the command line"


def load(options: ServeOptions, listens: tuple[Listen, ...] = ()) -> Config:
    """The configuration that the command line asks for.

    Raises:
        ConfigError: It cannot be used.
    """
    prefix = options.folder
    if options.is_conf:
        assert options.target is not None
        config = loading.from_conf(
            os.path.abspath(options.target), prefix=prefix, directives=options.directives
        )
        config = add_listens(config, listens)
    elif options.target is not None:
        config = loading.from_script(
            os.path.abspath(options.target), prefix=prefix, listens=listens
        )
    else:
        config = loading.from_code(options.code or "", prefix=prefix, listens=listens)
    if options.certfile is not None:
        config = with_certificate(config, _certificate(options.certfile, options.keyfile))
    if options.workers is not None:
        config = replace(config, worker_processes=options.workers or cpus(), master_process=True)
    if options.access_log is not None:
        target = options.access_log
        if target not in ("-", "off"):
            target = os.path.abspath(target)
        config = with_access_log(config, target)
    elif options.is_conf and not os.path.isdir(os.path.join(prefix, "logs")):
        # nginx's default, which would refuse to start in most folders
        config = without_implied_logs(config)
    file = options.error_log
    if file is not None and file != STDERR:
        file = os.path.abspath(file)
    return with_error_log(config, file, options.log_level)


def _certificate(certfile: str, keyfile: str | None) -> TlsOptions:
    from trio_lua.config.tls import TlsOptions

    return TlsOptions(
        ssl_certificate=(os.path.abspath(certfile),),
        ssl_certificate_key=(os.path.abspath(keyfile or certfile),),
    )


def _parse_binds(options: ServeOptions, adopted: Listeners) -> tuple[Listen, ...]:
    from trio_lua.process.sockets import parse_bind

    listens = []
    binds = options.binds
    if not binds and not options.is_conf:
        binds = (loading.DEFAULT_LISTEN,)
    for text in binds:
        try:
            listen = parse_bind(text)
        except ValueError as exc:
            raise click.BadParameter(str(exc), param_hint="--bind") from None
        listen = adopted.adopt(listen) if isinstance(listen, int) else listen
        listens.append(replace(listen, ssl=options.certfile is not None))
    return tuple(listens)


def serve(options: ServeOptions, *, run_worker: RunWorker | None = None) -> int:
    """Serve until a signal ends it; returns the exit status.

    Raises:
        TrioLuaError: It did not come so far that the error log was open.
    """
    from trio_lua.process.cycle import open_cycle
    from trio_lua.process.sockets import ListenError, Listeners

    adopted = Listeners()
    try:
        listens = _parse_binds(options, adopted)
        config = load(options, listens)
        try:
            cycle = open_cycle(
                config, default_log=STDERR, console=_CONSOLE, adopted=adopted, tries=1
            )
        except ListenError:
            return 1
    except BaseException:
        adopted.close()
        raise
    loading.log_warnings(config, cycle.error_log)
    if _has_master(options, config):
        return _serve_master(options, cycle, listens)
    return _serve_single(options, cycle, listens, run_worker)


def _next_cycle(
    options: ServeOptions,
    listens: tuple[Listen, ...],
    current: Cycle,
    prepare: Callable[[Config, Log], None] | None = None,
) -> Cycle | None:
    """Read everything again; None, with the reason in the log, when it cannot be used."""
    from trio_lua.process.cycle import open_cycle
    from trio_lua.process.sockets import ListenError

    try:
        fresh = load(options, listens)
        loading.log_warnings(fresh, current.error_log)
        if prepare is not None and options.is_conf:
            prepare(fresh, current.error_log)
        return open_cycle(fresh, default_log=STDERR, console=_CONSOLE, previous=current, tries=1)
    except ListenError:
        pass
    except TrioLuaError as exc:
        text = loading.one_line(exc) if isinstance(exc, ConfigError) else str(exc)
        current.error_log.log(EMERG, text.encode("utf-8", "surrogateescape"))
    return None


def _serve_single(
    options: ServeOptions,
    cycle: Cycle,
    listens: tuple[Listen, ...],
    run_worker: RunWorker | None,
) -> int:
    from trio_lua.process import environment
    from trio_lua.process.run import default_worker, prepare, run
    from trio_lua.process.single import SingleProcess

    inherited = dict(os.environ)
    account = environment.account(cycle.config.user)

    def make(config: Config, log: Log) -> None:
        prepare(config, inherited, log)

    def ready(_worker: Worker) -> None:
        if account is not None:
            environment.become(account)
        if not options.quiet:
            click.echo(_greeting(options, process.cycle), err=True)

    process = SingleProcess(
        cycle,
        default_worker(_PRODUCT) if run_worker is None else run_worker,
        reload=lambda current: _next_cycle(options, listens, current, make),
        ready=ready,
        beside=_watcher(cycle.config) if options.reload else None,
    )
    try:
        if options.is_conf:
            make(cycle.config, cycle.error_log)
    except TrioLuaError:
        cycle.close()
        raise
    return run(process)


def _serve_master(options: ServeOptions, cycle: Cycle, listens: tuple[Listen, ...]) -> int:
    from trio_lua.ipc.mesh import Mesh
    from trio_lua.process import environment
    from trio_lua.process.children import Children
    from trio_lua.process.cycle import resized
    from trio_lua.process.master import Master
    from trio_lua.process.run import run_master
    from trio_lua.process.signals import MASTER_ACTIONS
    from trio_lua.process.watch import FileWatch, sources
    from trio_lua.process.worker import WorkerApplication

    inherited = dict(os.environ) if options.is_conf else None
    account = environment.account(cycle.config.user)
    children = Children(MASTER_ACTIONS)
    mesh = Mesh()

    def ready() -> None:
        if not options.quiet:
            click.echo(_greeting(options, master.cycle), err=True)

    def changed() -> bool:
        assert files is not None
        names = files.changed()
        if names:
            _announce_changes(names, master.cycle)
        return bool(names)

    master = Master(
        cycle,
        lambda cycle: WorkerApplication(
            cycle, inherited=inherited, account=account, product=_PRODUCT, console=True
        ),
        children,
        reload=lambda current: _next_cycle(options, listens, current),
        resize=lambda current, number: resized(current, number, default_log=STDERR),
        ready=ready,
        poll=changed if options.reload else None,
        mesh=mesh,
    )
    files = FileWatch(lambda: sources(master.cycle.config)) if options.reload else None
    return run_master(master, children, mesh)


def _has_master(options: ServeOptions, config: Config) -> bool:
    """Whether there is a master: for one worker only if the command line asks for it."""
    return config.master_process and (options.workers is not None or config.worker_processes > 1)


def _greeting(options: ServeOptions, cycle: Cycle) -> str:
    urls = ", ".join(cycle.listeners.urls) or "no address at all"
    config = cycle.config
    with_workers = ""
    if _has_master(options, config):
        plural = "" if config.worker_processes == 1 else "s"
        with_workers = f" with {config.worker_processes} worker{plural}"
    return (
        f"trio-lua {__version__} serves {options.title} on {urls}{with_workers} (Ctrl-C stops it)"
    )


def _announce_changes(names: list[str], cycle: Cycle) -> None:
    prefix = cycle.config.prefix
    shown = ", ".join(name.removeprefix(prefix) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    click.echo(f"trio-lua: {shown}{more} changed, starting anew", err=True)


def _watcher(config: Config) -> Callable[[SingleProcess], Awaitable[None]]:
    """What runs beside the server to restart it; a file counts as changed from this call on."""
    from trio_lua.process.watch import FileWatch, sources, watch

    running: SingleProcess | None = None
    state = FileWatch(lambda: sources(running.cycle.config if running else config))

    async def run(process: SingleProcess) -> None:
        nonlocal running
        running = process

        def changed(names: list[str]) -> None:
            _announce_changes(names, process.cycle)
            process.request_reload()

        await watch(state, changed)

    return run
