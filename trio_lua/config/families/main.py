"""The outermost directives: the process, ``events``, ``include``."""

from __future__ import annotations

import grp
import importlib
import os
import pwd
import sys
from types import ModuleType

from trio_lua.config.blocks import Block, HttpBlock
from trio_lua.config.directives import Context, DirectiveTable, Use, interpret, takes
from trio_lua.config.families.logs import error_log
from trio_lua.config.families.slots import choices, slots, word, words
from trio_lua.config.model import ThreadPool
from trio_lua.config.units import parse_number, parse_size

__all__ = ["TABLE", "cpus"]

TABLE = DirectiveTable()

slots(TABLE, Use.switch, Context.MAIN, "daemon", "master_process", "pcre_jit")
slots(TABLE, word, Context.MAIN, "pid", "lock_file", "working_directory")
slots(TABLE, Use.number, Context.MAIN, "worker_rlimit_nofile")
slots(TABLE, Use.offset, Context.MAIN, "worker_rlimit_core")
slots(TABLE, Use.time, Context.MAIN, "timer_resolution", "worker_shutdown_timeout")
slots(TABLE, choices("stop", "abort"), Context.MAIN, "debug_points")

slots(TABLE, Use.switch, Context.EVENTS, "multi_accept", "accept_mutex")
slots(TABLE, Use.time, Context.EVENTS, "accept_mutex_delay")
slots(TABLE, Use.number, Context.EVENTS, "epoll_events", "worker_aio_requests")


@TABLE.directive("include", Context.ANY, takes(1))
def _include(use: Use) -> None:
    for statements in use.build.include(use.args[0], use.source):
        interpret(statements, use.block)


@TABLE.directive("events", Context.MAIN, takes(0), form="{")
def _events(use: Use) -> None:
    if use.build.has_events:
        raise use.fault("is duplicate")
    use.build.has_events = True
    events = Block(use.build, Context.EVENTS, use.source)
    use.read(events)
    for name in ("worker_connections", "multi_accept"):
        if name in events.values:
            use.block.values[name] = events.values[name]


@TABLE.directive("http", Context.MAIN, takes(0), form="{")
def _http(use: Use) -> None:
    if use.build.http is not None:
        raise use.fault("is duplicate")
    use.build.http = HttpBlock(use.build, use.source)
    use.read(use.build.http)


@TABLE.directive("worker_connections", Context.EVENTS, takes(1))
def _worker_connections(use: Use) -> None:
    try:
        number = parse_number(use.args[0])
    except ValueError:
        raise use.error(f'invalid number "{use.args[0]}"') from None
    use.put("worker_connections", number)


@TABLE.directive("use", Context.EVENTS, takes(1))
def _event_method(use: Use) -> None:
    if use.args[0] not in ("epoll", "poll", "select", "kqueue", "eventport", "/dev/poll"):
        raise use.error(f'invalid event type "{use.args[0]}"')
    use.put("use", use.args[0])


@TABLE.directive("debug_connection", Context.EVENTS, takes(1))
def _debug_connection(use: Use) -> None:
    """Only a filter of debug messages."""


@TABLE.directive("load_module", Context.MAIN, takes(1))
def _load_module(use: Use) -> None:
    """A directive module in Python, as ``package.module`` or ``package.module:NAME``.

    It is looked for beside the configuration, then where Python looks. nginx's own modules are machine code: what they bring is here or unknown as a directive.
    """
    name = use.args[0]
    if name.endswith(".so"):
        return
    path, _, attribute = name.partition(":")
    try:
        extension = getattr(_import(path, use.build.folder), attribute or "MODULE")
        use.build.extend(extension)
    except (ImportError, AttributeError, ValueError) as error:
        raise use.error(f'module "{name}" cannot be loaded: {error}') from None


def _import(path: str, folder: str) -> ModuleType:
    sys.path.insert(0, folder)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(path)
    finally:
        sys.path.remove(folder)


@TABLE.directive("worker_processes", Context.MAIN, takes(1))
def _worker_processes(use: Use) -> None:
    try:
        number = cpus() if use.args[0] == "auto" else parse_number(use.args[0])
        if not number:
            raise ValueError
    except ValueError:
        raise use.fault("invalid value") from None
    use.put("worker_processes", number)


def cpus() -> int:
    """How many processors this process may use: ``worker_processes auto``."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@TABLE.directive("worker_priority", Context.MAIN, takes(1))
def _worker_priority(use: Use) -> None:
    number = use.args[0]
    try:
        value = parse_number(number[1:] if number[:1] in ("+", "-") else number)
    except ValueError:
        raise use.fault("invalid number") from None
    use.put("worker_priority", -value if number.startswith("-") else value)


@TABLE.directive("worker_cpu_affinity", Context.MAIN, takes(1, None))
def _worker_cpu_affinity(use: Use) -> None:
    for mask in use.args[use.args[0] == "auto" :]:
        for char in mask.replace(" ", ""):
            if char not in "01":
                raise use.error(f'invalid character "{char}" in "worker_cpu_affinity"')
    use.put("worker_cpu_affinity", words(use))


@TABLE.directive("user", Context.MAIN, takes(1, 2))
def _user(use: Use) -> None:
    if use.build.embedded:
        return
    if os.geteuid() != 0:
        use.warn(
            'the "user" directive makes sense only if the master process runs '
            "with super-user privileges, ignored"
        )
        return
    name = use.args[0]
    group = use.args[-1]
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise use.error(f'getpwnam("{name}") failed') from None
    try:
        grp.getgrnam(group)
    except KeyError:
        raise use.error(f'getgrnam("{group}") failed') from None
    use.put("user", " ".join(use.args))


@TABLE.directive("env", Context.MAIN, takes(1))
def _env(use: Use) -> None:
    name, equals, value = use.args[0].partition("=")
    use.append("env", (name, value if equals else None))


@TABLE.directive("error_log", Context.MAIN, takes(1, None))
def _error_log(use: Use) -> None:
    use.append("error_logs", error_log(use))


@TABLE.directive("thread_pool", Context.MAIN, takes(2, 4))
def _thread_pool(use: Use) -> None:
    """Parameters that nobody knows are passed over, as nginx does."""
    name, *parameters = use.args
    if any(pool.name == name for pool in use.block.values.get("thread_pools", ())):
        raise use.error(f'duplicate thread pool "{name}"')
    threads, max_queue, max_memory = 0, 65536, None
    for parameter in parameters:
        key, _, text = parameter.partition("=")
        try:
            if key == "threads":
                threads = parse_number(text)
                if not threads:
                    raise ValueError
            elif key == "max_queue":
                max_queue = parse_number(text)
            elif key == "max_memory":
                max_memory = parse_size(text)
        except ValueError:
            raise use.error(f'invalid {key} value "{parameter}"') from None
    if not threads:
        raise use.error(f'"{use.name}" must have "threads" parameter')
    use.append("thread_pools", ThreadPool(name, threads, max_queue, max_memory))
