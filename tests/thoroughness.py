"""How many examples property-based tests try: a few in the everyday run, all of them where ``CI`` is set.

The number of a test is its own (see :func:`examples`), or Hypothesis's usual 100. ``--hypothesis-profile=thorough`` has
the same effect as ``CI``.
"""

from __future__ import annotations

import os

from hypothesis import settings

__all__ = ["examples", "register"]

_USUAL, _QUICK = 100, 20


def register() -> None:
    """Make the profiles and choose one."""
    usual = settings.get_profile("default")
    # how long an example takes says nothing on a busy machine
    settings.register_profile("thorough", usual, max_examples=_USUAL, deadline=None)
    settings.register_profile("quick", usual, max_examples=_QUICK, deadline=None)
    settings.load_profile("thorough" if os.environ.get("CI") else "quick")


def examples(number: int) -> int:
    """What the profile makes of a number of examples."""
    return number * settings().max_examples // _USUAL
