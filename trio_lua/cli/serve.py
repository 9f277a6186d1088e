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
    from trio_lua.process.cycle import Cycle
    from trio_lua.process.single import RunWorker, SingleProcess, Worker
    from trio_lua.process.sockets import Listeners

__all__ = ["ServeOptions", "load", "serve"]

_CONSOLE = b"trio-lua: "


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
    from trio_lua.process import environment
    from trio_lua.process.cycle import open_cycle
    from trio_lua.process.run import default_worker, prepare, run
    from trio_lua.process.single import SingleProcess
    from trio_lua.process.sockets import ListenError, Listeners

    adopted = Listeners()
    try:
        listens = _parse_binds(options, adopted)
        config = load(options, listens)
        account = environment.account(config.user)
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
    inherited = dict(os.environ)

    def ready(_worker: Worker) -> None:
        if account is not None:
            environment.become(account)
        if not options.quiet:
            click.echo(_greeting(options, process.cycle), err=True)

    def reload(current: Cycle) -> Cycle | None:
        try:
            fresh = load(options, listens)
            loading.log_warnings(fresh, current.error_log)
            if options.is_conf:
                prepare(fresh, inherited, current.error_log)
            return open_cycle(
                fresh, default_log=STDERR, console=_CONSOLE, previous=current, tries=1
            )
        except ListenError:
            pass
        except TrioLuaError as exc:
            text = loading.one_line(exc) if isinstance(exc, ConfigError) else str(exc)
            current.error_log.log(EMERG, text.encode("utf-8", "surrogateescape"))
        return None

    process = SingleProcess(
        cycle,
        default_worker(f"trio-lua/{__version__}") if run_worker is None else run_worker,
        reload=reload,
        ready=ready,
        beside=_watcher(config) if options.reload else None,
    )
    try:
        if options.is_conf:
            prepare(config, inherited, cycle.error_log)
    except TrioLuaError:
        cycle.close()
        raise
    return run(process)


def _greeting(options: ServeOptions, cycle: Cycle) -> str:
    urls = ", ".join(cycle.listeners.urls) or "no address at all"
    return f"trio-lua {__version__} serves {options.title} on {urls} (Ctrl-C stops it)"


def _watcher(config: Config) -> Callable[[SingleProcess], Awaitable[None]]:
    """What runs beside the server to restart it; a file counts as changed from this call on."""
    from trio_lua.process.watch import FileWatch, sources, watch

    running: SingleProcess | None = None
    state = FileWatch(lambda: sources(running.cycle.config if running else config))

    async def run(process: SingleProcess) -> None:
        nonlocal running
        running = process

        def changed(names: list[str]) -> None:
            prefix = process.cycle.config.prefix
            shown = ", ".join(name.removeprefix(prefix) for name in names[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            click.echo(f"trio-lua: {shown}{more} changed, starting anew", err=True)
            process.request_reload()

        await watch(state, changed)

    return run
