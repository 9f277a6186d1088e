"""A VM with everything in it that Lua code of a worker may use, and the functions Python calls in it.

This is the whole surface between the engine and Lua. The attributes that are Lua functions are
named as in the Lua files (``rt.export.NAME``), so that a search finds both halves.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from trio_lua.about import CONFIGURE, NGINX_VERSION
from trio_lua.api import (
    body,
    codec,
    control,
    deadline,
    expires,
    family_files,
    guard,
    gzip,
    log,
    output,
    pace,
    req_socket,
    subrequest,
    var,
)
from trio_lua.api import time as time_api
from trio_lua.api.ipc import Alerts
from trio_lua.api.modules import Modules
from trio_lua.api.pipe import Pipes
from trio_lua.api.place import Place
from trio_lua.api.python import PythonFunctions
from trio_lua.api.socket import Sockets
from trio_lua.api.ssl import Handshakes
from trio_lua.api.subrequest import Runner
from trio_lua.api.threadpool import ThreadPools
from trio_lua.api.udp import Datagrams
from trio_lua.api.waiting import Waiting
from trio_lua.config.model import Config, LuaCode, Template, Var
from trio_lua.errors import LuaError, ProtocolError
from trio_lua.http.status import REASONS
from trio_lua.log.capture import LogBuffer
from trio_lua.log.error_log import Log
from trio_lua.lua import paths
from trio_lua.lua.driver import Driver
from trio_lua.lua.ops import OpTable
from trio_lua.lua.vm import VM
from trio_lua.net.network import Network
from trio_lua.request.context import ClientConnection
from trio_lua.request.exchange import Captures
from trio_lua.request.phase import CONTEXT_NAMES, PHASE_NAMES, Phase, allowed
from trio_lua.request.state import Request
from trio_lua.shm.shared_dict import SharedDict
from trio_lua.shm.zone import FILES as _SHM
from trio_lua.shm.zone import Zone, open_zones

__all__ = ["RUNTIMES", "Regexes", "Runtime"]

#: The versions whose behaviour Lua code may rely on, as numbers.
_NGINX_VERSION_NUMBER = 1022001
_NGX_LUA_VERSION = 10023

_HEAD = Path(__file__).parent.parent / "http" / "head.lua"

#: Phases without a yieldable context in which plain Lua coroutines work.
_PLAIN_COROUTINES = Phase.HEADER_FILTER | Phase.BODY_FILTER


#: Those of this process; the VM of some may be closed.
RUNTIMES: weakref.WeakSet[Runtime] = weakref.WeakSet()


class Regexes:
    """Regular expressions of the configuration (PCRE2, in the VM), compiled once each."""

    def __init__(self, vm: VM) -> None:
        self._compile = vm.export("regex_compile")
        self._exec = vm.export("regex_exec")
        self._names = vm.export("regex_names")
        self._ids: dict[tuple[bytes, bool], int] = {}
        self._named: dict[int, Mapping[str, int]] = {}

    def compile(self, pattern: bytes, caseless: bool) -> int:
        """The number of a pattern.

        Raises:
            ValueError: It is malformed.
        """
        key = (pattern, caseless)
        number = self._ids.get(key)
        if number is None:
            result = self._compile(pattern, caseless)
            if isinstance(result, tuple):
                text = result[1].decode("utf-8", "replace")
                raise ValueError(text)
            number = self._ids[key] = result
        return number

    def exec(self, number: int, subject: bytes) -> Captures | None:
        """The groups of a match, or None.

        Raises:
            ValueError: The match could not be finished (a match limit).
        """
        result = self._exec(number, subject)
        if result is None:
            return None
        if not isinstance(result, tuple):
            return (result,)
        if result[0] is None:
            raise ValueError(f"pcre2_match() failed: {result[1]}")
        return result

    def match(
        self, pattern: str, subject: bytes, caseless: bool = False
    ) -> tuple[Captures, Mapping[str, int]] | None:
        """Compile (once) and match; the groups, and the numbers of the named ones."""
        number = self.compile(pattern.encode("utf-8", "surrogateescape"), caseless)
        captures = self.exec(number, subject)
        if captures is None:
            return None
        return captures, self.names(number)

    def names(self, number: int) -> Mapping[str, int]:
        """The named groups of a pattern and their numbers."""
        names = self._named.get(number)
        if names is None:
            flat = self._names(number)
            if not isinstance(flat, tuple):
                flat = ()
            names = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat) - 1, 2)}
            self._named[number] = names
        return names


class Runtime:
    """The Lua side of a worker.

    Args:
        config: The configuration.
        clock: Seconds since the epoch.
        sinks: Error logs by number (see :mod:`trio_lua.api.log`).
        product: What responses name in ``Server`` and in error pages.
        document_root: The ``$document_root`` of a request.
        request_filename: The ``$request_filename`` of a request.
        invalid_referer: The ``$invalid_referer`` of a request.
        graceful_exit: Begins the graceful stop of this process (``ngx.process``).
        files: Further Lua files to load, behind the families.
        calls: Further plain functions for Lua.
        subrequests: Gives what runs the requests that requests make.
        captured: The lines of the error logs that are kept for ``ngx.errlog``.
        zones: The memory of the shared dictionaries by name; by default it is made here, and nobody else has it.
        network: Where sockets lead; by default to the system's network.

    Raises:
        LuaError: A file of this package failed to load.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Callable[[], float],
        sinks: list[Log],
        product: str,
        document_root: Callable[[Request], bytes] = lambda _request: b"",
        request_filename: Callable[[Request], bytes] = lambda _request: b"",
        invalid_referer: Callable[[Request], bytes] = lambda _request: b"",
        graceful_exit: Callable[[], None] | None = None,
        files: Iterable[Path] = (),
        calls: Mapping[str, Callable[..., Any]] | None = None,
        subrequests: Callable[[], Runner] | None = None,
        captured: LogBuffer | None = None,
        zones: Mapping[str, Zone] | None = None,
        network: Network | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.product = product
        self.connections: MutableMapping[int, ClientConnection] = {}
        prefix = config.prefix
        table = OpTable()
        self.driver = Driver(table)
        log.install(table, sinks, captured)
        control.install(table)
        output.install(table, self.connections)
        body.install(table, self.connections, prefix)
        var.install(
            table, self.connections, clock, document_root, request_filename, invalid_referer
        )
        expires.install(table)
        gzip.install(table, self.connections)
        deadline.install(table)
        pace.install(table, self.connections)
        self.subrequests = subrequests
        #: The cosockets of the VM.
        self.sockets = Sockets(table, network)
        self.datagrams = Datagrams(table, self.sockets)
        #: The child processes of the VM.
        self.pipes = Pipes(table)
        #: The handshakes of clients that Lua code decides about.
        self.handshakes = Handshakes(table, self.connections)
        req_socket.install(table, self.connections)
        if subrequests is not None:
            subrequest.install(table, subrequests)
        functions = PythonFunctions(table, config)
        #: The alerts between workers.
        self.alerts = Alerts(table, self.driver)
        plain: dict[str, Callable[..., Any]] = {**codec.calls(), **time_api.calls(clock)}
        for name, call in {**plain, **(calls or {})}.items():
            table.call(name, call)
        if graceful_exit is not None:
            table.call("graceful_exit", graceful_exit)
        table.call("read_file", _read_file)

        http = config.http
        # kept for as long as the VM, which knows nothing but their addresses
        self._zones = dict(open_zones(http.shared_dicts) if zones is None else zones)
        values = {
            "ops": table.numbers,
            "context_names": {int(k): v for k, v in CONTEXT_NAMES.items()},
            "phase_names": {int(k): v for k, v in PHASE_NAMES.items()},
            "allowed": {
                name: int(phases) for name, phases in allowed(strict=http.lua_strict_phases).items()
            },
            "strict_phases": http.lua_strict_phases,
            "plain_coroutine_phases": int(_PLAIN_COROUTINES),
            "status_lines": {code: f"{code} {text}" for code, text in REASONS.items()},
            "log_level": sinks[0].level if sinks else 0,
            "prefix": prefix,
            "zones": {zone.name: zone.address for zone in self._zones.values()},
            "hostname": socket.gethostname().lower(),
            "nginx_version": NGINX_VERSION,
            "nginx_version_number": _NGINX_VERSION_NUMBER,
            "ngx_lua_version": _NGX_LUA_VERSION,
            "configure_arguments": CONFIGURE,
            "max_pending_timers": http.lua_max_pending_timers,
            "max_running_timers": http.lua_max_running_timers,
            "lua_regex_match_limit": http.lua_regex_match_limit,
            "lua_regex_cache_max_entries": http.lua_regex_cache_max_entries,
        }
        #: The thread pools of the worker.
        self.thread_pools = ThreadPools(table, config, sinks, values, self._zones)
        self.vm = vm = VM(
            calls=table.calls,
            values=values,
            files=[_HEAD, *_SHM, *family_files(), *files],
        )
        self.thread_pools.bind(vm)
        functions.bind(vm)
        self.alerts.bind(vm)
        vm.set(
            "main_location",
            {"socket": self.sockets.constants(http.settings), **guard.constants(http.settings)},
        )
        self.regexes = Regexes(vm)
        call = vm.export("shared_call")
        #: The shared dictionaries by name.
        self.shared = {name: SharedDict(zone, call) for name, zone in self._zones.items()}
        vm.export("set_paths")(
            os.fsencode(paths.lua_path(http.lua_package_path, prefix)),
            os.fsencode(paths.lua_cpath(http.lua_package_cpath, prefix)),
        )
        export = vm.export
        # The request
        self.serve = export("serve")
        self.current = export("current")
        self.begin = export("begin")
        self.target = export("target")
        self.set_target = export("set_target")
        self.enter = export("enter")
        self.release = export("release")
        self.get = export("get")
        self.put = export("put")
        self.header = export("header")
        self.eval = export("eval")
        self.eval_parts = export("eval_parts")
        self.get_variable = export("get_variable")
        self.set_variable = export("set_variable")
        self.set_captures = export("set_captures")
        self.store_body = export("store_body")
        self.restart = export("restart")
        self.client_gone = export("client_gone")
        # Handlers
        self.run = export("run")
        self.content = export("content")
        self.run_sync = export("run_sync")
        self.bound = export("bound")
        self.run_main = export("run_main")
        self.begin_tls = export("begin_tls")
        self.set_args = export("set_args")
        # The response
        self.conclude = export("conclude")
        self.respond = export("respond")
        self.send = export("send")
        self.set_header = export("set_header")
        self.add_header = export("add_header")
        self.reset_response = export("reset_response")
        self.response_state = export("response_state")
        self.log = export("log")
        self.define_location = export("define_location")
        self.define_endpoint = export("define_endpoint")
        self.remember = export("remember")
        self.remember_host = export("remember_host")
        self.forget = export("forget")
        self.forget_hosts = export("forget_hosts")
        self._define_handler = export("define_handler")
        self._define_template = export("define_template")
        self._check_syntax = export("check_syntax")
        self.set_exiting = export("set_exiting")
        self.end_timer = export("end_timer")
        self.expire_timers = export("expire_timers")
        self.next_thread = export("next_thread")
        self.log_thread = export("log_thread")
        self.drop_timers = export("drop_timers")
        self.timers = export("timers")
        self.set_request_header = export("set_request_header")
        self.run_hook = export("run_hook")
        self.compresses = export("compresses")
        self.run_content_hook = export("run_content_hook")
        self.driver.bind(export)
        self._handlers: dict[int, tuple[LuaCode, int]] = {}
        self._templates: dict[Template, int] = {}
        for name in http.variables:
            export("declare_variable")(name.encode())
        for name in http.groups - http.variables:
            export("declare_group")(name.encode())
        RUNTIMES.add(self)
        self.modules = Modules(config, vm, self.connections)
        if not http.lua_strict_phases:
            #: Runs the handlers that may wait only with ``lua_strict_phases off``; not there with ``on``.
            self.waiting = Waiting(self)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold what works in the background for the VM: idle connections, threads, child processes."""
        async with (
            self.sockets.running(),
            self.thread_pools.running(),
            self.pipes.children.running(),
        ):
            yield

    def set_place(self, place: Place) -> None:
        """Tell Lua code which process this is; without that it is a single one."""
        self.vm.set_call("worker_pids", place.pids)
        self.vm.export("set_place")(place.kind.encode(), place.number, place.total, place.master)

    def handler(self, code: LuaCode) -> int:
        """The VM's number of a handler; its code is compiled when it first runs."""
        known = self._handlers.get(id(code))
        if known is not None:
            return known[1]
        number = len(self._handlers) + 1
        self._handlers[id(code)] = (code, number)
        if code.code is not None:
            text = code.code.encode("utf-8", "surrogateescape")
            self._define_handler(number, text, b"=" + code.chunk_name.encode())
        return number

    def inline_code(self) -> dict[str, LuaCode]:
        """The handlers that stand in the configuration, by the name that tracebacks call them."""
        codes = [code for code, _ in self._handlers.values()]
        return {code.chunk_name: code for code in codes if code.code is not None}

    def template(self, template: Template) -> int:
        """The VM's number of a template."""
        number = self._templates.get(template)
        if number is None:
            number = self._templates[template] = len(self._templates) + 1
            parts: list[object] = []
            for part in template.parts:
                if isinstance(part, Var):
                    parts += (True, part.name.encode())
                else:
                    parts += (False, part.encode("utf-8", "surrogateescape"))
            self._define_template(number, *parts)
        return number

    def check_syntax(self, code: str, chunk_name: str) -> str | None:
        """Compile without running; the error's text, or None."""
        error = self._check_syntax(
            code.encode("utf-8", "surrogateescape"), b"=" + chunk_name.encode()
        )
        return None if error is None else error.decode("utf-8", "replace")

    async def read_body(self, request: Any) -> bytes | None:
        """The request body, read once; None when it lies in a file.

        Raises:
            ProtocolError: It could not be read.
        """
        if request.length and not self.get(request.id, b"body_read"):
            kind, data = await body.read_body(request, self.config.prefix)
            if kind == body.FAILED:
                assert isinstance(data, int)
                raise ProtocolError("request body", data)
            self.store_body(request.id, kind, data)
        if self.get(request.id, b"body_file") is not None:
            return None
        return self.get(request.id, b"body") or b""

    def run_set(self, request: Any, handler: LuaCode) -> bytes | None:
        """Run a ``set_by_lua*`` handler: its value, or None when it failed (and that is logged)."""
        path = self.handler_path(request, handler)
        self.set_args(request.id, *[request.evaluate(arg) for arg in handler.args])
        result = self.run_sync(request.id, self.handler(handler), int(Phase.SET), path)
        return self.set_value(request, result)

    @staticmethod
    def set_value(request: Any, result: Any) -> bytes | None:
        """The value of a ``set_by_lua*`` handler from what running it returned; None when it failed, which is logged."""
        if result is True:
            return b""
        ok, value = result[0], result[1]
        if ok:
            return _text(value)
        request.log(4, b"failed to run set_by_lua*: " + value)
        return None

    def main_path(self, handler: LuaCode) -> bytes | None:
        """The path of the file of a handler outside of requests; None for inline code."""
        if handler.path is None:
            return None
        return os.fsencode(os.path.join(self.config.prefix, handler.path.raw))

    def handler_path(self, request: Any, handler: LuaCode) -> bytes | None:
        """The path of a ``*_by_lua_file`` handler for a request; None for inline code."""
        if handler.path is None:
            return None
        path = request.evaluate(handler.path)
        if not path.startswith(b"/"):
            path = os.fsencode(self.config.prefix) + path
        return path  # type: ignore[no-any-return]

    def run_init(self, handler: LuaCode, phase: Phase) -> None:
        """Run ``init_by_lua*``, ``init_worker_by_lua*`` or ``exit_worker_by_lua*``.

        Raises:
            LuaError: It failed; the message has the traceback in it.
        """
        result = self.run_main(self.handler(handler), self.main_path(handler), int(phase))
        if result is not True:
            raise LuaError(result[1].decode("utf-8", "replace"))


def _text(value: object) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float):
        return f"{value:.14g}".encode()
    return str(value).encode()


def _read_file(path: bytes) -> tuple[bytes | None, bytes | None]:
    try:
        return Path(os.fsdecode(path)).read_bytes(), None
    except OSError as error:
        return None, os.strerror(error.errno or 0).encode()
