"""Threads with enough C stack for Lua.

Where Lua calls a C function that calls Lua (``string.gsub`` with a function), each level takes 8 kB of the C stack, and only
Lua's own stack has a limit. Up to there the C stack has to suffice, or a runaway recursion ends the process.

Python gives all threads that it starts the same size, and Trio uses idle threads of the whole process again. So threads
that were there before the size was raised are remembered, and what needs more stack gets a thread of its own there.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TypeVar

__all__ = ["large_stacks", "on_large_stack"]

#: Bytes, which are reserved and not used.
_SIZE = 256 << 20 if sys.maxsize > 1 << 32 else 16 << 20

T = TypeVar("T")

_lock = threading.Lock()
_users = 0
_before = 0
_small: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_large: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@contextlib.contextmanager
def large_stacks() -> Iterator[None]:
    """Threads that anybody starts meanwhile have a large stack."""
    global _users, _before
    with _lock:
        if not _users:
            _before = threading.stack_size(_SIZE)
            _small.update(thread for thread in threading.enumerate() if thread not in _large)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                threading.stack_size(_before)


def on_large_stack(function: Callable[[], T]) -> T:
    """Call a function in this thread, or in a new one if this thread was there before :func:`large_stacks`.

    Raises:
        RuntimeError: There can be no more threads.
        Exception: What the function raised.
    """
    thread = threading.current_thread()
    if thread not in _small:
        if _users:
            _large.add(thread)
        return function()
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=call, name=thread.name, daemon=True)
    other.start()
    other.join()
    if errors:
        raise errors[0]
    return results[0]
