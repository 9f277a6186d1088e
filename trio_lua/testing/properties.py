"""Tests of Hypothesis that use the fixtures: each example is a run of its own, on virtual time, with fixtures of its own.

pytest-trio runs examples with :func:`trio.run`, and its fixtures remember that they were ready for the example before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from pytest_trio import plugin  # type: ignore[import-untyped,unused-ignore]

__all__ = ["run_examples"]


@contextmanager
def run_examples(
    test: Any, run: Callable[..., Any], begin: Callable[[], None]
) -> Generator[None, Any, None]:
    """Let a test of Hypothesis run its examples inside as other tests run.

    Args:
        test: The ``hypothesis`` attribute of the test function.
        run: What runs an async function, as the marker ``trio`` takes it.
        begin: Called before each example.
    """

    def run_example(function: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        begin()
        _renew(function.keywords)
        return run(function, **options)

    marker = pytest.mark.trio(run=run_example).mark
    original = test.inner_test
    inner = SimpleNamespace(obj=original, iter_markers=lambda _name: [marker])
    # pytest-trio leaves alone what it has wrapped
    test.inner_test = plugin._trio_test_runner_factory(inner)
    try:
        yield
    finally:
        # which other parameters of the same test have in common
        test.inner_test = original


def _renew(arguments: Mapping[str, Any]) -> None:
    """Let fixtures be set up again."""
    for value in arguments.values():
        if isinstance(value, plugin.TrioFixture):
            value.setup_done = trio.Event()
            value._teardown_done = trio.Event()
            value.user_done_events = set()
            _renew(value._pytest_kwargs)
