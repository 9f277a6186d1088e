"""A server inside somebody else's ``trio.run``.

The embedding program owns the event loop, the signals and the process's environment; the server
is one call in one of its nurseries. Cancelling that call is how it stops at once, and
:meth:`Server.quit` is how it stops when the running requests have ended.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union, overload

import trio

from trio_lua import __version__
from trio_lua.api.ipc import Ipc
from trio_lua.api.threadpool import PoolHandle
from trio_lua.config.model import Config, Listen
from trio_lua.config.overrides import without_implied_logs
from trio_lua.log.error_log import ErrorLog, Log
from trio_lua.log.files import STDERR
from trio_lua.process.sockets import Listeners, listens_of
from trio_lua.server.client import Client, HeadersLike, Response
from trio_lua.server.inside import Inside, encrypted, listen_of
from trio_lua.server.observe import Observer
from trio_lua.server.worker import Worker, run_worker
from trio_lua.shm.shared_dict import SharedDict

__all__ = ["PRODUCT", "Listener", "Server", "serve"]

#: What ``Server`` names, where it is not nginx's own command line.
PRODUCT = f"trio-lua/{__version__}"

#: A listening socket (non-blocking or not), or any Trio listener. Where the ``listen`` they stand for has ``ssl``,
#: connections get TLS, unless the listener gives :class:`trio.SSLStream` objects.
Listener = Union[socket.socket, "trio.abc.Listener[Any]"]


class Server:
    """A server that is running, as :func:`serve` reports it.

    Attributes:
        addresses: What it is bound to: ``(host, port)`` pairs (four values for IPv6), or the path of
            a Unix socket, in the order of the ``listen`` directives.
        shared: The shared dictionaries (``lua_shared_dict``) by name.
        ipc: Alerts between Lua code and the program (``ngx.ipc``).
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.addresses: tuple[Any, ...] = tuple(worker.addresses)
        self.shared: Mapping[str, SharedDict] = worker.runtime.shared
        self.ipc = Ipc(worker.runtime.alerts)
        self._inside = Inside()

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses as a user would type them, such as ``http://127.0.0.1:8000``."""
        return tuple(map(_url, self.addresses, self._worker.schemes))

    async def serve_stream(self, stream: trio.abc.Stream, listen: Listen | None = None) -> None:
        """Serve one connection over a stream, and close it.

        Args:
            stream: Any Trio stream: a memory stream of a test, a TLS stream, a pipe.
            listen: The ``listen`` whose servers answer; the configuration's first by default.
        """
        await self._worker.serve_stream(stream, listen)

    async def request(
        self,
        method: str,
        target: str,
        *,
        params: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        headers: HeadersLike = (),
        body: bytes | str | None = None,
        json: Any = None,
        client: str = "127.0.0.1",
    ) -> Response:
        """Ask the server something from inside the process, without a socket::

            response = await server.request("POST", "/orders", json={"item": "tea"})
            print(response.status, response.json())

        The request takes the same way as one from outside. Cancelling it is a client that goes away.

        Args:
            method: Such as ``GET``.
            target: The path, with or without a query string, for the configuration's first ``listen``; or a whole URL,
                such as ``https://shop.test/``, which says to which ``listen`` and to which host it goes. What is not
                ASCII goes as percent-encoded UTF-8.
            params: Arguments to add to the query string.
            headers: Headers; ``Host`` is ``localhost`` unless it is among them.
            body: The body.
            json: A value to send as a JSON body instead.
            client: The address of the client, as ``ngx.var.remote_addr`` tells it.

        Raises:
            ValueError: A line break in the target or in a header; a URL that leads nowhere.
            trio.ClosedResourceError: The server stops, or has stopped.
            IncompleteResponse: The server has closed the connection too early, such as for a handler that failed behind
                the head (an ``h11.RemoteProtocolError``).
        """
        config = self._worker.config

        async def open_to(listen: Listen, host: str) -> trio.abc.Stream:
            ours, theirs = self._inside.connect(client, listen)
            self._worker.adopt_stream(theirs, listen)
            return await encrypted(ours, host) if listen.ssl else ours

        async def first() -> trio.abc.Stream:
            return await open_to(config.http.servers[0].listens[0], "localhost")

        async def reach(scheme: str, host: str, port: int) -> trio.abc.Stream:
            return await open_to(listen_of(config, scheme, port), host)

        return await Client(first, reach=reach).request(
            method, target, params=params, headers=headers, body=body, json=json
        )

    def thread_pool(self, name: str = "default") -> PoolHandle:
        """A thread pool of the configuration, to run Lua code in::

            digest = await server.thread_pool().run("return ngx.md5(...)", data)

        Raises:
            KeyError: There is none of that name.
        """
        return self._worker.runtime.thread_pools[name]

    def quit(self) -> None:
        """Stop gracefully: accept nothing more, let running requests end; :func:`serve` then returns."""
        self._worker.quit()

    def reopen_logs(self) -> None:
        """Open the access logs again by name, after they were rotated."""
        self._worker.reopen_logs()


class _Reporter(trio.TaskStatus[Worker]):
    """Turns the worker that reports itself into the :class:`Server` that the program gets."""

    def __init__(self, task_status: trio.TaskStatus[Server]) -> None:
        self._task_status = task_status

    @overload
    def started(self: trio.TaskStatus[None]) -> None: ...

    @overload
    def started(self, value: Worker) -> None: ...

    def started(self, value: Worker | None = None) -> None:
        assert value is not None
        self._task_status.started(Server(value))


def _url(address: Any, scheme: str) -> str:
    if not isinstance(address, tuple):
        return f"{scheme}+unix://{str(address).replace('/', '%2F')}"
    host, port = address[0], address[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(
    config: Config,
    *,
    listeners: Iterable[Listener] | None = None,
    error_log: Log | None = None,
    observers: Sequence[Observer] = (),
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a configuration until cancelled, or until :meth:`Server.quit`.

    ::

        async with trio.open_nursery() as nursery:
            server = await nursery.start(trio_lua.serve, config)
            print(server.urls)

    nginx's default access log, ``logs/access.log``, is written only if the configuration names one.

    Args:
        config: What to serve: from :func:`trio_lua.load`, :func:`trio_lua.loads`,
            :class:`trio_lua.ConfigBuilder` or :func:`trio_lua.from_lua`.
        listeners: Where to accept connections instead of the configuration's ``listen`` addresses;
            an empty list for none at all (see :meth:`Server.serve_stream`). They are closed at the end.
        error_log: Where error.log lines go; by default the configuration's ``error_log``, or
            standard error without one.
        observers: Are told what happens, for tracing and metrics.
        task_status: Receives the :class:`Server` when it listens.

    Raises:
        ConfigError: The configuration cannot be used.
        ListenError: An address cannot be listened on; the error log says why.
        LuaError: ``init_by_lua*`` failed.
    """
    log = error_log
    if log is None:
        log = ErrorLog.open(
            [(own.file, own.level) for own in config.error_logs],
            default=STDERR,
            prefix=config.prefix,
        )
    bound = Listeners()
    config = without_implied_logs(config)
    try:
        pairs: list[tuple[Listen | None, Any]]
        if listeners is None:
            bound = Listeners.bind(listens_of(config), error_log=log, tries=1)
            pairs = list(bound.duplicates())
        else:
            pairs = [(None, listener) for listener in listeners]
        await run_worker(
            config,
            listeners=pairs,
            error_log=log,
            product=PRODUCT,
            observers=observers,
            task_status=_Reporter(task_status),
        )
    finally:
        bound.close(error_log=log)
        if error_log is None:
            log.close()
