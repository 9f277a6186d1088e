"""Errors without the groups that nurseries put around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

__all__ = ["single", "ungrouped"]


def single(error: BaseException) -> BaseException:
    """What is inside of groups of one."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return single(inner[0]) if len(inner) == 1 else error


@contextmanager
def ungrouped() -> Iterator[None]:
    """Let an error come out of the nurseries inside as it was raised, if it is alone: callers want to catch it."""
    try:
        yield
    except BaseException as error:
        inner = single(error)
        if inner is error or isinstance(inner, trio.Cancelled):
            raise
        failure = inner
    else:
        return
    raise failure
