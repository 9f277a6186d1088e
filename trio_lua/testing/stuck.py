"""Notices that a test waits for something that cannot come.

On virtual time that can be known. When every task waits and no deadline is ahead, only something from outside
of the process could wake one of them. If none of them waits for a descriptor that leads outside, nothing will ever happen.
A timer that fires again and again always is a deadline ahead; there the jumps are counted.
A thread that works holds the clock, and the clock of a test that holds it does not ask.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import trio
import trio.testing
from trio._core import _run as trio_scheduler

import trio_lua
from trio_lua.testing.report import running_threads

__all__ = ["Stuck", "watch"]

#: Frames in these say nothing about a test.
_NOT_THE_TEST = tuple(
    os.path.dirname(module.__file__ or "") + os.sep for module in (trio, trio_lua, os)
)

#: Jumps of the clock after which a test that has not ended is taken for one that waits for ever beside a periodic timer.
_MAX_JUMPS = 1_000_000

_NOTHING_AHEAD = (
    "stuck: every task waits, and nothing can wake one. No time-out is ahead, no thread works,\n"
    "and nobody outside of the test has a connection to it"
)

_HINT = (
    "If another process, a signal or a thread of your own is to go on, "
    "wait for it inside `with lua_clock.hold():`."
)


class Stuck(AssertionError):
    """Nothing can happen any more, and the test has not ended."""


def watch(clock: trio.testing.MockClock, stop: Callable[[Stuck], None]) -> Callable[[], None]:
    """Let a clock that jumps notice when it has nowhere to jump to.

    Args:
        clock: The run's clock.
        stop: Called then, with an exception that tells what everything waits for.

    Returns:
        Puts the clock right again.
    """
    any_clock: Any = clock
    jump = any_clock._autojump
    jumps = 0

    def look_and_jump() -> None:
        nonlocal jumps
        jumps += 1
        ahead = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if ahead == math.inf and not _outside():
            stop(Stuck(_report(_NOTHING_AHEAD)))
        elif jumps > _MAX_JUMPS:
            now = clock.current_time()
            stop(Stuck(_report(f"stuck: time has jumped {_MAX_JUMPS} times, to {now:g} s")))
        else:
            jump()

    any_clock._autojump = look_and_jump

    def unwatch() -> None:
        del any_clock._autojump

    return unwatch


# ----------------------------------------------------------------------- the outside


def _outside() -> bool:
    """Whether a task waits for a descriptor that something outside of the process may touch."""
    scheduler: Any = trio_scheduler
    waited = getattr(scheduler.GLOBAL_RUN_CONTEXT.runner.io_manager, "_registered", None)
    if waited is None or not os.path.isdir("/proc/self/fdinfo"):
        return True  # who knows
    return any(map(_leads_outside, list(waited)))


def _leads_outside(fd: int) -> bool:
    try:
        kind = os.readlink(f"/proc/self/fd/{fd}")
        if kind == "anon_inode:[eventpoll]":
            return any(map(_leads_outside, _inside_of(fd)))
        if not kind.startswith("socket:"):
            return True
        with socket.socket(fileno=os.dup(fd)) as sock:
            # a socket pair: of the network in memory, or Trio's own
            return sock.family != socket.AF_UNIX or bool(sock.getsockname() or sock.getpeername())
    except OSError:
        return False  # closed


def _inside_of(epoll: int) -> Iterator[int]:
    """The descriptors that an epoll watches."""
    for line in Path(f"/proc/self/fdinfo/{epoll}").read_text().splitlines():
        if line.startswith("tfd:"):
            yield int(line.split()[1])


# ------------------------------------------------------------------------ the report


def _report(why: str) -> str:
    parts = [why]
    places = list(dict.fromkeys(_places()))
    if places:
        parts += ["", "Python:", *places]
    threads = running_threads()
    if threads:
        parts += ["", "Lua:", threads]
    return "\n".join([*parts, "", _HINT])


def _places() -> Iterator[str]:
    """Where the tasks of the test wait: in each the innermost line that is the test's own."""
    root = trio.lowlevel.current_root_task()
    for task in [] if root is None else _tasks(root):
        found = ""
        for frame, line in task.iter_await_frames():
            file = frame.f_code.co_filename
            if not file.startswith(_NOT_THE_TEST) and "site-packages" not in file:
                found = f"  {_short(file)}:{line} in {frame.f_code.co_name}{_source(file, line)}"
        if found:
            yield found


def _tasks(task: Any) -> Iterable[Any]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child)


def _short(file: str) -> str:
    short = os.path.relpath(file)
    return file if short.startswith("..") else short


def _source(file: str, line: int) -> str:
    import linecache

    text = linecache.getline(file, line).strip()
    return f"\n        {line:>4} | {text}" if text else ""
