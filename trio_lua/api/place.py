"""Where a process stands among its kin: what ``ngx.worker`` and ``ngx.process`` tell."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["AGENT", "MASTER", "WORKER", "Place"]

#: The kinds of processes, as ``ngx.process.type()`` names them; a process without a master is "single".
MASTER = "master"
WORKER = "worker"
AGENT = "privileged agent"


def _own_pid() -> tuple[int, ...]:
    return (os.getpid(),)


@dataclass(frozen=True, slots=True)
class Place:
    """What a process is.

    Attributes:
        kind: ``"single"``, :data:`MASTER`, :data:`WORKER` or :data:`AGENT`.
        number: Of a worker, from 0 (``ngx.worker.id()``); None for what is no worker.
        total: How many workers there are (``ngx.worker.count()``).
        master: The master's process id, if there is one.
        pids: The process ids of the workers that run at the time of the call.
    """

    kind: str = "single"
    number: int | None = 0
    total: int = 1
    master: int | None = None
    pids: Callable[[], tuple[int, ...]] = _own_pid
