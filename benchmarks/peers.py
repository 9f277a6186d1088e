"""What the handlers of some cases talk to: a redis, and a peer that sends much, takes its time or speaks TLS.

They run on the core of the client, one of each for all servers, which learn their ports from the environment.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial

import trio

from benchmarks import certificate

__all__ = ["BULK", "PAUSE", "PEERS", "missing", "opened", "port"]

#: Bytes of a bulk transfer.
BULK = 64 * 1024 * 1024
#: How long the peer waits before it answers, in seconds.
PAUSE = 0.05

#: The key that handlers ask redis for, and its value.
KEY, VALUE = "greeting", "hello world"

PEERS = ("redis", "peer", "tls")

_START_TIMEOUT = 10.0


def missing(name: str) -> str:
    """What has to be installed for a peer; empty when nothing."""
    if name == "tls":
        return certificate.missing()
    return "redis-server" if name == "redis" and shutil.which("redis-server") is None else ""


def _variable(name: str) -> str:
    return f"TRIO_LUA_BENCHMARK_{name.upper()}"


def port(name: str) -> int:
    """Where a peer listens on 127.0.0.1; 0 when it does not run."""
    return int(os.environ.get(_variable(name), "0"))


@contextlib.contextmanager
def opened(names: Iterable[str]) -> Iterator[None]:
    """Peers that run; servers started meanwhile know where.

    Raises:
        RuntimeError: One does not start.
    """
    with contextlib.ExitStack() as stack:
        for name in sorted(set(names)):
            number = stack.enter_context(_running(name))
            os.environ[_variable(name)] = str(number)
            stack.callback(os.environ.pop, _variable(name))
        yield


@contextlib.contextmanager
def _running(name: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    if name == "redis":
        command = ["redis-server", "--port", str(number), "--bind", "127.0.0.1", "--save", ""]
    else:
        command = [sys.executable, "-m", "benchmarks.peers", "--port", str(number)]
        command += ["--tls"] if name == "tls" else []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait(name, number, process)
            if name == "redis":
                with socket.create_connection(("127.0.0.1", number)) as sock:
                    sock.sendall(f'SET {KEY} "{VALUE}"\r\n'.encode())
                    sock.recv(100)
            yield number
        finally:
            process.terminate()


def _wait(name: str, number: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", number), 1.0).close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"{name} does not start")


# ---------------------------------------------------------------------- the peer


async def _serve(piece: memoryview, stream: trio.SocketStream) -> None:
    """A line asks: for ``bulk``, or for an answer after a while."""
    with contextlib.suppress(trio.BrokenResourceError):
        async for data in stream:
            if bytes(data) == b"bulk\n":
                for _ in range(BULK // len(piece)):
                    await stream.send_all(piece)
            else:
                await trio.sleep(PAUSE)
                await stream.send_all(b"done\n")


async def _serve_tls(number: int) -> None:
    """Answers each line at once."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate.certificate())

    async def serve(stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for _ in stream:
                await stream.send_all(b"done\n")

    await trio.serve_ssl_over_tcp(
        serve, number, context, host="127.0.0.1", https_compatible=True, backlog=4096
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    if options.tls:
        trio.run(_serve_tls, options.port)
    else:
        serve = partial(_serve, memoryview(bytes(1024 * 1024)))
        trio.run(partial(trio.serve_tcp, serve, options.port, host="127.0.0.1", backlog=4096))


if __name__ == "__main__":
    main()
