"""``python -m benchmarks.alerts``: how many alerts worker processes send each other (``ngx.ipc``)."""

from __future__ import annotations

import argparse
import http.client
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.processes import Running, running
from benchmarks.servers import Server

__all__ = ["main"]

_CONF = """
worker_processes WORKERS;
events {}
http {
    access_log off;
    init_worker_by_lua_block {
        local ipc = require "ngx.ipc"
        local semaphore = require "ngx.semaphore"
        local received, expected, asker = 0, 0, nil

        local function check()
            if expected > 0 and received == expected then
                ipc.send(asker, "finished")
                received, expected = 0, 0
            end
        end

        ipc.receive("alert", function()
            received = received + 1
            check()
        end)

        ipc.receive("begin", function(data)
            local count, size = data:match("(%d+) (%d+)")
            asker, expected = ipc.sender, tonumber(count)
            local others, n = {}, 0
            for _, worker in ipairs(ipc.workers()) do
                if not worker.own then
                    n = n + 1
                    others[n] = worker.pid
                end
            end
            local text = ("x"):rep(tonumber(size))
            for i = 1, expected do
                assert(ipc.send(others[i % n + 1], "alert", text))
            end
            check()
        end)

        local finished = semaphore.new()
        ipc.receive("finished", function()
            finished:post()
        end)

        ipc.receive("echo", function(data)
            ipc.reply("echo", data)
        end)

        function run(count, size)
            ngx.update_time()
            local began = ngx.now()
            ipc.broadcast("begin", count .. " " .. size)
            for _ = 1, ngx.worker.count() do
                assert(finished:wait(120))
            end
            ngx.update_time()
            return ngx.now() - began
        end

        function ask(count)
            local other = (ngx.worker.id() + 1) % ngx.worker.count()
            ngx.update_time()
            local began = ngx.now()
            for _ = 1, count do
                assert(ipc.request({ id = other }, "echo", "0123456789"))
            end
            ngx.update_time()
            return ngx.now() - began
        end
    }
    server {
        listen 127.0.0.1:PORT;
        location / { return 200; }
        location = /run {
            content_by_lua_block { ngx.print(run(ngx.var.arg_count, ngx.var.arg_size)) }
        }
        location = /ask {
            content_by_lua_block { ngx.print(ask(ngx.var.arg_count)) }
        }
    }
}
"""


def _server(workers: int) -> Server:
    def command(port: int, folder: Path) -> Sequence[str]:
        conf = folder / "nginx.conf"
        conf.write_text(_CONF.replace("WORKERS", str(workers)).replace("PORT", str(port)))
        return [sys.executable, "-m", "trio_lua", "serve", "-q", str(conf)]

    return Server("alerts", "alerts", command, lambda: "")


def _seconds(server: Running, path: str) -> float:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=150)
    try:
        client.request("GET", path)
        response = client.getresponse()
        body = response.read()
    finally:
        client.close()
    if response.status != 200:
        raise RuntimeError(f"{path}: answers {response.status} {body[:60]!r}")
    return float(body)


def _measure(server: Running, path: str, count: int, rounds: int) -> tuple[float, float]:
    """Alerts per second, the median, and the processor time of one in microseconds."""
    _seconds(server, path)
    rates = []
    before = server.cpu()
    for _ in range(rounds):
        rates.append(count / _seconds(server, path))
    used = (server.cpu() - before).total
    return statistics.median(rates), used / (count * rounds) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alerts", description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--alerts", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    workers = options.workers
    if workers < 2:
        parser.error("it takes two")
    for name, value in machine.facts().items():
        print(f"{name}: {value}")
    print(f"{workers} workers\n")
    print("| alerts            |     total | CPU us |\n| :---------------- | --------: | -----: |")
    with running(_server(workers), core=None) as server:
        for title, size, share in (("10 bytes", 10, 1), ("10 KB", 10240, 5)):
            # the same number for each of the others
            each = options.alerts // share // (workers - 1) * (workers - 1)
            path = f"/run?count={each}&size={size}"
            rate, cpu = _measure(server, path, each * workers, options.rounds)
            print(f"| {title:17} | {rate:7,.0f}/s | {cpu:6.1f} |")
        rate, cpu = _measure(server, "/ask?count=2000", 2000, options.rounds)
        print(f"| one after another | {rate:6,.0f}/s | {cpu:6.1f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
