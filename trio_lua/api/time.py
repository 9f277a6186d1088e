"""The clock behind ``time.lua``.

Lua keeps the time of the current turn in ``rt.S.now`` and asks for it at most once per turn, so
that reading the time costs no crossing; the clock is an argument so that tests can own it.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["calls"]


def calls(clock: Callable[[], float]) -> dict[str, Callable[[], float]]:
    """The functions that ``time.lua`` expects in ``rt.py``.

    Args:
        clock: Seconds since the epoch.
    """
    return {"now": clock}
