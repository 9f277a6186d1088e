"""The border between Lua and Python: one table of operations.

Two kinds. A *call* is a plain Python function that Lua calls and that answers at once
(``rt.py.NAME``). An *operation* is asynchronous: Lua yields its number, the driver awaits the function
and resumes the thread with what it returned (``rt.suspend(rt.ops.NAME, ...)``). Both are named after what
Lua code knows them by, so that a search finds the two halves together.

A family of the API adds its own with :meth:`OpTable.call` and :meth:`OpTable.op`; nothing else on the
Python side is reachable from Lua.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Call", "Op", "OpTable"]

#: A plain function: bytes, numbers, booleans and None in; the same, or a tuple of them, out.
Call = Callable[..., Any]

#: An operation: the request (or other owner of the thread) and Lua's arguments in; the values that the
#: Lua side receives out, as a tuple.
Op = Callable[..., Awaitable[tuple[Any, ...]]]


class OpTable:
    """The calls and operations of one VM."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.ops: list[Op] = []
        self.numbers: dict[str, int] = {}
        self.spawning: set[int] = set()
        self.inline: set[int] = set()

    def call(self, name: str, function: Call) -> None:
        """Add a plain function.

        Raises:
            ValueError: The name is taken.
        """
        if name in self.calls:
            raise ValueError(f"the call {name!r} is there already")
        self.calls[name] = function

    def op(self, name: str, function: Op, *, spawns: bool = False, inline: bool = False) -> None:
        """Add an operation that suspends its thread.

        Args:
            name: What Lua calls it.
            function: What the driver awaits.
            spawns: It starts tasks in its owner's ``nursery``, which lasts as long as the handler.
            inline: It may run in the task that received the request, because it often need not wait, and calls
                :func:`trio_lua.lua.driver.detach` or :func:`~trio_lua.lua.driver.attempt` before it does.

        Raises:
            ValueError: The name is taken.
        """
        if name in self.numbers:
            raise ValueError(f"the operation {name!r} is there already")
        self.numbers[name] = len(self.ops)
        if spawns:
            self.spawning.add(len(self.ops))
        if inline:
            self.inline.add(len(self.ops))
        self.ops.append(function)
