"""Virtual time for servers under test.

Trio's :class:`trio.testing.MockClock` jumps to the next deadline as soon as every task waits. A task that
waits for a thread looks the same to it, and the timeout of a DNS query or of a thread pool's task
would strike at once; so :class:`LuaClock` holds while a thread works.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any

import trio
import trio.testing

__all__ = ["LuaClock"]


class LuaClock:
    """The clock of a run under test, with what servers and tests want of it.

    Args:
        mock: The run's clock; by default a new one, for ``trio.run(..., clock=clock.mock)``. pytest-trio's
            fixture ``autojump_clock`` is another.
        epoch: What ``ngx.now()`` is when the run begins, in seconds since 1970. The same in
            every run, so that two runs of a test log the same.
    """

    def __init__(
        self, mock: trio.testing.MockClock | None = None, *, epoch: float = 1_700_000_000.0
    ) -> None:
        self.mock = trio.testing.MockClock(autojump_threshold=0) if mock is None else mock
        self.epoch = epoch
        self._held = 0
        self._real = False

    def current_time(self) -> float:
        """Seconds on the run's clock, which begins at 0."""
        return self.mock.current_time()

    def now(self) -> float:
        """Seconds since 1970, as ``ngx.now()`` tells them."""
        return self.epoch + self.current_time()

    def jump(self, seconds: float) -> None:
        """Let time pass at once."""
        self.mock.jump(seconds)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Time stands still inside: something that Trio cannot see is at work, such as another process."""
        self._held += 1
        self.mock.autojump_threshold = math.inf
        try:
            yield
        finally:
            self._held -= 1
            if not self._held and not self._real:
                self.mock.autojump_threshold = 0

    def follow_real_time(self) -> None:
        """From now on time passes as it does outside: something there takes part in the test."""
        self._real = True
        self.mock.autojump_threshold = math.inf
        self.mock.rate = 1

    @contextlib.contextmanager
    def holding_for_threads(self) -> Iterator[None]:
        """Hold whenever a thread of :func:`trio.to_thread.run_sync` works."""
        original: Callable[..., Awaitable[Any]] = trio.to_thread.run_sync

        async def run_sync(*args: Any, **options: Any) -> Any:
            with self.hold():
                return await original(*args, **options)

        # modules of Trio have imported it under names of their own
        places = [
            (module, name)
            for module in _modules_of_trio()
            for name, value in vars(module).items()
            if value is original
        ]
        for module, name in places:
            setattr(module, name, run_sync)
        try:
            yield
        finally:
            for module, name in places:
                setattr(module, name, original)


def _modules_of_trio() -> list[ModuleType]:
    return [
        module for name, module in sys.modules.items() if name == "trio" or name.startswith("trio.")
    ]
