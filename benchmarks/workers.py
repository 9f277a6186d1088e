"""``python -m benchmarks.workers``: what a second worker process brings.

One server with one worker and one with several, on all cores, take turns. *hello* is as small as a request can be: on a machine
with two cores the load generator needs a good part of one, so *Rate* says less than *CPU us*, the processor time of a
request, which must not grow. *work* counts for a while in Lua, and the load generator is not the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.cases import BODY, Burst
from benchmarks.processes import Running, running
from benchmarks.servers import Server, client_missing
from benchmarks.wrk import Wrk

__all__ = ["main"]

_CONF = """
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    server {
        listen 127.0.0.1:PORT OPTIONS backlog=4096;
        location /hello { content_by_lua_block { ngx.say("hello world") } }
        location /work {
            content_by_lua_block {
                local n = 0
                for i = 1, 200000 do n = (n + i) % 7 end
                ngx.say(n < 7 and "hello world")
            }
        }
    }
}
"""

_CASES = (Burst("hello", "hello", "/hello", BODY), Burst("work", "work", "/work", BODY))


def _server(workers: int, options: str) -> Server:
    def command(port: int, folder: Path) -> Sequence[str]:
        conf = folder / "nginx.conf"
        conf.write_text(_CONF.replace("PORT", str(port)).replace("OPTIONS", options))
        return [sys.executable, "-m", "trio_lua", "serve", "-q", "-w", str(workers), str(conf)]

    return Server(str(workers), f"{workers} workers", command, lambda: "")


def _measure(
    servers: list[Running], case: Burst, options: argparse.Namespace, folder: Path
) -> None:
    wrk = Wrk(case, folder)
    rates: list[list[float]] = [[] for _ in servers]
    used = [0.0 for _ in servers]
    requests = [0 for _ in servers]
    for number in range(options.rounds):
        for index in sorted(range(len(servers)), reverse=number % 2 == 1):
            server = servers[index]
            server.check(case)
            before = server.cpu()
            figures = wrk.burst(
                server.port, connections=options.connections, seconds=options.seconds
            )
            used[index] += (server.cpu() - before).total
            requests[index] += figures.requests
            rates[index].append(figures.rate)
    for index, server in enumerate(servers):
        ratio = statistics.median(
            own / first for own, first in zip(rates[index], rates[0], strict=True)
        )
        rate, cpu = statistics.median(rates[index]), used[index] / requests[index] * 1e6
        print(
            f"| {case.name:5} | {server.server.name:>7} | {rate:9,.0f} | {ratio:4.2f} | {cpu:6.1f} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--listen", default="", help='parameters of listen, such as "reuseport"')
    options = parser.parse_args()
    missing = client_missing()
    if missing:
        print(f"{missing} is not installed", file=sys.stderr)
        return 1
    for name, value in machine.facts().items():
        print(f"{name}: {value}")
    print("\n| case  | workers |    rate/s | rate | CPU us |")
    print("| :---- | ------: | --------: | ---: | -----: |")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trio-lua-bench-")))
        servers = [
            stack.enter_context(running(_server(number, options.listen), core=None))
            for number in (1, options.workers)
        ]
        for case in _CASES:
            _measure(servers, case, options, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
