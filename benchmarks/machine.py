"""The machine: its facts, its cores, and what /proc knows about a server's processes.

Processor time is what the kernel charged to the processes of a server. Unlike requests per second, it hardly changes when
somebody else uses the machine, so it is the figure to trust on a busy one.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cpu", "cpu", "facts", "file_limit", "memory", "pin", "processes"]

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cpu:
    """Processor time in seconds."""

    user: float
    system: float

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.user - other.user, self.system - other.system)

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.user + other.user, self.system + other.system)

    @property
    def total(self) -> float:
        return self.user + self.system


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None  # it has just ended
    return text.rpartition(")")[2].split()


def processes(session: int) -> Iterator[int]:
    """The processes of a session: a server's leader and what it has forked."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields is not None and int(fields[3]) == session and fields[0] != "Z":
                yield int(name)


def cpu(session: int) -> Cpu:
    """What the processes of a session have used so far."""
    user = system = 0
    for pid in processes(session):
        fields = _stat(pid)
        if fields is not None:
            user += int(fields[11])
            system += int(fields[12])
    return Cpu(user / _TICK, system / _TICK)


def memory(session: int) -> int:
    """The resident memory of the processes of a session, in bytes."""
    total = 0
    for pid in processes(session):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        except OSError:
            continue
    return total


def pin(core: int) -> None:
    """Keep this process (and what it starts) on one core, where the machine has that many."""
    if core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def file_limit() -> int:
    """Raise the number of files this process (and what it starts) may open; returns it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def facts() -> dict[str, str]:
    """What a reader of the results wants to know about the machine."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": f"{os.cpu_count()} cores, {model}",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
