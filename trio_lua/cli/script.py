"""``trio-lua run``: a Lua script outside any request, with the full ``ngx`` API.

The script runs as a light thread that may sleep and use everything a timer may use. What it
says goes to standard output, what it logs to the error stream.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import click

from trio_lua.errors import LuaError
from trio_lua.log.error_log import ErrorLog, Log
from trio_lua.log.files import STDERR

__all__ = ["RunScript", "Script", "run"]


class RunScript(Protocol):
    """Runs Lua chunks, one after the other, in one light thread of a VM of their own."""

    def __call__(
        self,
        chunks: Sequence[tuple[bytes, str]],
        *,
        arguments: Sequence[str],
        name: str,
        package_path: str,
        libraries: Sequence[str],
        write: Callable[[bytes], None],
        error_log: Log,
    ) -> Awaitable[int]:
        """Run them and return the exit status: 0, or what the script passed to ``ngx.exit``.

        Args:
            chunks: Code and chunk name of each, such as ``(b"...", "@hello.lua")``.
            arguments: The global table ``arg``, from index 1, and ``...`` of each chunk.
            name: ``arg[0]``.
            package_path: Goes in front of ``package.path``; may be empty.
            libraries: Modules to ``require`` first; each becomes a global of its name.
            write: Receives what ``ngx.say``, ``ngx.print`` and ``print`` write.
            error_log: Receives what ``ngx.log`` writes.

        Raises:
            LuaError: The code does not compile, or failed.
        """


@dataclass(frozen=True)
class Script:
    """What to run."""

    chunks: tuple[tuple[bytes, str], ...]
    name: str = "trio-lua"
    arguments: tuple[str, ...] = ()
    package_path: str = ""
    libraries: tuple[str, ...] = ()

    @classmethod
    def from_command_line(
        cls,
        arguments: Sequence[str],
        codes: Sequence[str] = (),
        folders: Sequence[str] = (),
        libraries: Sequence[str] = (),
    ) -> Script:
        """As ``lua`` and ``resty`` read theirs: the code of ``-e`` runs first, then the script.

        Raises:
            OSError: The script cannot be read.
        """
        chunks = [(os.fsencode(code), "=(command line -e)") for code in codes]
        name, rest = "trio-lua", tuple(arguments)
        if arguments and arguments[0] != "-":
            name, *others = arguments
            rest = tuple(others)
            with open(name, "rb") as file:
                chunks.append((_without_shebang(file.read()), f"@{name}"))
        elif arguments or not codes:
            if not arguments and sys.stdin.isatty():
                raise click.UsageError("nothing to run: give a script, -e CODE, or a pipe")
            name, rest = "-", tuple(arguments[1:])
            chunks.append((_without_shebang(sys.stdin.buffer.read()), "=stdin"))
        paths = [f"{folder}/?.lua;{folder}/?/init.lua;" for folder in folders]
        return cls(tuple(chunks), name, rest, "".join(paths), tuple(libraries))


def _without_shebang(code: bytes) -> bytes:
    return b"--" + code if code.startswith(b"#") else code


def _write(data: bytes) -> None:
    # past Python's buffer: what the script says must not be lost when it leaves by os.exit
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _default_runner() -> RunScript:
    from trio_lua.server.script import run_script

    return run_script


def run(script: Script, *, log_level: str = "warn", run_script: RunScript | None = None) -> int:
    """Run a script; returns the exit status.

    Raises:
        TrioLuaError: The VM could not be set up.
    """
    import trio

    from trio_lua.process import environment
    from trio_lua.process.cycle import leaves

    main = partial(
        run_script or _default_runner(),
        script.chunks,
        arguments=script.arguments,
        name=script.name,
        package_path=script.package_path,
        libraries=script.libraries,
        write=_write,
        error_log=ErrorLog(STDERR, log_level),
    )
    try:
        with environment.large_stack():
            return trio.run(main)
    except BaseException as exc:
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(exc)):
            return 130
        errors = [leaf for leaf in leaves(exc) if isinstance(leaf, LuaError)]
        if not errors:
            raise
        for error in errors:
            click.echo(f"trio-lua: {error.message}", err=True)
            if error.traceback:
                click.echo(error.traceback.strip("\n"), err=True)
        return 1
