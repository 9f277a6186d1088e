"""``worker_cpu_affinity``: which processors a worker may run on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

__all__ = ["processors"]


def processors(
    masks: Sequence[str], worker: int, available: Iterable[int] | None = None
) -> frozenset[int] | None:
    """The processors of a worker; None where the directive says nothing.

    Args:
        masks: The directive's words: a mask of ones and zeros for each worker, the last digit being the first
            processor; or ``auto``, with a mask of all that may be used.
        worker: Its number.
        available: The processors of the machine that this process may use.
    """
    if not masks:
        return None
    if masks[0] != "auto":
        # as in nginx, workers without a mask have the last one
        return _of(masks[min(worker, len(masks) - 1)])
    if available is None:
        available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    allowed = sorted(available)
    if len(masks) > 1:
        allowed = [number for number in allowed if number in _of(masks[1])]
    return frozenset((allowed[worker % len(allowed)],)) if allowed else None


def _of(mask: str) -> frozenset[int]:
    digits = mask.replace(" ", "")
    return frozenset(place for place, digit in enumerate(reversed(digits)) if digit == "1")
