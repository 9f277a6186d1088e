"""Bursts of requests by wrk."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import Case

__all__ = ["Figures", "Wrk"]

_SUMMARY = re.compile(r"(\d+) requests in ([\d.]+)(us|ms|s|m)")
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\b", re.MULTILINE)
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_STATUS_ERRORS = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Figures:
    """What one burst has shown; times in seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class Wrk:
    """Runs bursts of one case.

    Args:
        case: What is requested.
        folder: Where its script may be written.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        self._script = folder / f"{case.name}.lua"
        self._script.write_bytes(_script(case))

    def burst(self, port: int, *, connections: int, seconds: int) -> Figures:
        """Send requests for some seconds.

        Raises:
            RuntimeError: wrk failed, or got no answer at all.
        """
        scheme = "https" if self._case.tls else "http"
        command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", "-s"]
        done = subprocess.run(
            [*command, str(self._script), f"{scheme}://127.0.0.1:{port}{self._case.path}"],
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            check=False,
        )
        summary = _SUMMARY.search(done.stdout)
        if done.returncode or summary is None or summary[1] == "0":
            raise RuntimeError(f"wrk: {done.stderr.strip() or done.stdout.strip()}")
        times = {m[1]: float(m[2]) * _UNITS[m[3]] for m in _PERCENTILE.finditer(done.stdout)}
        errors = 0
        for found in (_SOCKET_ERRORS.search(done.stdout), _STATUS_ERRORS.search(done.stdout)):
            if found is not None:
                errors += sum(map(int, found.groups()))
        return Figures(
            requests=int(summary[1]),
            seconds=float(summary[2]) * _UNITS[summary[3]],
            p50=times.get("50", 0.0),
            p99=times.get("99", 0.0),
            errors=errors,
        )


def _script(case: Case) -> bytes:
    """The case as wrk's Lua: only constants, so that wrk formats the request once."""
    lines = [b'wrk.method = "%s"' % (b"GET" if case.body is None else b"POST")]
    for name, value in case.headers:
        lines.append(b"wrk.headers[%s] = %s" % (_quote(name.encode()), _quote(value.encode())))
    if case.body is not None:
        lines.append(b"wrk.body = %s" % _quote(case.body))
    return b"\n".join(lines) + b"\n"


def _quote(data: bytes) -> bytes:
    return b'"' + b"".join(b"\\%03d" % byte for byte in data) + b'"'
