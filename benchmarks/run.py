"""The command: starts the servers, measures, prints.

Servers share one core and take turns, since a machine changes from minute to minute: every round sends one burst to each
(each round begins with another one), and a server's figure is the median over the rounds of its ratio to the first
server in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from benchmarks import certificate, machine, peers
from benchmarks.cases import CASES, Burst, Case, Hold
from benchmarks.holding import holding
from benchmarks.processes import Running, running
from benchmarks.report import BurstResult, HoldResult, Report, has_marks
from benchmarks.servers import SERVERS, Server, client_missing
from benchmarks.wrk import Figures, Wrk

__all__ = ["main"]

CLIENT_CORE = 1

#: Files a process needs besides its connections.
_OTHER_FILES = 500
#: Limit of each step of a case that holds connections.
_HOLD_SECONDS = 40.0

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    missing = client_missing()
    if missing:
        print(f"{missing} is not installed", file=sys.stderr)
        return 1
    if options.update is not None and not has_marks(options.update):
        print(f"{options.update} has no marks for the results", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _terminate)
    limit = machine.file_limit()
    machine.pin(CLIENT_CORE)
    report = Report(options.rounds, options.seconds, options.connections)
    servers = []
    for server in options.servers:
        lacking = server.missing()
        if lacking:
            report.skipped[server.name] = f"not installed: {lacking}"
            _say(f"{server.name}: skipped, not installed: {lacking}")
        else:
            servers.append(server)
    try:
        bursts = [
            case
            for case in options.cases
            if isinstance(case, Burst) and not _lacks_something(case, report)
        ]
        if bursts:
            with contextlib.ExitStack() as stack:
                if any(case.tls or case.peer == "tls" for case in bursts):
                    stack.enter_context(certificate.made())
                stack.enter_context(peers.opened(case.peer for case in bursts if case.peer))
                for tls in (False, True):
                    cases = [case for case in bursts if case.tls == tls]
                    if cases:
                        _run_bursts(servers, cases, options, report, tls)
        for case in options.cases:
            if isinstance(case, Hold):
                count = min(case.connections, limit - _OTHER_FILES)
                for server in servers:
                    if server.takes_part(case):
                        _run_hold(server, case, count, report)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    finally:
        print(report.markdown())
        if options.update is not None:
            report.update(options.update)
        if options.json is not None:
            options.json.write_text(json.dumps(report.data(), indent=2) + "\n")
    return 1 if report.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="trio_lua side by side with other servers, on one core each in turn.",
    )
    parser.add_argument(
        "--cases",
        type=lambda text: _choose(text, CASES),
        default=list(CASES.values()),
        metavar="LIST",
        help=f"comma-separated, of: {', '.join(CASES)}",
    )
    parser.add_argument(
        "--servers",
        type=lambda text: _choose(text, SERVERS),
        default=list(SERVERS.values()),
        metavar="LIST",
        help=f"comma-separated, the first is compared with; of: {', '.join(SERVERS)}",
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="bursts for each (5)")
    parser.add_argument("--seconds", type=_positive, default=1, help="of a burst (1)")
    parser.add_argument("--connections", type=_positive, default=32, help="of a burst (32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    parser.add_argument(
        "--update", type=Path, metavar="FILE", help="put the tables into this page, too"
    )
    return parser


def _choose(text: str, table: dict[str, T]) -> list[T]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in table]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'}: not one of them")
    return [table[name] for name in names]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(143)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------- bursts


def _run_bursts(
    servers: list[Server],
    cases: list[Burst],
    options: argparse.Namespace,
    report: Report,
    tls: bool,
) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trio-lua-bench-")))
        started = []
        for server in servers:
            if not any(server.takes_part(case) for case in cases):
                continue
            try:
                started.append(stack.enter_context(running(server, tls=tls)))
            except RuntimeError as error:
                _fail(report, server, "start", error)
        for case in cases:
            ready = [
                process
                for process in started
                if process.server.takes_part(case) and _checked(process, case, report)
            ]
            _run_case(ready, case, Wrk(case, folder), options, report)


def _lacks_something(case: Case, report: Report) -> bool:
    lacking = certificate.missing() if case.tls else peers.missing(case.peer)
    if lacking:
        report.skipped[case.name] = f"not installed: {lacking}"
        _say(f"{case.name}: skipped, not installed: {lacking}")
    return bool(lacking)


def _checked(process: Running, case: Case, report: Report) -> bool:
    try:
        process.check(case)
    except RuntimeError as error:
        _fail(report, process.server, case.name, error)
        return False
    return True


def _run_case(
    processes: list[Running], case: Burst, wrk: Wrk, options: argparse.Namespace, report: Report
) -> None:
    connections = case.connections or options.connections
    seconds = max(case.seconds, options.seconds)
    rounds: list[dict[str, tuple[Figures, machine.Cpu]]] = []
    for number in range(options.rounds):
        rounds.append({})
        _say(f"{case.name}: round {number + 1} of {options.rounds}")
        turn = number % max(len(processes), 1)
        for process in [*processes[turn:], *processes[:turn]]:
            before = process.cpu()
            try:
                figures = wrk.burst(process.port, connections=connections, seconds=seconds)
            except RuntimeError as error:
                _fail(report, process.server, case.name, error)
                processes.remove(process)
                continue
            rounds[-1][process.server.name] = figures, process.cpu() - before
    for process in processes:
        name = process.server.name
        bursts = [found[name][0] for found in rounds]
        cpu = sum((found[name][1] for found in rounds), machine.Cpu(0.0, 0.0))
        requests = sum(figures.requests for figures in bursts)
        first = processes[0].server.name
        report.bursts.append(
            BurstResult(
                case=case.name,
                server=name,
                ratio=statistics.median(
                    found[name][0].rate / found[first][0].rate for found in rounds
                ),
                rate=statistics.median(figures.rate for figures in bursts),
                user=cpu.user / requests,
                system=cpu.system / requests,
                p50=statistics.median(figures.p50 for figures in bursts),
                p99=statistics.median(figures.p99 for figures in bursts),
                errors=sum(figures.errors for figures in bursts),
            )
        )


# ------------------------------------------------------------- connections


def _run_hold(server: Server, case: Hold, count: int, report: Report) -> None:
    """Read the memory of a server of its own: what others left in its heap would be reused."""
    _say(f"{case.name}: {server.name}")
    request = case.request("127.0.0.1")
    try:
        with running(server) as process:
            warm = CASES["hello"]
            process.check(warm)
            with holding(process.port, warm.request("127.0.0.1"), warm.expected) as warming:
                warming.fill(200, answered=True, seconds=_HOLD_SECONDS)
            before = process.memory()
            with holding(process.port, request, case.expected) as holder:
                holder.fill(count, answered=case.answered, seconds=_HOLD_SECONDS)
                holder.wait(_Quiet(process), seconds=5.0)
                memory = process.memory() - before
                early = 0 if case.answered else holder.answered
                holder.finish(seconds=_HOLD_SECONDS)
                lost = count - holder.answered
    except RuntimeError as error:
        _fail(report, server, case.name, error)
        return
    report.holds.append(
        HoldResult(
            case=case.name,
            server=server.name,
            connections=count,
            memory=memory / count,
            early=early,
            lost=lost,
        )
    )


class _Quiet:
    """Whether a server has used no processor time since it was asked last."""

    def __init__(self, process: Running) -> None:
        self._process = process
        self._last = -1.0

    def __call__(self) -> bool:
        now = self._process.cpu().total
        quiet = now == self._last
        self._last = now
        return quiet


def _fail(report: Report, server: Server, what: str, error: Exception) -> None:
    report.failed[f"{server.name}: {what}"] = str(error)
    _say(f"{server.name}: {what}: {error}")
