"""A server inside a test: the real worker, without sockets.

:func:`open_server` takes a configuration in any form and gives a :class:`LuaServer`, whose clients speak
to it over memory streams. At its end everything must be over: what a request left behind fails the test.
"""

from __future__ import annotations

import contextlib
import os
import re
import textwrap
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import trio
import trio.testing

from trio_lua.config.model import Config, Listen
from trio_lua.config.overrides import map_settings, without_implied_logs
from trio_lua.log.error_log import NOTICE, Log
from trio_lua.modules import Module
from trio_lua.net.network import Network
from trio_lua.process import configure
from trio_lua.process.embed import PRODUCT
from trio_lua.server.inside import Inside, encrypted, listen_of, named
from trio_lua.server.observe import Observer
from trio_lua.server.worker import Worker
from trio_lua.shm.shared_dict import SharedDict
from trio_lua.testing.certificates import with_stand_ins
from trio_lua.testing.client import Client, Response
from trio_lua.testing.clock import LuaClock
from trio_lua.testing.coverage import measured, watching
from trio_lua.testing.groups import ungrouped
from trio_lua.testing.log import LogRecords, MemoryLogFiles
from trio_lua.testing.network import LuaNetwork
from trio_lua.testing.report import Report
from trio_lua.testing.vm import Lua

__all__ = ["Leak", "LuaServer", "configuration", "idle", "open_server", "open_worker"]

#: Where servers listen whose configuration does not say: nobody connects there.
_NOWHERE = "127.0.0.1:80"

#: Where code of a test may be the handler of.
_PHASES = ("rewrite", "access", "precontent", "content", "header_filter", "body_filter", "log")


class Leak(AssertionError):
    """Something is left behind that the end of the requests should have ended."""


def configuration(
    source: Config | str | os.PathLike[str] | None = None,
    *,
    phase: str = "content",
    config: str = "",
    http_config: str = "",
    main_config: str = "",
    prefix: str | os.PathLike[str] = "",
    package_path: str = "",
    modules: Sequence[Module] = (),
) -> Config:
    """A configuration for a test.

    Args:
        source: A :class:`Config`; the path of an nginx.conf; the text of a whole one; or Lua code (a text
            without an ``http`` block), which becomes the content handler of every location. None for
            a configuration from the three parts below.
        phase: Whose handler Lua code becomes, such as ``access`` or ``header_filter``. Behind it there is a content handler
            that prints ``content``.
        config: The inside of a ``server`` block, as in Test::Nginx.
        http_config: Directives for the ``http`` block before it.
        main_config: Directives for the main context.
        prefix: Where relative paths start.
        package_path: Goes in front of ``lua_package_path``.
        modules: Directive modules besides the bundled ones.

    Raises:
        ConfigError: The configuration cannot be used.
        ValueError: There is no handler for requests in that phase; there is both a source and one of the parts.
    """
    if source is not None and (config or main_config):
        raise ValueError("either a source, or the parts of a configuration: config and main_config")
    folder = os.fspath(prefix)
    if folder and not folder.endswith("/"):
        folder += "/"
    if isinstance(source, Config):
        conf = source
    elif isinstance(source, os.PathLike):
        conf = configure.load(source, prefix=folder, modules=modules)
    elif source is not None and _is_whole(source):
        conf = configure.loads(source, prefix=folder, modules=modules)
    else:
        if source is not None:
            config = _in_phase(phase, textwrap.dedent(source))
        text = (
            f"{main_config}\nevents {{}}\nhttp {{ access_log off;\n{http_config}\n"
            f"server {{ listen {_NOWHERE};\n{config}\n}} }}\n"
        )
        conf = configure.loads(text, prefix=folder, modules=modules)
    if package_path:
        conf = _with_package_path(conf, package_path)
    return conf


def _in_phase(phase: str, code: str) -> str:
    """The inside of a ``server`` block with one handler."""
    if phase not in _PHASES:
        known = ", ".join(_PHASES)
        raise ValueError(f"no handler of the phase {phase!r}; there are {known}")
    content = "" if phase == "content" else 'content_by_lua_block { ngx.print("content") }'
    return f"location / {{ {phase}_by_lua_block {{\n{code}\n}} {content} }}"


def _with_package_path(config: Config, path: str) -> Config:
    own = config.http.lua_package_path
    whole = f"{path.rstrip(';')};{own}" if own else path
    return replace(config, http=replace(config.http, lua_package_path=whole))


def _is_whole(text: str) -> bool:
    """Whether a text is an nginx.conf, and not Lua code."""
    bare = re.sub(r"#.*", "", text)
    http = re.search(r"^\s*http\s*\{", bare, re.MULTILINE)
    return http is not None or bool(
        re.search(r"\bevents\s*\{[^{}]*\}.*\bhttp\s*\{", bare, re.DOTALL)
    )


class LuaServer:
    """A server that runs inside a test.

    Attributes:
        config: What it serves.
        log: Its error.log.
        client: A client of its first server.
        lua: Runs code by hand in the server's VM, and replaces functions there.
        shared: Its shared dictionaries by name.
        addresses: What :meth:`listen` has bound.
        access_logs: The lines of its access logs, by path.
        report: What a failing test shows.
    """

    def __init__(
        self, worker: Worker, log: LogRecords, files: MemoryLogFiles, nursery: trio.Nursery
    ) -> None:
        self.config = worker.config
        self.log = log
        self.access_logs: Mapping[str, list[str]] = files.lines
        self.client = Client(self._open, reach=partial(self._reach, "127.0.0.1"))
        self.lua = Lua(worker.runtime)
        self.shared: Mapping[str, SharedDict] = worker.runtime.shared
        self.addresses: list[Any] = []
        self._inside = Inside()
        self.report = Report(worker.runtime, self.lua, log, self.client)
        self._worker = worker
        self._nursery = nursery

    async def connect(
        self, address: str = "127.0.0.1", *, listen: Listen | None = None
    ) -> trio.abc.Stream:
        """A stream to the server, in memory; the caller closes it.

        Args:
            address: Who connects, as ``ngx.var.remote_addr`` tells it.
            listen: The ``listen`` that is connected to; the configuration's first by default.
        """
        if listen is None:
            listen = self.config.http.servers[0].listens[0]
        ours, theirs = self._inside.connect(address, listen)
        self._nursery.start_soon(self._worker.serve_stream, theirs, listen)
        return ours

    async def _open(
        self, address: str = "127.0.0.1", listen: Listen | None = None, host: str = "localhost"
    ) -> trio.abc.Stream:
        """What a client speaks HTTP over."""
        if listen is None:
            listen = self.config.http.servers[0].listens[0]
        stream = await self.connect(address, listen=listen)
        return await encrypted(stream, host) if listen.ssl else stream

    async def _reach(self, address: str, scheme: str, host: str, port: int) -> trio.abc.Stream:
        return await self._open(address, listen_of(self.config, scheme, port), host)

    def client_from(self, address: str) -> Client:
        """A client with an address of its own.

        Args:
            address: What ``ngx.var.remote_addr`` tells.
        """
        client = Client(partial(self._open, address), reach=partial(self._reach, address))
        client.exchanges = self.client.exchanges
        return client

    async def request(self, method: str, target: str, **options: Any) -> Response:
        """Send a request by :attr:`client`; see :meth:`Client.request`."""
        __tracebackhide__ = True
        return await self.client.request(method, target, **options)

    async def get(self, target: str, **options: Any) -> Response:
        """``GET`` by :attr:`client`."""
        __tracebackhide__ = True
        return await self.client.get(target, **options)

    async def post(self, target: str, **options: Any) -> Response:
        """``POST`` by :attr:`client`."""
        __tracebackhide__ = True
        return await self.client.post(target, **options)

    async def listen(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Accept connections from outside, too; returns the URL.

        Args:
            port: 0 for a free one.
            host: The address.
        """
        [listener] = await trio.open_tcp_listeners(port, host=host)
        address = listener.socket.getsockname()
        self.addresses.append(address)
        self._nursery.start_soon(trio.serve_listeners, self._worker.serve_stream, [listener])
        return f"http://{address[0]}:{address[1]}"

    async def serve(self, stream: trio.abc.Stream, listen: Listen) -> None:
        """Serve a connection from inside, such as one of the server's own sockets.

        Args:
            stream: The connection.
            listen: The ``listen`` that it goes to.
        """
        peer = ("127.0.0.1", self._inside.port())
        wire = named(trio.StapledStream(stream, stream), peer, listen)
        await self._worker.serve_stream(wire, listen)

    def abort(self) -> None:
        """End all connections at once."""
        for scope in self._worker.streams.values():
            scope.cancel()

    def quit(self) -> None:
        """Stop gracefully."""
        self._worker.quit()

    async def settle(self) -> None:
        """Wait until nothing runs any more without something from outside.

        On virtual time that includes all that only waits for time to pass.
        """
        await trio.testing.wait_all_tasks_blocked()

    def check_leaks(self, *, allowed: Collection[str] = ()) -> None:
        """See that nothing is left of what requests have made.

        Args:
            allowed: What may be left, see :func:`open_server`.

        Raises:
            Leak: Something is; the message says what, and names the Lua line that made it.
        """
        check_leaks(self.lua, self.report, allowed)


def check_leaks(lua: Lua, report: Report, allowed: Collection[str]) -> None:
    """See that nothing is left in a VM.

    Raises:
        Leak: Something is.
    """
    found = lua.leaks(allowed=allowed)
    if found:
        raise Leak(
            "left behind:\n" + "\n".join(f"  {line}" for line in map(report.explained, found))
        )


@contextlib.asynccontextmanager
async def open_server(
    source: Config | str | os.PathLike[str] | None = None,
    *,
    log: LogRecords | None = None,
    clock: LuaClock | None = None,
    network: LuaNetwork | None = None,
    product: str = PRODUCT,
    allow_leaks: Collection[str] = (),
    observers: Sequence[Observer] = (),
    real_certificates: bool = False,
    **options: Any,
) -> AsyncIterator[LuaServer]:
    """Run a server for the time of a ``with`` block.

    Args:
        source, options: What to serve, as :func:`configuration` takes it.
        log: Its error.log, whatever ``error_log`` says; a new one by default.
        clock: The run's clock: ``ngx.now()`` then begins at its epoch.
        network: What its sockets can reach; by default the real network.
        product: What it calls itself in ``Server`` and in error pages.
        allow_leaks: What requests may leave behind: any of ``threads``, ``timers``, ``sockets`` (those that are
            neither closed nor kept alive) and ``globals`` (which modules write after ``init_by_lua*``).
        observers: Are told what happens.
        real_certificates: Whether the certificates that it names have to exist; others are made in their place.

    Raises:
        ConfigError: The configuration cannot be used.
        LuaError: ``init_by_lua*`` failed.
        Leak: At the end: something was left.
        ValueError: There is nothing to serve, or too much.
    """
    if source is None and not options.get("config") and not options.get("http_config"):
        raise ValueError(
            "nothing to serve: say what by @pytest.mark.lua(...), by the fixture lua_conf, "
            "or by lua_conf in pytest's configuration"
        )
    # nothing goes to real files, and all that is wrong to where the test looks
    conf = map_settings(
        without_implied_logs(configuration(source, **options)),
        lambda settings: replace(settings, error_log=None),
    )
    files = MemoryLogFiles()
    log = LogRecords() if log is None else log
    if not real_certificates:
        conf = with_stand_ins(conf, lambda text: log.log(NOTICE, text.encode()))
    epoch = None if clock is None else clock.epoch
    settings: dict[str, Any] = {
        "product": product,
        "epoch": epoch,
        "observers": observers,
        "files": files,
    }
    with ungrouped():
        async with (
            open_worker(conf, log=log, network=network, **settings) as worker,
            trio.open_nursery() as clients,
        ):
            log.clock = worker.clock
            server = LuaServer(worker, log, files, clients)
            server.lua.watch()
            try:
                yield server
                await idle(worker)
                server.check_leaks(allowed=allow_leaks)
            finally:
                server.report.finish()
            clients.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def open_worker(
    conf: Config,
    *,
    log: Log,
    network: LuaNetwork | Network | None = None,
    parked: bool = False,
    **options: Any,
) -> AsyncIterator[Worker]:
    """Run a worker that does not listen for the time of a ``with`` block: what :func:`open_server` is made of.

    Args:
        conf: What it serves.
        log: Its error.log.
        network: What its sockets can reach; by default the real network.
        parked: Whether plain sockets are served without a task each, as in production.
        options: As for :class:`~trio_lua.server.worker.Worker`.

    Raises:
        ConfigError: The configuration cannot be used.
        LuaError: ``init_by_lua*`` failed.
    """
    async with trio.open_nursery() as nursery:
        bound = network.bound(nursery) if isinstance(network, LuaNetwork) else network
        if measured():
            # there is one hook for both
            options["guarded"] = False
        worker = Worker(conf, error_log=log, parked=parked, network=bound, **options)
        # from init_by_lua* on
        with watching(worker.runtime):
            await nursery.start(worker.run, [])
            yield worker
        nursery.cancel_scope.cancel()


async def idle(worker: Worker) -> None:
    """Let connections end that clients have closed; they may need a turn for it."""
    for _ in range(100):
        if not worker.connections:
            break
        await trio.testing.wait_all_tasks_blocked()
