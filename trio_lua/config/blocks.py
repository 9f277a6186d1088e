"""What a configuration is while it is being read, and how it becomes the frozen model.

Reading fills one :class:`Block` per brace pair with what was written in it. When the ``http``
block is complete, :class:`HttpBlock` hands values down from block to block: only then, because
a setting of ``http`` also holds for the servers written above it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from trio_lua.config.directives import Context, DirectiveTable, Extension
from trio_lua.config.model import (
    AccessLog,
    Computed,
    Condition,
    Config,
    Http,
    If,
    Instruction,
    LimitExcept,
    Listen,
    Location,
    LogFormat,
    MatchKind,
    Server,
    Settings,
    Source,
    Template,
)
from trio_lua.config.syntax import Statement, fail, statements
from trio_lua.config.tls import TlsOptions
from trio_lua.config.variables import Variables
from trio_lua.errors import ConfigError

__all__ = ["Address", "Block", "Build", "HttpBlock", "IfStep", "LocationBlock", "ServerBlock"]

#: Blocks within blocks, or files including files: more than that is a mistake.
_MAX_DEPTH = 50

_COMBINED = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    '"$http_referer" "$http_user_agent"'
)


def _names(model: type[Any], *without: str) -> frozenset[str]:
    return frozenset(field.name for field in fields(model)) - set(without)


_SETTINGS = _names(Settings, "extra")
_SERVER = _names(Server, "listens", "names", "location", "source", "tls")
_TLS = _names(TlsOptions, "source")
_HTTP = _names(Http, "servers", "settings", "log_formats", "variables", "groups", "computed")
_CONFIG = _names(Config, "http", "prefix", "file", "modules", "warnings")


def _chosen(values: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: _frozen(value) for name, value in values.items() if name in names}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Build:
    """One configuration in the making: what all its blocks share.

    Attributes:
        table: The directives that are known.
        variables: The variables, declared and used.
        warnings: Messages so far, each beginning with its level (``[warn] ...``).
        files: Paths and texts of the files that were read, in that order.
        http: The ``http`` block, once there is one.
        log_formats: ``log_format`` by name.
    """

    def __init__(self, table: DirectiveTable, *, prefix: str, file: str) -> None:
        self.table = table
        self.prefix = prefix
        self.file = file
        #: Whether the process is somebody else's.
        self.embedded = False
        self.folder = os.path.dirname(os.path.abspath(file)) if file else prefix or os.getcwd()
        self.variables = Variables()
        for extension in table.extensions:
            self._provide(extension)
        self.warnings: list[str] = []
        self.files: list[tuple[str, str]] = []
        self.main = Block(self, Context.MAIN, Source(file, 0))
        self.http: HttpBlock | None = None
        self.has_events = False
        self.log_formats: dict[str, LogFormat] = {}
        self.add_log_format("combined", _COMBINED, "default", Source("", 0))
        self._depth = 0

    def extend(self, extension: Extension) -> None:
        """Makes the directives of an extension known from here on."""
        if extension not in self.table.extensions:
            self.table = self.table.extended([extension])
            self._provide(extension)

    def _provide(self, extension: Extension) -> None:
        for name in extension.variables:
            self.variables.provide(name.rstrip("*"), prefix=name.endswith("*"))

    def warn(self, message: str, level: str = "warn") -> None:
        """Keeps a message that does not stop anything."""
        self.warnings.append(f"[{level}] {message}")

    def add_log_format(self, name: str, text: str, escape: str, source: Source) -> None:
        template = self.variables.template(text, source)
        self.log_formats[name] = LogFormat(name, template, escape)

    # ------------------------------------------------------------ files

    def read_file(self, path: str, source: Source | None = None) -> Iterator[Statement]:
        """The statements of a file, included at ``source``."""
        try:
            with open(path, "rb") as file:
                text = file.read().decode("utf-8", "surrogateescape")
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                call = "pread" if isinstance(error, IsADirectoryError) else "open"
                message = f'{call}() "{path}" failed ({error.errno}: {error.strerror})'
            else:
                message = f'open() "{path}" failed ({error})'
            raise ConfigError(message) if source is None else fail(message, source) from None
        self.files.append((path, text))
        return statements(text, path)

    def include(self, pattern: str, source: Source) -> Iterator[Iterator[Statement]]:
        """The files of an ``include``, one after the other."""
        path = os.path.join(self.folder, pattern)
        paths = [path]
        if any(char in path for char in "*?["):
            paths = [] if "\0" in path else sorted(glob.glob(path))
        with self.deeper(source):
            for path in paths:
                yield self.read_file(path, source)

    @contextmanager
    def deeper(self, source: Source) -> Iterator[None]:
        """Reading something inside something, with a limit."""
        if self._depth >= _MAX_DEPTH:
            raise fail("blocks or includes are nested too deeply", source)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    # ------------------------------------------------------------ the result

    def config(self) -> Config:
        """The finished model.

        Raises:
            ConfigError: What was read does not fit together.
        """
        values = _chosen(self.main.values, _CONFIG)
        if self.http is not None:
            values["http"] = self.http.model()
        return Config(
            **values,
            prefix=self.prefix,
            file=self.file,
            modules=tuple(self.table.extensions),
            warnings=tuple(self.warnings),
        )


class Block:
    """What was written between two braces.

    Attributes:
        context: Which directives may stand here.
        values: Values of the model's fields, by field name; lists become tuples. Names that are
            no fields serve to notice duplicates.
        extra: Settings of modules (:meth:`~trio_lua.config.directives.Use.put_setting`). They are
            inherited and end up in ``Settings.extra``.
    """

    def __init__(self, build: Build, context: Context, source: Source) -> None:
        self.build = build
        self.context = context
        self.source = source
        self.values: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}

    def settings(self, outer: Settings) -> Settings:
        """The settings here, inside a block with the settings ``outer``."""
        own = _chosen(self.values, _SETTINGS)
        if self.extra:
            own["extra"] = MappingProxyType(self._merged(outer.extra))
        return replace(outer, **own) if own else outer

    def _merged(self, outer: Mapping[str, Any]) -> dict[str, Any]:
        merged = dict(outer)
        for name, value in self.extra.items():
            value = _frozen(value)
            merge = self.build.table.merge(name) if name in outer else None
            merged[name] = merge(outer[name], value) if merge is not None else value
        return merged


@dataclass(slots=True)
class IfStep:
    """An ``if`` among the rewrite instructions of a block."""

    condition: Condition
    block: LocationBlock
    source: Source


class LocationBlock(Block):
    """A ``location``, the implicit one of an ``if``, or the outermost one of a server.

    Attributes:
        kind: How it is chosen.
        path: What it is chosen by; an ``if`` has that of the block around it.
        steps: The rewrite instructions in order.
        locations: The locations inside.
        handlers: The content handler of a module, if it has one: its name and its value.
        limit_except: The methods of ``limit_except``, and its block.
    """

    def __init__(
        self, build: Build, context: Context, source: Source, kind: MatchKind, path: str = ""
    ) -> None:
        super().__init__(build, context, source)
        self.kind = kind
        self.path = path
        self.steps: list[Instruction | IfStep] = []
        self.locations: list[LocationBlock] = []
        self.handlers: dict[str, Any] = {}
        self.limit_except: tuple[frozenset[str], LocationBlock] | None = None

    def model(self, outer: Settings, around: Location | None = None) -> Location:
        """The finished location, inside the location ``around``."""
        values = self.values
        settings = self.settings(outer)
        location = Location(
            kind=self.kind,
            path=self.path,
            settings=settings,
            source=self.source,
            content=values.get("content"),
            internal=values.get("internal", around is not None and around.internal),
            alias=values.get("alias"),
            try_files=values.get("try_files"),
            auto_redirect=values.get("auto_redirect", False),
            handlers=MappingProxyType({k: _frozen(v) for k, v in self.handlers.items()})
            if self.handlers
            else _NOTHING,
        )
        if (
            self.kind is MatchKind.IF
            and around is not None
            and location.content is None
            and not location.handlers
        ):
            location = replace(location, content=around.content, handlers=around.handlers)
        if self.limit_except is not None:
            methods, block = self.limit_except
            limited = block.model(settings, location)
            location = replace(location, limit_except=LimitExcept(methods, limited))
        if not self.steps and not self.locations:
            return location
        self._check_duplicates()
        return replace(
            location,
            rewrite=tuple(
                If(step.condition, step.block.model(settings, location), step.source)
                if isinstance(step, IfStep)
                else step
                for step in self.steps
            ),
            locations=tuple(inner.model(settings, location) for inner in self.locations),
        )

    def _check_duplicates(self) -> None:
        seen: set[tuple[bool, str]] = set()
        for inner in self.locations:
            if inner.kind in _BY_PATH:
                key = (inner.kind is MatchKind.EXACT, inner.path)
                if key in seen:
                    raise fail(f'duplicate location "{inner.path}"', inner.source)
                seen.add(key)


_NOTHING: MappingProxyType[str, Any] = MappingProxyType({})
_BY_PATH = frozenset({MatchKind.EXACT, MatchKind.PREFIX, MatchKind.PREFIX_FINAL})


class ServerBlock(LocationBlock):
    """A ``server``."""

    def __init__(self, build: Build, source: Source) -> None:
        super().__init__(build, Context.SERVER, source, MatchKind.SERVER)
        self.listens: list[Listen] = []
        self.names: list[str] = []

    def server(self, http: HttpBlock, outer: Settings) -> Server:
        """The finished server."""
        values = {**http.values, **self.values}
        tls = _chosen(values, _TLS)
        return Server(
            listens=tuple(self.listens),
            names=tuple(self.names),
            location=self.model(outer),
            source=self.source,
            tls=TlsOptions(**tls, source=self.source) if tls else None,
            **_chosen(values, _SERVER),
        )


class Address:
    """What one listening address is told by the ``listen`` directives that name it."""

    def __init__(self) -> None:
        self.servers: list[ServerBlock] = []
        self.has_options = False
        self.has_default = False


class HttpBlock(Block):
    """The ``http`` block.

    Attributes:
        servers: The servers in file order.
        addresses: The listening addresses, as nginx prints them.
        computed: Variables that modules compute, such as those of ``map``; ``Http.computed``.
    """

    def __init__(self, build: Build, source: Source) -> None:
        super().__init__(build, Context.HTTP, source)
        self.servers: list[ServerBlock] = []
        self.addresses: dict[str, Address] = {}
        self.computed: dict[str, Computed] = {}

    def model(self) -> Http:
        """The finished block."""
        self.values.setdefault("access_logs", [_default_access_log()])
        settings = self.settings(Settings())
        servers = tuple(server.server(self, settings) for server in self.servers)
        self.build.variables.check()
        _check_certificates(self.servers, servers)
        for text, address in self.addresses.items():
            _check_names(self.build, text, address)
        return Http(
            servers=servers,
            settings=settings,
            log_formats=MappingProxyType(self.build.log_formats),
            variables=frozenset(self.build.variables.declared),
            groups=frozenset(self.build.variables.groups),
            computed=MappingProxyType(
                {
                    name: replace(one, cached=one.cached and self.build.variables.is_used(name))
                    for name, one in self.computed.items()
                }
            ),
            **_chosen(self.values, _HTTP),
        )


def _default_access_log() -> AccessLog:
    path = "logs/access.log"
    return AccessLog(Template(path, (path,)), "combined", implied=True)


def _check_certificates(blocks: list[ServerBlock], servers: tuple[Server, ...]) -> None:
    """The default server of each encrypted address needs a certificate."""
    defaults: dict[tuple[str, int, str | None], Server] = {}
    encrypted: set[tuple[str, int, str | None]] = set()
    for server in servers:
        for listen in server.listens:
            address = (listen.host, listen.port, listen.path)
            if listen.default_server:
                defaults[address] = server
            else:
                defaults.setdefault(address, server)
            if listen.ssl:
                encrypted.add(address)
    for server in servers:
        tls = server.tls
        if tls is not None and len(tls.ssl_certificate_key) < len(tls.ssl_certificate):
            certificate = tls.ssl_certificate[len(tls.ssl_certificate_key)]
            raise fail(
                f'no "ssl_certificate_key" is defined for certificate "{certificate}"',
                server.source,
            )
        if (
            tls is not None
            and tls.ssl_certificate
            and tls.ssl_verify_client != "off"
            and not tls.ssl_client_certificate
        ):
            raise fail("no ssl_client_certificate for ssl_verify_client", server.source)
    for address, server in defaults.items():
        if address not in encrypted:
            continue
        if server.tls is None or not (
            server.tls.ssl_certificate or server.tls.ssl_reject_handshake
        ):
            raise fail(
                'no "ssl_certificate" is defined for the "listen ... ssl" directive', server.source
            )


def _check_names(build: Build, text: str, address: Address) -> None:
    if len(address.servers) < 2:
        return
    seen: set[str] = set()
    for server in address.servers:
        for name in server.names or ("",):
            if name.startswith("~"):
                continue
            if not _is_name(name):
                raise fail(f'invalid server name or wildcard "{name}" on {text}', server.source)
            keys = {name[1:], "*" + name} if name.startswith(".") else {name}
            if keys & seen:
                build.warn(f'conflicting server name "{name}" on {text}, ignored')
            else:
                seen |= keys


def _is_name(name: str) -> bool:
    if ".." in name or "\0" in name:
        return False
    stars = name.count("*")
    return stars == 0 or (stars == 1 and (name.startswith("*.") or name.endswith(".*")))
