"""Starting a server, finding out that it answers rightly, and ending it whatever happens."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import machine
from benchmarks.cases import Case
from benchmarks.servers import Server

__all__ = ["SERVER_CORE", "Running", "running"]

SERVER_CORE = 0

_ROOT = Path(__file__).resolve().parent.parent
_START_TIMEOUT = 20.0
_STOP_TIMEOUT = 3.0


class Running:
    """A server that runs.

    Args:
        server: What to start.
        folder: Its own.
        core: Where it runs; None for all of them.
        tls: Whether it speaks TLS.

    Attributes:
        port: Where it listens on 127.0.0.1.
    """

    def __init__(
        self, server: Server, folder: Path, core: int | None = SERVER_CORE, *, tls: bool = False
    ) -> None:
        self.server = server
        command = server.secure if tls else server.command
        assert command is not None
        self.port = _free_port()
        self._log = folder / "output.log"
        environment = dict(os.environ)
        paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command(self.port, folder),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=None if core is None else lambda: machine.pin(core),
            )

    def wait_until_open(self) -> None:
        """Wait until it accepts connections.

        Raises:
            RuntimeError: It ended, or took too long.
        """
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ended with status {self._process.returncode}: {self._said()}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            time.sleep(0.02)
        raise RuntimeError(f"does not listen after {_START_TIMEOUT:.0f} s: {self._said()}")

    def check(self, case: Case) -> None:
        """Send the request of a case once.

        Raises:
            RuntimeError: The answer is not the expected one.
        """
        client = _client(self.port, case.tls)
        try:
            method = "GET" if case.body is None else "POST"
            client.request(method, case.path, body=case.body, headers=dict(case.headers))
            response = client.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise RuntimeError(f"{case.path}: {error!r}: {self._said()}") from None
        finally:
            client.close()
        if response.status != 200 or body != case.expected:
            raise RuntimeError(f"{case.path}: answers {response.status} {body[:60]!r}")

    def cpu(self) -> machine.Cpu:
        """Processor time of all its processes so far."""
        return machine.cpu(self._process.pid)

    def memory(self) -> int:
        """Resident memory of all its processes."""
        return machine.memory(self._process.pid)

    def stop(self) -> None:
        """End all its processes."""
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in list(machine.processes(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _said(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "it said nothing"


def _client(port: int, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    # what wrk does, too: it is nobody's certificate
    context = ssl._create_unverified_context()
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def running(
    server: Server, core: int | None = SERVER_CORE, *, tls: bool = False
) -> Iterator[Running]:
    """A started server on a core (None: on all), with TLS or without; its processes have ended at the end.

    Raises:
        RuntimeError: It does not start.
    """
    with tempfile.TemporaryDirectory(prefix="trio-lua-bench-") as folder:
        process = Running(server, Path(folder), core, tls=tls)
        try:
            process.wait_until_open()
            yield process
        finally:
            process.stop()
