"""``trio-lua``: serve, check, run.

Every command imports what it needs when it runs, so that ``--help`` and a mistyped option
answer quickly. What goes wrong on the user's side takes one line on the error stream and gives
one of these exit statuses: 1 for a failure at run time, 2 for the command line, 78 for the
configuration (``EX_CONFIG`` of ``sysexits.h``). A traceback of Python is for nobody but
developers, who set ``TRIO_LUA_DEBUG``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from trio_lua import __version__
from trio_lua.errors import ConfigError, TrioLuaError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cli", "main"]

EXIT_FAILURE = 1
EXIT_CONFIG = 78

_LEVELS = ["debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="trio-lua")
def cli() -> None:
    """OpenResty's programming model on Trio: Lua handlers, one coroutine per request."""


@cli.command()
@click.argument("target", required=False, metavar="[CONF | APP.lua]")
@click.option("-e", "code", metavar="CODE", help="Serve this Lua code as the content handler.")
@click.option(
    "-c", "conf", metavar="FILE", envvar="TRIO_LUA_CONF", help="The configuration; same as CONF."
)
@click.option(
    "-b",
    "--bind",
    "binds",
    multiple=True,
    metavar="ADDRESS",
    envvar="TRIO_LUA_BIND",
    help="Listen on host:port, :port, unix:/path or fd://N; may be repeated. With CONF the first "
    "server listens there as well; otherwise the default is 127.0.0.1:8000.",
)
@click.option(
    "--certfile",
    metavar="FILE",
    envvar="TRIO_LUA_CERTFILE",
    help="Speak TLS on the addresses of -b, with this certificate and its chain (PEM).",
)
@click.option(
    "--keyfile",
    metavar="FILE",
    envvar="TRIO_LUA_KEYFILE",
    help="The certificate's key.  [default: it is in the same file]",
)
@click.option(
    "-p",
    "--prefix",
    metavar="DIR",
    envvar="TRIO_LUA_PREFIX",
    help="The folder that relative paths start from.  [default: the working folder]",
)
@click.option(
    "-g",
    "directives",
    metavar="TEXT",
    default="",
    envvar="TRIO_LUA_DIRECTIVES",
    help="Further directives of the main context.",
)
@click.option("-t", "test", is_flag=True, help="Only check, as the command check does.")
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS, case_sensitive=False),
    envvar="TRIO_LUA_LOG_LEVEL",
    help="The least serious error messages to write.",
)
@click.option(
    "--error-log",
    metavar="FILE",
    envvar="TRIO_LUA_ERROR_LOG",
    help="Write errors to this file instead, or to stderr.  [default: what CONF says, or stderr]",
)
@click.option(
    "--access-log",
    metavar="FILE",
    envvar="TRIO_LUA_ACCESS_LOG",
    help="Write requests to this file instead, or to standard output (-), or nowhere (off).",
)
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    envvar="TRIO_LUA_WORKERS",
    help="Serve with N worker processes under a master; 0 for one per processor.  [default: what CONF "
    "says; one process without a master for one worker]",
)
@click.option(
    "--reload",
    is_flag=True,
    envvar="TRIO_LUA_RELOAD",
    help="Start anew when a source file changes.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not print the addresses.")
def serve(target: str | None, conf: str | None, test: bool, **options: object) -> None:
    """Serve an nginx.conf, or a Lua file as the handler of every request.

    SIGTERM and SIGINT stop, SIGQUIT finishes running requests first, SIGHUP reloads, SIGUSR1
    opens the log files again; with workers SIGTTIN and SIGTTOU make one more or less.
    """
    from trio_lua.cli.serve import ServeOptions
    from trio_lua.cli.serve import serve as run

    given = [name for name in (target, conf, options["code"]) if name is not None]
    if len(given) != 1:
        what = "nothing to serve: give" if not given else "give only one of"
        raise click.UsageError(f"{what} an nginx.conf, a Lua file, or -e CODE")
    if options["keyfile"] is not None and options["certfile"] is None:
        raise click.UsageError("--keyfile is of no use without --certfile")
    served = ServeOptions(target=target or conf, **options)  # type: ignore[arg-type]
    if test:
        from trio_lua.cli.check import check_target

        sys.exit(check_target(served))
    sys.exit(run(served))


@cli.command()
@click.argument("conf", metavar="CONF")
@click.option("-p", "--prefix", metavar="DIR", envvar="TRIO_LUA_PREFIX", help="As for serve.")
@click.option("-g", "directives", metavar="TEXT", default="", help="As for serve.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def check(conf: str, prefix: str | None, directives: str, quiet: bool) -> None:
    """Find the mistakes in a configuration and in its Lua code, without running any of it."""
    from trio_lua.cli.check import check_target
    from trio_lua.cli.serve import ServeOptions

    sys.exit(check_target(ServeOptions(conf, prefix=prefix, directives=directives, quiet=quiet)))


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[SCRIPT.lua] [ARGUMENTS]")
@click.option("-e", "codes", multiple=True, metavar="CODE", help="Run this code; may be repeated.")
@click.option(
    "-I", "folders", multiple=True, metavar="DIR", help="Look for Lua modules there first."
)
@click.option("-l", "libraries", multiple=True, metavar="LIB", help="Require this module first.")
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS, case_sensitive=False),
    default="warn",
    envvar="TRIO_LUA_LOG_LEVEL",
    help="The least serious error messages to write.",
    show_default=True,
)
def run(
    arguments: Sequence[str],
    codes: Sequence[str],
    folders: Sequence[str],
    libraries: Sequence[str],
    log_level: str,
) -> None:
    """Run a Lua script with the full ngx API, as resty does.

    Without SCRIPT and -e the script is read from standard input.
    """
    from trio_lua.cli.script import Script
    from trio_lua.cli.script import run as run_script

    script = Script.from_command_line(arguments, codes, folders, libraries)
    sys.exit(run_script(script, log_level=log_level))


@cli.command()
def version() -> None:
    """Print the versions of everything that matters in a bug report."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    click.echo(f"trio_lua {__version__}")
    click.echo("Python {}.{}.{}".format(*sys.version_info[:3]))
    for package in ("trio", "lupa", "h11", "crossplane"):
        try:
            click.echo(f"{package} {installed(package)}")
        except PackageNotFoundError:
            click.echo(f"{package} is not installed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="trio-lua")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        if os.environ.get("TRIO_LUA_DEBUG"):
            raise
        return _explain(exc)
    return 0


def _explain(error: Exception) -> int:
    """Say in one line what went wrong; returns the exit status."""
    from trio_lua.cli.loading import one_line

    status = EXIT_FAILURE
    if isinstance(error, ConfigError):
        text, status = one_line(error), EXIT_CONFIG
    elif isinstance(error, TrioLuaError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename is not None else ""
        text = f"{name}{error.strerror}"
    else:
        text = f"internal error: {type(error).__name__}: {error} (set TRIO_LUA_DEBUG=1 for details)"
    click.echo(f"trio-lua: {text}", err=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
