"""The servers that are compared: how each is started, and what it needs to be installed.

The first one is what the others are compared with. Each gets one process on one core, no access log, a long
accept queue, and keep-alive timeouts longer than a run.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.certificate import certificate
from benchmarks.servers import nginx

__all__ = ["SERVERS", "Server", "client_missing"]

_BACKLOG = "4096"


@dataclass(frozen=True)
class Server:
    """A server that can be started.

    Attributes:
        name: Of the command line and of the results.
        title: Of the table.
        command: Gives the command line for a port and a folder of its own.
        missing: What has to be installed before it can run; empty when nothing.
        speaks_http: Whether it reads its requests.
        runs_lua: Whether its handlers are those in Lua.
        secure: Gives the command line of the same with TLS; None when it has none.
    """

    name: str
    title: str
    command: Callable[[int, Path], Sequence[str]]
    missing: Callable[[], str]
    speaks_http: bool = True
    runs_lua: bool = False
    secure: Callable[[int, Path], Sequence[str]] | None = None

    def takes_part(self, case: Case) -> bool:
        """Whether it can do what a case asks for."""
        if case.tls and self.secure is None:
            return False
        return (self.speaks_http or case.plain) and (self.runs_lua or not case.lua)


def _packages(*names: str) -> Callable[[], str]:
    def missing() -> str:
        return ", ".join(name for name in names if importlib.util.find_spec(name) is None)

    return missing


def _module(name: str, *options: str) -> Callable[[int, Path], Sequence[str]]:
    def command(port: int, _folder: Path) -> Sequence[str]:
        return [sys.executable, "-m", f"benchmarks.servers.{name}", "--port", str(port), *options]

    return command


def _granian(interface: str, app: str) -> Callable[[int, Path], Sequence[str]]:
    def command(port: int, _folder: Path) -> Sequence[str]:
        return [
            *(sys.executable, "-m", "granian", "--interface", interface, "--port", str(port)),
            *("--workers", "1", "--loop", "uvloop", "--http", "1", "--no-ws"),
            *("--backlog", _BACKLOG, "--backpressure", "20000", "--log-level", "warning"),
            *("--http1-header-read-timeout", "60000", app),
        ]

    return command


def _uvicorn(port: int, _folder: Path) -> Sequence[str]:
    return [
        *(sys.executable, "-m", "uvicorn", "--port", str(port), "--loop", "uvloop"),
        *("--http", "httptools", "--ws", "none", "--no-access-log", "--log-level", "warning"),
        *("--backlog", _BACKLOG, "--timeout-keep-alive", "120"),
        "benchmarks.servers.asgi:asyncio_app",
    ]


def _hypercorn(port: int, _folder: Path) -> Sequence[str]:
    return [
        *(sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "-k", "trio"),
        *("--workers", "1", "--backlog", _BACKLOG, "--keep-alive", "120"),
        *("--log-level", "warning", "benchmarks.servers.asgi:trio_app"),
    ]


def _with_files(
    command: Callable[[int, Path], Sequence[str]], chain_option: str, key_option: str
) -> Callable[[int, Path], Sequence[str]]:
    """The same with options for the files of a certificate."""

    def secure(port: int, folder: Path) -> Sequence[str]:
        chain, key = certificate()
        # in front of the application's name
        *options, last = command(port, folder)
        return [*options, chain_option, str(chain), key_option, str(key), last]

    return secure


_ALL = (
    Server(
        "trio_lua",
        "trio_lua, parked",
        _module("trio_lua_server"),
        _packages("trio_lua"),
        runs_lua=True,
        secure=_module("trio_lua_server", "--tls"),
    ),
    Server(
        "trio_lua-task",
        "trio_lua, a task per connection",
        _module("trio_lua_server", "--mode", "task"),
        _packages("trio_lua"),
        runs_lua=True,
    ),
    Server(
        "trio_lua-h11",
        "trio_lua, h11 only",
        _module("trio_lua_server", "--mode", "h11"),
        _packages("trio_lua"),
        runs_lua=True,
    ),
    Server(
        "trio_lua-unbounded",
        "trio_lua, no lua_cpu_budget",
        _module("trio_lua_server", "--mode", "unbounded"),
        _packages("trio_lua"),
        runs_lua=True,
    ),
    Server(
        "nginx-lua",
        "nginx + lua module",
        nginx.command,
        nginx.missing,
        runs_lua=True,
        secure=partial(nginx.command, tls=True),
    ),
    Server(
        "granian-rsgi",
        "granian, RSGI",
        _granian("rsgi", "benchmarks.servers.rsgi:app"),
        _packages("granian", "uvloop"),
        secure=_with_files(
            _granian("rsgi", "benchmarks.servers.rsgi:app"), "--ssl-certificate", "--ssl-keyfile"
        ),
    ),
    Server(
        "granian-asgi",
        "granian, ASGI",
        _granian("asgi", "benchmarks.servers.asgi:asyncio_app"),
        _packages("granian", "uvloop"),
    ),
    Server(
        "uvicorn",
        "uvicorn (uvloop, httptools)",
        _uvicorn,
        _packages("uvicorn", "uvloop", "httptools"),
        secure=_with_files(_uvicorn, "--ssl-certfile", "--ssl-keyfile"),
    ),
    Server(
        "hypercorn-trio",
        "hypercorn, trio worker",
        _hypercorn,
        _packages("hypercorn"),
        secure=_with_files(_hypercorn, "--certfile", "--keyfile"),
    ),
    Server(
        "trio-echo",
        "bare trio, answers without reading",
        _module("bare", "--protocol", "none"),
        _packages("trio"),
        speaks_http=False,
    ),
    Server("trio-h11", "bare trio + h11", _module("bare"), _packages("trio", "h11")),
)

SERVERS: dict[str, Server] = {server.name: server for server in _ALL}


def client_missing() -> str:
    """What the client side lacks."""
    return "" if shutil.which("wrk") else "wrk"
