"""Locations compiled into plans: which steps a request of each location really takes.

Made once per configuration and VM. A request walks its plan and pays for nothing that its location
does not have; a location that has nothing but inline handlers has a *chain* of them, and its requests take the
shortest way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from trio_lua.api import guard
from trio_lua.api.modules import Hook
from trio_lua.api.runtime import Runtime
from trio_lua.config.model import (
    AccessLog,
    Config,
    Location,
    LuaCode,
    MatchKind,
    Server,
    Settings,
    Template,
)
from trio_lua.phases.access import Rules
from trio_lua.phases.filters import filter_constants
from trio_lua.phases.matcher import LocationTable, ServerTable, server_tables
from trio_lua.phases.referer import Referers
from trio_lua.phases.rewrite import Program, compile_program
from trio_lua.phases.static import Files
from trio_lua.request.phase import Phase

__all__ = ["Handler", "Plan", "Plans", "ServerPlan"]

#: Answers of a server remembered by path, for its locations that have a chain.
_REMEMBERED = 1024


class Handler:
    """A Lua handler and its number in the VM."""

    __slots__ = ("code", "number")

    def __init__(self, code: LuaCode, number: int) -> None:
        self.code = code
        self.number = number


class Plan:
    """The steps of one location."""

    __slots__ = (
        "access",
        "access_first",
        "access_hooks",
        "access_logs",
        "chain",
        "content",
        "files",
        "files_hooks",
        "filters_wait",
        "has_log",
        "id",
        "limited",
        "location",
        "log",
        "log_waits",
        "max_body",
        "max_requests",
        "methods",
        "module_content",
        "precontent",
        "program",
        "referers",
        "rewrite",
        "rewrite_first",
        "rewrite_hooks",
        "rules",
        "server",
        "settings",
    )

    def __init__(self, number: int, location: Location, server: ServerPlan, files: Files) -> None:
        self.id = number
        self.location = location
        self.settings: Settings = location.settings
        self.server = server
        self.program: Program | None = None
        self.rewrite: Handler | None = None
        self.access: Handler | None = None
        self.precontent: Handler | None = None
        self.content: Handler | None = None
        #: Whether the Lua handlers of a phase run before what else the phase has (``..._no_postpone``).
        self.rewrite_first = False
        self.access_first = False
        #: Hooks of modules.
        self.rewrite_hooks: tuple[Hook, ...] = ()
        self.access_hooks: tuple[Hook, ...] = ()
        self.module_content: Hook | None = None
        self.files_hooks: tuple[Hook, ...] = ()
        self.log: Handler | None = None
        self.access_logs: tuple[AccessLog, ...] = ()
        self.has_log = False
        #: Whether filters of the response and the log handler may wait (``lua_strict_phases off``).
        self.filters_wait = False
        self.log_waits = False
        #: The steps of a location that has nothing but inline handlers; else empty.
        self.chain: tuple[tuple[Handler, Phase], ...] = ()
        self.files = files
        #: Of requests whose method ``limit_except`` does not list.
        self.limited: Plan | None = None
        self.methods: frozenset[bytes] = frozenset()
        self.referers: Referers | None = None
        settings = location.settings
        self.rules = Rules(settings.access_rules) if settings.access_rules else None
        #: Largest body, in bytes.
        self.max_body: float = settings.client_max_body_size or math.inf
        #: Requests of one connection before it is closed.
        self.max_requests = settings.keepalive_requests if settings.keepalive_timeout > 0 else 0


class ServerPlan:
    """One server: its own steps, its locations, and what requests that chose it have in common."""

    __slots__ = (
        "_runtime",
        "known",
        "number",
        "outer",
        "plain",
        "plans",
        "program",
        "rewrite",
        "server",
        "table",
    )

    def __init__(self, number: int, server: Server, table: LocationTable, runtime: Runtime) -> None:
        self.number = number
        self._runtime = runtime
        self.server = server
        self.table = table
        self.plans: dict[int, Plan] = {}
        self.outer: Plan
        self.program: Program | None = None
        self.rewrite: Handler | None = None
        #: Whether nothing runs before the location search.
        self.plain = False
        #: Paths whose answer is a plan with a chain.
        self.known: dict[bytes, Plan] = {}

    def remember(self, uri: bytes, plan: Plan) -> None:
        """Keep the answer of a location search (bounded)."""
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
            self._runtime.forget(self.number)
        self.known[uri] = plan
        steps = [int(part) for handler, phase in plan.chain for part in (handler.number, phase)]
        self._runtime.remember(self.number, uri, plan.id, plan.max_requests, *steps)


class Plans:
    """All plans of a configuration in one VM.

    Attributes:
        tables: The servers by listening address.
        servers: Their plans, by ``id()`` of the server.
        numbered: The plans of all locations, by their numbers in the VM.

    Raises:
        ConfigError: A name, location or pattern is not valid.
    """

    def __init__(
        self,
        config: Config,
        runtime: Runtime,
        *,
        sink_of: Callable[[Settings], tuple[int, int]],
        access_log: bool,
        chains: bool = True,
    ) -> None:
        """Compile.

        Args:
            config: The configuration.
            runtime: The VM.
            sink_of: Number and level of the error log of some settings.
            access_log: Whether access logs are written at all.
            chains: Whether requests may take the short way, past the engine.
        """
        self._runtime = runtime
        self._sink_of = sink_of
        self._access_log = access_log
        self._chains = chains
        self._count = 0
        #: Whether a location has bounds that :class:`~trio_lua.api.guard.Guard` is to watch.
        self.bounded = False
        self.tables: Mapping[Any, ServerTable] = server_tables(config.http.servers, runtime.regexes)
        self.servers: dict[int, ServerPlan] = {}
        self.numbered: dict[int, Plan] = {}
        for server in config.http.servers:
            self.servers[id(server)] = self._server(server)

    def _server(self, server: Server) -> ServerPlan:
        table = LocationTable(server.location, self._runtime.regexes)
        plan = ServerPlan(len(self.servers) + 1, server, table, self._runtime)
        plan.outer = self._location(server.location, plan, None)
        plan.program = self._program(server.location, plan, plan.outer)
        plan.rewrite = self._handler(server.location.settings.server_rewrite_by_lua)
        # The server's own program has run before the location search.
        plan.outer.program = None
        plan.plain = plan.program is None and plan.rewrite is None
        for location in server.location.locations:
            self._tree(location, plan, plan.outer)
        return plan

    def _tree(self, location: Location, server: ServerPlan, parent: Plan) -> None:
        plan = self._location(location, server, parent)
        for inner in location.locations:
            self._tree(inner, server, plan)

    def _handler(self, code: LuaCode | None) -> Handler | None:
        return None if code is None else Handler(code, self._runtime.handler(code))

    def _program(self, location: Location, server: ServerPlan, parent: Plan) -> Program | None:
        if not location.rewrite:
            return None
        for instruction in location.rewrite:
            inner = getattr(instruction, "location", None)
            if inner is not None:
                self._location(inner, server, parent)
        return compile_program(
            location.rewrite,
            server_level=location.kind is MatchKind.SERVER,
            strict=self._runtime.config.http.lua_strict_phases,
        )

    def _location(self, location: Location, server: ServerPlan, parent: Plan | None) -> Plan:
        self._count += 1
        files = Files(
            location, self._runtime.config.prefix, None if parent is None else parent.files
        )
        plan = Plan(self._count, location, server, files)
        server.plans[id(location)] = self.numbered[plan.id] = plan
        settings = location.settings
        plan.program = self._program(location, server, plan)
        plan.rewrite = self._handler(settings.rewrite_by_lua)
        if settings.valid_referers:
            plan.referers = Referers(
                settings.valid_referers, server.server.names, self._runtime.regexes
            )
        plan.access = self._handler(settings.access_by_lua)
        http = self._runtime.config.http
        plan.rewrite_first = http.rewrite_by_lua_no_postpone and plan.rewrite is not None
        plan.access_first = http.access_by_lua_no_postpone and plan.access is not None
        plan.precontent = self._handler(settings.precontent_by_lua)
        plan.content = self._handler(location.content)
        modules = self._runtime.modules
        if settings.extra:
            plan.rewrite_hooks = modules.hooks("rewrite", settings.extra)
            plan.access_hooks = modules.hooks("access", settings.extra)
            plan.files_hooks = modules.hooks("files", settings.extra)
        if location.handlers:
            [plan.module_content] = modules.hooks("content", location.handlers) or (None,)
        plan.log = self._handler(settings.log_by_lua)
        plan.access_logs = settings.access_logs if self._access_log else ()
        plan.has_log = plan.log is not None or bool(plan.access_logs)
        if location.limit_except is not None:
            plan.methods = frozenset(m.encode() for m in location.limit_except.methods)
            plan.limited = self._location(location.limit_except.location, server, plan)
        constants = self._constants(plan)
        if not http.lua_strict_phases:
            plan.filters_wait = "header_filter" in constants or "body_filter" in constants
            plan.log_waits = plan.log is not None
        plan.chain = self._chain(plan) if self._chains else ()
        constants["released_early"] = bool(plan.chain) and not plan.has_log
        self._runtime.define_location(plan.id, self._runtime.vm.to_lua(constants))
        return plan

    def _chain(self, plan: Plan) -> tuple[tuple[Handler, Phase], ...]:
        """The handlers of a location that has nothing but inline handlers from rewrite to content."""
        location, settings = plan.location, plan.settings
        steps = [
            (handler, phase)
            for handler, phase in (
                (plan.rewrite, Phase.REWRITE),
                (plan.access, Phase.ACCESS),
                (plan.content, Phase.CONTENT),
            )
            if handler is not None
        ]
        if (
            plan.content is None
            or plan.filters_wait
            or any(handler.code.code is None for handler, _ in steps)
            or plan.program is not None
            or plan.precontent is not None
            or plan.rewrite_hooks
            or plan.access_hooks
            or location.internal
            or location.try_files is not None
            or location.limit_except is not None
            or settings.auth_delay
            or settings.access_rules
            or settings.lua_need_request_body
            or (plan.access is not None and settings.satisfy != "all")
        ):
            return ()
        return tuple(steps)

    def _constants(self, plan: Plan) -> dict[str, Any]:
        """What Lua reads of a location (``r.loc``)."""
        location, settings, server = plan.location, plan.settings, plan.server.server
        runtime = self._runtime
        sink, level = self._sink_of(settings)
        names = [name for name in server.names if name]
        name = names[0] if names else ""
        values: dict[str, Any] = {
            "server": {
                "name": name.removeprefix("."),
                "underscores_in_headers": server.underscores_in_headers,
                "ignore_invalid_headers": server.ignore_invalid_headers,
            },
            "server_token": runtime.product
            if settings.server_tokens
            else runtime.product.partition("/")[0],
            "log": sink,
            "log_level": level,
            "default_type": settings.default_type,
            "use_default_type": settings.lua_use_default_type,
            "http10_buffering": settings.lua_http10_buffering,
            "transform_underscores": settings.lua_transform_underscores_in_response_headers,
            "chunked": settings.chunked_transfer_encoding,
            "postpone_output": settings.postpone_output,
            "if_modified_since": settings.if_modified_since,
            "code_cache": settings.lua_code_cache,
            "body_buffer_size": settings.client_body_buffer_size,
        }
        bounds = guard.constants(settings)
        if bounds:
            values.update(bounds)
            self.bounded = True
        values["socket"] = runtime.sockets.constants(settings)
        if not settings.uninitialized_variable_warn:
            values["uninitialized_variable_warn"] = False
        if settings.keepalive_header is not None:
            values["keepalive_header"] = str(settings.keepalive_header)
        values.update(filter_constants(settings, runtime))
        for key, code in (
            ("header_filter", settings.header_filter_by_lua),
            ("body_filter", settings.body_filter_by_lua),
        ):
            if code is not None:
                values[key] = runtime.handler(code)
                if code.path is not None:
                    values[f"{key}_path"] = runtime.template(
                        _absolute(code.path, runtime.config.prefix)
                    )
        runtime.modules.add_constants(values, location, runtime.template)
        return values


def _absolute(path: Template, prefix: str) -> Template:
    if path.raw.startswith("/") or not prefix:
        return path
    return Template(prefix + path.raw, (prefix, *path.parts))
