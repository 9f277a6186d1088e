"""The configuration as frozen, typed objects.

Both ways in, nginx.conf (:mod:`trio_lua.config.nginx`) and the Python builder
(:mod:`trio_lua.config.builder`), end here, so everything behind this module
knows one model. Inheritance from http to server to location is already worked
out: a :class:`Location` carries the final value of every setting, and a request
never walks up the tree.

Times are seconds (float), sizes are bytes (int). Text that may hold ``$variables``
is a :class:`Template` and is evaluated per request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from trio_lua.config.tls import TlsOptions


@dataclass(frozen=True, slots=True)
class Source:
    """Where in the configuration something was written."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Template:
    """Text with ``$variables`` (nginx: a complex value).

    ``parts`` alternates as written: ``str`` is literal text, :class:`Var` a variable.
    A literal ``Template`` has at most one part, a ``str``.
    """

    raw: str
    parts: tuple[Union[str, Var], ...]

    @property
    def literal(self) -> str | None:
        """The text, when it holds no variable; otherwise None."""
        if not self.parts:
            return ""
        if len(self.parts) == 1 and isinstance(self.parts[0], str):
            return self.parts[0]
        return None


@dataclass(frozen=True, slots=True)
class Var:
    """A variable's lower-case name inside a template; ``"1"`` to ``"9"`` are captures."""

    name: str


@dataclass(frozen=True, slots=True)
class LuaCode:
    """One Lua handler: inline text, or a file whose path may hold variables.

    ``chunk_name`` is what tracebacks show: ``content_by_lua(nginx.conf:16)`` for inline
    code (file name without folders, as nginx shows it), the path itself for files.
    ``code`` is None for files. ``directive`` is the name as written.
    """

    directive: str
    source: Source
    chunk_name: str
    code: str | None = None
    path: Template | None = None
    args: tuple[Template, ...] = ()


# ---------------------------------------------------------------- rewrite program


@dataclass(frozen=True, slots=True)
class SetVar:
    """``set $name value;``"""

    name: str
    value: Template
    source: Source


@dataclass(frozen=True, slots=True)
class SetByLua:
    """``set_by_lua* $name ...;``"""

    name: str
    handler: LuaCode
    source: Source


@dataclass(frozen=True, slots=True)
class SetByFunction:
    """A directive of a module that computes a variable: ``set_md5 $name value;``.

    ``function`` is the directive's name.
    """

    name: str
    function: str
    args: tuple[Template, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class Rewrite:
    """``rewrite regex replacement [flag];``

    ``flag`` is one of "", "last", "break", "redirect", "permanent". ``args`` is False when the
    replacement ends in "?" (the old arguments are then not appended; the "?" is already cut off).
    ``external`` is True when the replacement starts with http://, https:// or $scheme.
    """

    regex: str
    replacement: Template
    flag: str
    args: bool
    external: bool
    source: Source


@dataclass(frozen=True, slots=True)
class Return:
    """``return code [text];``, ``return code URL;`` or ``return URL;`` (code 302)."""

    code: int
    text: Template | None
    source: Source


@dataclass(frozen=True, slots=True)
class Break:
    """``break;``"""

    source: Source


@dataclass(frozen=True, slots=True)
class Condition:
    """The test of an ``if``.

    ``kind``: "true" (variable is neither "" nor "0"), "=", "!=", "~", "~*", "!~", "!~*",
    "-f", "!-f", "-d", "!-d", "-e", "!-e", "-x", "!-x". ``left`` is what is tested; ``right`` the text
    to compare with, or the regular expression (always literal).
    """

    kind: str
    left: Template
    right: Template | None = None


@dataclass(frozen=True, slots=True)
class If:
    """``if (condition) { ... }``; ``location`` is the implicit location it makes.

    At server level only ``location.rewrite`` matters.
    """

    condition: Condition
    location: Location
    source: Source


Instruction = Union[SetVar, SetByLua, SetByFunction, Rewrite, Return, Break, If]


# ---------------------------------------------------------------- settings


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """``error_page code ... [=[code]] uri;``

    ``response`` is None to keep the code, 0 for a bare ``=`` (the target's own status), else the code.
    """

    codes: tuple[int, ...]
    response: int | None
    uri: Template


@dataclass(frozen=True, slots=True)
class AddHeader:
    """``add_header name value [always];``"""

    name: str
    value: Template
    always: bool


@dataclass(frozen=True, slots=True)
class Expires:
    """``expires [modified] time;``; without variables the time is valid."""

    time: Template
    modified: bool = False


@dataclass(frozen=True, slots=True)
class AccessLog:
    """``access_log path [format] [if=condition];``

    ``implied``: it is nginx's default, where the configuration says nothing of access logs.
    """

    path: Template
    format: str
    condition: Template | None = None
    implied: bool = False


@dataclass(frozen=True, slots=True)
class ErrorLog:
    """``error_log file [level];`` — ``file`` may be "stderr"; ``level`` is nginx's name."""

    file: str
    level: str


@dataclass(frozen=True, slots=True)
class LogFormat:
    """``log_format name [escape=default|json|none] text;``"""

    name: str
    template: Template
    escape: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that is inherited from http to server to location (final values)."""

    # Lua handlers of the phases (innermost wins)
    server_rewrite_by_lua: LuaCode | None = None
    rewrite_by_lua: LuaCode | None = None
    access_by_lua: LuaCode | None = None
    precontent_by_lua: LuaCode | None = None
    header_filter_by_lua: LuaCode | None = None
    body_filter_by_lua: LuaCode | None = None
    log_by_lua: LuaCode | None = None

    # Lua behaviour
    lua_code_cache: bool = True
    lua_need_request_body: bool = False
    lua_http10_buffering: bool = True
    lua_transform_underscores_in_response_headers: bool = True
    lua_use_default_type: bool = True
    lua_check_client_abort: bool = False
    #: Seconds of computing between two waits: to be ended after, to be logged after; 0 for no bound.
    lua_cpu_budget: float = 30.0
    lua_cpu_warning: float = 1.0
    #: Seconds for a whole request; 0 for no bound.
    lua_request_timeout: float = 0.0
    lua_socket_connect_timeout: float = 60.0
    lua_socket_send_timeout: float = 60.0
    lua_socket_read_timeout: float = 60.0
    lua_socket_buffer_size: int = 4096
    lua_socket_pool_size: int = 30
    lua_socket_keepalive_timeout: float = 60.0
    lua_socket_log_errors: bool = True
    #: Of TLS connections that Lua code makes: versions, OpenSSL's list of ciphers, files by path.
    lua_ssl_protocols: tuple[str, ...] = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
    lua_ssl_ciphers: str = "DEFAULT"
    lua_ssl_verify_depth: int = 1
    lua_ssl_trusted_certificate: str | None = None
    lua_ssl_crl: str | None = None
    lua_ssl_certificate: str | None = None
    lua_ssl_certificate_key: str | None = None
    lua_ssl_key_log: str | None = None

    # responses and files
    root: Template = field(default_factory=lambda: Template("html", ("html",)))
    index: tuple[Template, ...] = ()  # () means index.html
    default_type: str = "text/plain"
    types: Mapping[str, str] | None = None  # extension -> type; None: the built-in table
    error_pages: tuple[ErrorPage, ...] = ()
    add_headers: tuple[AddHeader, ...] = ()
    recursive_error_pages: bool = False
    etag: bool = True
    if_modified_since: str = "exact"  # off | exact | before
    max_ranges: int | None = None  # None: unlimited
    chunked_transfer_encoding: bool = True
    postpone_output: int = 1460
    server_tokens: bool = True
    absolute_redirect: bool = True
    port_in_redirect: bool = True
    server_name_in_redirect: bool = False
    msie_padding: bool = True
    log_not_found: bool = True
    log_subrequest: bool = False
    rewrite_log: bool = False
    uninitialized_variable_warn: bool = True
    satisfy: str = "all"
    auth_delay: float = 0.0
    access_rules: tuple[tuple[bool, str], ...] = ()  # (allow?, "all" | cidr | "unix:")
    sendfile: bool = False
    limit_rate: Template | None = None
    limit_rate_after: Template | None = None

    # filters of responses
    expires: Expires | None = None
    charset: Template | None = None
    charset_types: tuple[str, ...] = (
        "text/html",
        "text/xml",
        "text/plain",
        "text/vnd.wap.wml",
        "application/javascript",
        "application/rss+xml",
    )  # in lower case; "*" is any
    gzip: bool = False
    gzip_types: tuple[str, ...] = ("text/html",)
    gzip_comp_level: int = 1
    gzip_min_length: int = 20
    gzip_proxied: tuple[str, ...] = ("off",)
    gzip_http_version: str = "1.1"  # 1.0 | 1.1
    gzip_disable: tuple[str, ...] = ()  # regular expressions for User-Agent
    gzip_vary: bool = False
    gunzip: bool = False
    valid_referers: tuple[str, ...] = ()  # as written

    # request bodies and connections
    client_max_body_size: int = 1 << 20  # 0: no limit
    client_body_buffer_size: int = 16384
    client_body_temp_path: str = "client_body_temp"
    client_body_in_file_only: str = "off"  # off | on | clean
    client_body_in_single_buffer: bool = False
    client_body_timeout: float = 60.0
    keepalive_timeout: float = 75.0
    keepalive_header: int | None = None
    keepalive_time: float = 3600.0
    keepalive_requests: int = 1000
    keepalive_disable: tuple[str, ...] = ("msie6",)
    lingering_close: str = "on"  # off | on | always
    lingering_time: float = 30.0
    lingering_timeout: float = 5.0
    reset_timedout_connection: bool = False
    send_timeout: float = 60.0
    tcp_nodelay: bool = True
    tcp_nopush: bool = False

    # logs and names
    access_logs: tuple[AccessLog, ...] = ()
    error_log: ErrorLog | None = None  # None: the main one
    resolver: tuple[str, ...] = ()
    resolver_timeout: float = 30.0

    #: Settings of directive modules, by the name that the module gave each.
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class MatchKind(Enum):
    """How a location is chosen (nginx: ``location [=|^~|~|~*] uri``)."""

    EXACT = "="
    PREFIX = ""
    PREFIX_FINAL = "^~"
    REGEX = "~"
    REGEX_NOCASE = "~*"
    NAMED = "@"
    IF = "if"
    LIMIT_EXCEPT = "limit_except"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class TryFiles:
    """``try_files file ... uri | =code;``

    ``files`` are the entries to look for (a trailing "/" asks for a folder); the last resort is either
    ``code`` or ``uri`` (which may be a ``@named`` location).
    """

    files: tuple[Template, ...]
    uri: Template | None
    code: int | None


@dataclass(frozen=True, slots=True)
class LimitExcept:
    """``limit_except method ... { ... }``: requests with other methods take ``location``, which has files only."""

    methods: frozenset[str]
    location: Location


@dataclass(frozen=True, slots=True)
class Location:
    """One ``location`` (or the implicit one of an ``if``, or a server's outermost settings)."""

    kind: MatchKind
    path: str
    settings: Settings
    source: Source
    content: LuaCode | None = None  # content_by_lua*
    rewrite: tuple[Instruction, ...] = ()
    locations: tuple[Location, ...] = ()
    internal: bool = False
    alias: Template | None = None
    try_files: TryFiles | None = None
    limit_except: LimitExcept | None = None
    #: The content handler of a directive module, if it is one: its name and its value.
    handlers: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    #: Whether a path that lacks only the last "/" of this one comes here, too; the handler redirects it.
    auto_redirect: bool = False


@dataclass(frozen=True, slots=True)
class Listen:
    """``listen addr[:port] [parameters];`` — ``host`` "" is any address; unix sockets have ``path``."""

    host: str
    port: int
    path: str | None = None
    default_server: bool = False
    ssl: bool = False
    ipv6only: bool = True
    reuseport: bool = False
    backlog: int = 511
    deferred: bool = False
    source: Source = Source("", 0)
    fastopen: int | None = None
    rcvbuf: int | None = None
    sndbuf: int | None = None
    so_keepalive: str | None = (
        None  # "on", "off" or "idle:interval:count"; None: as the system has it
    )


@dataclass(frozen=True, slots=True)
class Server:
    """One ``server`` block.

    ``location`` (kind SERVER) holds the server's own settings and its server-level rewrite program;
    its ``locations`` are the top-level locations in file order.
    """

    listens: tuple[Listen, ...]
    names: tuple[str, ...]  # as written: exact, *.wild, wild.*, .both, ~regex
    location: Location
    source: Source
    client_header_timeout: float = 60.0
    client_header_buffer_size: int = 1024
    large_client_header_buffers: tuple[int, int] = (4, 8192)
    underscores_in_headers: bool = False
    ignore_invalid_headers: bool = True
    merge_slashes: bool = True
    tls: TlsOptions | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """A variable that a directive has declared and that a module computes when it is read.

    ``kind`` names the module's function, ``value`` is what the directive's block said. ``cached``: a request
    computes it once. As in nginx, that is so only for variables that the configuration itself reads.
    """

    kind: str
    value: Any
    cached: bool = True


@dataclass(frozen=True, slots=True)
class Http:
    """The ``http`` block: the worker's VM settings and its servers."""

    servers: tuple[Server, ...] = ()
    settings: Settings = field(default_factory=Settings)
    init_by_lua: LuaCode | None = None
    init_worker_by_lua: LuaCode | None = None
    exit_worker_by_lua: LuaCode | None = None
    ssl_session_fetch_by_lua: LuaCode | None = None
    ssl_session_store_by_lua: LuaCode | None = None
    lua_package_path: str | None = None
    lua_package_cpath: str | None = None
    lua_shared_globals: bool = False
    #: Bytes for the VM of a worker; 0 for no limit.
    lua_memory_limit: int = 0
    lua_strict_phases: bool = True
    lua_sa_restart: bool = True
    lua_regex_cache_max_entries: int = 1024
    lua_regex_match_limit: int = 0
    lua_max_pending_timers: int = 1024
    lua_max_running_timers: int = 256
    lua_worker_thread_vm_pool_size: int = 10
    #: A worker whose event loop stands still for so many seconds is replaced; 0: never.
    lua_worker_stuck_timeout: float = 60.0
    rewrite_by_lua_no_postpone: bool = False
    access_by_lua_no_postpone: bool = False
    precontent_by_lua_no_postpone: bool = False
    lua_capture_error_log: int | None = None
    #: ``lua_shared_dict``: names and sizes in bytes.
    shared_dicts: tuple[tuple[str, int], ...] = ()
    log_formats: Mapping[str, LogFormat] = field(default_factory=lambda: MappingProxyType({}))
    #: Names declared by ``set``: assignable from Lua, and empty before.
    variables: frozenset[str] = frozenset()
    #: Names of groups in regular expressions: assignable, and without a value before.
    groups: frozenset[str] = frozenset()
    #: Variables that directive modules compute, such as those of ``map``, by name.
    computed: Mapping[str, Computed] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ThreadPool:
    """``thread_pool name threads=n [max_queue=n] [max_memory=size];``

    ``max_memory`` (bytes for each task's Lua VM; None: no limit) is not in nginx.
    """

    name: str
    threads: int
    max_queue: int = 65536
    max_memory: int | None = None


@dataclass(frozen=True, slots=True)
class PythonFunction:
    """A Python function that Lua code may call.

    Attributes:
        name: ``"db.fetch"`` is ``require("python.db").fetch``.
        function: It, an async function or one that answers at once.
        errors: Exceptions of these classes are ``nil, message`` for Lua; others are Lua errors.
        text: Whether it gets strings as str, decoded as UTF-8, and not as bytes.

    Raises:
        ValueError: The name has no module in it, or is no name.
    """

    name: str
    function: Callable[..., Any]
    errors: type[Exception] | tuple[type[Exception], ...] = ()
    text: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", self.name, re.ASCII):
            raise ValueError(f'"{self.name}" is not of the form "module.function"')


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration (nginx: the main context)."""

    http: Http = field(default_factory=Http)
    prefix: str = ""  # absolute, with a trailing slash; "" is the working directory
    file: str = ""  # the configuration file's path, "" when built in Python
    daemon: bool = True
    master_process: bool = True
    worker_processes: int = 1
    worker_connections: int = 512
    multi_accept: bool = False
    worker_rlimit_nofile: int | None = None
    worker_rlimit_core: int | None = None
    worker_priority: int = 0
    worker_cpu_affinity: tuple[str, ...] = ()  # as written: masks, or "auto" [mask]
    worker_shutdown_timeout: float | None = None
    pid: str = "logs/nginx.pid"
    error_logs: tuple[ErrorLog, ...] = ()
    user: str | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    working_directory: str | None = None
    thread_pools: tuple[ThreadPool, ...] = ()
    #: The directive modules (:class:`trio_lua.request.module.Module`) whose directives it may hold.
    modules: tuple[Any, ...] = ()
    #: Python functions for Lua, by name; they have precedence over those of modules.
    functions: Mapping[str, PythonFunction] = field(default_factory=lambda: MappingProxyType({}))
    #: What was noticed but stops nothing, each beginning with its level: ``[warn] ...``.
    warnings: tuple[str, ...] = ()

    def expose(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        errors: type[Exception] | tuple[type[Exception], ...] = (),
        text: bool = True,
    ) -> Config:
        """The same configuration with a Python function that Lua code may call.

        ``config.expose("db.fetch", fetch)`` makes it ``require("python.db").fetch``; one of that name that was
        there is replaced. Arguments are those of :class:`PythonFunction`.

        Raises:
            ValueError: The name is not of the form ``module.function``.
        """
        entry = PythonFunction(name, function, errors, text)
        return replace(self, functions=MappingProxyType({**self.functions, name: entry}))
