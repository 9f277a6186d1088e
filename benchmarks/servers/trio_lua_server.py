"""trio_lua in one of its three ways of serving.

``parked`` is the default of a server. ``task`` gives every connection a task, as TLS and foreign streams have it. ``h11``
is parked, but every head takes the long way past the recogniser.
"""

from __future__ import annotations

import argparse
import socket

import trio

from benchmarks.servers import lua_app
from trio_lua.config import nginx
from trio_lua.log.error_log import ErrorLog
from trio_lua.server.worker import Worker

__all__ = ["main"]


async def _serve(port: int, mode: str) -> None:
    config = nginx.loads(lua_app.conf(port))
    worker = Worker(
        config,
        error_log=ErrorLog("stderr", "warn"),
        recognise=mode != "h11",
        parked=mode != "task",
    )
    listen = config.http.servers[0].listens[0]
    sock = socket.create_server((listen.host, listen.port), backlog=listen.backlog)
    sock.setblocking(False)
    await worker.run([(listen, sock)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=("parked", "task", "h11"), default="parked")
    options = parser.parse_args()
    trio.run(_serve, options.port, options.mode)


if __name__ == "__main__":
    main()
