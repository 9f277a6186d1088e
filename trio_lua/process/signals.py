"""What each signal asks of the process that runs the server: nginx's table, and one for a dump of all Lua threads.

Signals arrive through Trio, in the order in which they came and never inside other code.
The sender's process id, which nginx logs as well, does not come through.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from enum import Enum
from types import MappingProxyType

import trio

from trio_lua.log.error_log import NOTICE, Log

__all__ = ["ACTIONS", "BY_NAME", "Action", "action_of", "receive", "restart_calls"]


class Action(Enum):
    """What to do; the value is how the log calls it."""

    STOP = "exiting"
    QUIT = "shutting down"
    REOPEN = "reopening logs"
    RELOAD = "reconfiguring"
    DUMP = "listing the Lua threads"
    IGNORE = "ignoring"


#: Asks for a dump: SIGINFO where there is one (control-T in a terminal of BSD and macOS), else SIGPWR, which nginx and
#: systemd's services do not use.
DUMP = getattr(signal, "SIGINFO", None) or signal.SIGPWR

ACTIONS = MappingProxyType(
    {
        signal.SIGTERM: Action.STOP,
        signal.SIGINT: Action.STOP,
        signal.SIGQUIT: Action.QUIT,
        signal.SIGUSR1: Action.REOPEN,
        signal.SIGHUP: Action.RELOAD,
        DUMP: Action.DUMP,
        signal.SIGUSR2: Action.IGNORE,
        signal.SIGWINCH: Action.IGNORE,
        signal.SIGALRM: Action.IGNORE,
        signal.SIGIO: Action.IGNORE,
    }
)

#: ``-s NAME``.
BY_NAME = MappingProxyType(
    {
        "stop": signal.SIGTERM,
        "quit": signal.SIGQUIT,
        "reopen": signal.SIGUSR1,
        "reload": signal.SIGHUP,
    }
)


@contextmanager
def receive() -> Iterator[AsyncIterator[int]]:
    """Take over the signals of the table, in the main thread, until the block ends."""
    with trio.open_signal_receiver(*ACTIONS) as received:
        yield received


def restart_calls(restart: bool) -> None:
    """``lua_sa_restart``: whether system calls of Lua code (``io.popen`` and the like) go on after a signal.

    Without that they fail with "Interrupted system call". To be called after :func:`receive`.
    """
    for number in ACTIONS:
        signal.siginterrupt(number, not restart)


def action_of(number: int, error_log: Log) -> Action:
    """What a received signal means; logs it as nginx does."""
    known = signal.Signals(number)
    action = ACTIONS[known]
    if error_log.level >= NOTICE:
        message = f"signal {number} ({known.name}) received, {action.value}"
        error_log.log(NOTICE, message.encode())
    return action
