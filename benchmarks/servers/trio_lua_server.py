"""trio_lua in one of its ways of serving.

``parked`` is the default of a server. ``task`` gives every connection a task, as TLS and foreign streams have it. ``h11``
is parked, but every head takes the long way past the recogniser. ``unbounded`` is parked, and nobody watches for Lua code that
never ends.
"""

from __future__ import annotations

import argparse
import gc
import socket

import trio

from benchmarks.servers import lua_app
from trio_lua.config import nginx
from trio_lua.log.error_log import ErrorLog
from trio_lua.server.worker import Worker

__all__ = ["main"]


async def _serve(port: int, mode: str, tls: bool) -> None:
    text = lua_app.conf(port, tls=tls)
    if mode == "unbounded":
        text = text.replace("http {", "http { lua_cpu_budget 0; lua_cpu_warning 0;", 1)
    config = nginx.loads(text)
    worker = Worker(
        config,
        error_log=ErrorLog("stderr", "warn"),
        recognise=mode != "h11",
        parked=mode != "task",
    )
    listen = config.http.servers[0].listens[0]
    sock = socket.create_server((listen.host, listen.port), backlog=listen.backlog)
    sock.setblocking(False)
    # as the command does
    gc.collect()
    gc.freeze()
    await worker.run([(listen, sock)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=("parked", "task", "h11", "unbounded"), default="parked")
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    trio.run(_serve, options.port, options.mode, options.tls)


if __name__ == "__main__":
    main()
