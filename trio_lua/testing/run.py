"""Runs on virtual time that go the same way every time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import trio
from trio._core import _run as trio_scheduler

from trio_lua.testing.clock import LuaClock
from trio_lua.testing.groups import single
from trio_lua.testing.server import Leak
from trio_lua.testing.stuck import Stuck, watch

__all__ = ["alone", "run"]

T = TypeVar("T")


def run(
    function: Callable[..., Awaitable[T]],
    *args: Any,
    clock: LuaClock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> T:
    """Run an async function as :func:`trio.run` does, on virtual time.

    Trio runs tasks that are ready at the same time in random order. Here the order is the same in every
    run, so that a test that is run again logs the same.

    Args:
        function: What to run.
        args: Its arguments.
        clock: A new one by default.
        instruments: As for :func:`trio.run`.

    Returns:
        What it returns.

    Raises:
        Stuck: Every task waits, and nothing can wake one.
        BaseException: What it raises, without the groups around a single exception, and without leaks when
            there is something else.
    """
    __tracebackhide__ = True
    clock = LuaClock() if clock is None else clock
    # Trio's own switch, which its plugin for Hypothesis uses
    scheduler: Any = trio_scheduler
    was = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    state = scheduler._r.getstate()
    scheduler._r.seed(0)
    try:
        with clock.holding_for_threads():
            return trio.run(
                _watched, function, args, clock, clock=clock.mock, instruments=instruments
            )
    except BaseException as error:
        failure = error
    finally:
        scheduler._r.setstate(state)
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = was
    raise alone(failure)


async def _watched(
    function: Callable[..., Awaitable[T]], args: Sequence[Any], clock: LuaClock
) -> T:
    """Run the function, and end it when nothing can happen any more."""
    __tracebackhide__ = True
    stuck: list[Stuck] = []

    def stop(why: Stuck) -> None:
        stuck.append(why)
        scope.cancel()

    unwatch = watch(clock.mock, stop)
    try:
        with trio.CancelScope() as scope:
            return await function(*args)
    except BaseException:
        # what comes of being cancelled says nothing
        if not stuck:
            raise
    finally:
        unwatch()
    raise stuck[0]


def alone(error: BaseException) -> BaseException:
    """What is inside of groups of one. What failed has left things behind, and is what counts."""
    split: Any = getattr(error, "split", None)
    if split is not None:
        error = split(Leak)[1] or error
    return single(error)
