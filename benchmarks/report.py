"""The results as tables and as JSON."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.cases import CASES, Hold
from benchmarks.servers import SERVERS

__all__ = ["BurstResult", "HoldResult", "Report", "has_marks"]

_BEGIN, _END = "<!-- results -->", "<!-- end of results -->"
_PACKAGES = ("trio", "lupa", "h11", "granian", "uvicorn", "uvloop", "httptools", "hypercorn")


@dataclass(frozen=True)
class BurstResult:
    """A server under one kind of requests; times in seconds.

    Attributes:
        ratio: Of its rate to that of the first server, median over the rounds.
        user: Processor time of one request in user mode.
        system: The same in the kernel.
        errors: Requests and connections that failed.
    """

    case: str
    server: str
    ratio: float
    rate: float
    user: float
    system: float
    p50: float
    p99: float
    errors: int

    @property
    def cpu(self) -> float:
        return self.user + self.system


@dataclass(frozen=True)
class HoldResult:
    """A server that holds connections.

    Attributes:
        memory: Bytes of one connection.
        early: Responses that came before the memory was read.
        lost: Connections without a proper response.
    """

    case: str
    server: str
    connections: int
    memory: float
    early: int
    lost: int


@dataclass
class Report:
    """What a run has found out."""

    rounds: int
    seconds: int
    connections: int
    bursts: list[BurstResult] = field(default_factory=list)
    holds: list[HoldResult] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def data(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**asdict(self), "machine": machine.facts(), "packages": _versions()}

    def markdown(self) -> str:
        """Everything, for people."""
        facts = ", ".join(machine.facts().values())
        packages = ", ".join(f"{name} {version}" for name, version in _versions().items())
        lines = [
            f"{facts}; load {self.load:.1f} at the start;",
            f"{packages};",
            f"rounds: {self.rounds}, of {self.seconds} s each; {self.connections} connections.",
        ]
        for case in CASES.values():
            if isinstance(case, Hold):
                lines += self._hold_table(case.name)
            else:
                lines += self._burst_table(case.name)
        lines += [f"- {name}: skipped, {why}." for name, why in self.skipped.items()]
        lines += [f"- {name}: failed: {why}" for name, why in self.failed.items()]
        return "\n".join(lines)

    def update(self, page: Path) -> None:
        """Put the tables between the two marks of a Markdown page (:func:`has_marks`)."""
        before, begin, rest = page.read_text().partition(_BEGIN)
        _old, end, after = rest.partition(_END)
        page.write_text(f"{before}{begin}\n{self.markdown()}\n{end}{after}")

    def _burst_table(self, case: str) -> list[str]:
        results = [result for result in self.bursts if result.case == case]
        if not results:
            return []
        first = results[0].cpu
        rows = [
            (
                SERVERS[result.server].title,
                f"{result.ratio:.2f}",
                f"{first / result.cpu:.2f}" if result.cpu else "",
                f"{result.cpu * 1e6:.1f}",
                f"{result.user * 1e6:.1f} + {result.system * 1e6:.1f}",
                f"{result.rate:,.0f}",
                f"{result.p50 * 1e3:.2f}",
                f"{result.p99 * 1e3:.2f}",
                str(result.errors or ""),
            )
            for result in results
        ]
        head = ("rate", "rate by CPU", "CPU us", "user + system", "req/s", "p50 ms", "p99 ms")
        return _table(case, (*head, "errors"), rows)

    def _hold_table(self, case: str) -> list[str]:
        results = [result for result in self.holds if result.case == case]
        rows = [
            (
                SERVERS[result.server].title,
                f"{result.connections:,}",
                f"{result.memory / 1000:.2f}",
                str(result.early or ""),
                str(result.lost or ""),
            )
            for result in results
        ]
        return _table(case, ("connections", "kB each", "too early", "lost"), rows) if rows else []


def has_marks(page: Path) -> bool:
    """Whether a page exists and says where its tables are."""
    try:
        return _END in page.read_text().partition(_BEGIN)[2]
    except OSError:
        return False


def _table(case: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    table = [[CASES[case].title, *head], *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]

    def line(cells: list[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return f"| {' | '.join([first, *rest])} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return ["", line(table[0]), line(rule), *map(line, table[1:])]


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
