"""What each signal asks of the process that runs the server: nginx's table, and one for a dump of all Lua threads.

In a worker and in a single process signals arrive through Trio, in the order in which they came and never inside other code.
The sender's process id, which nginx logs as well, does not come through.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import MappingProxyType

import trio

from trio_lua.log.error_log import NOTICE, Log

__all__ = [
    "ACTIONS",
    "BY_NAME",
    "DUMP",
    "MASTER_ACTIONS",
    "WORKER_ACTIONS",
    "Action",
    "Actions",
    "action_of",
    "receive",
    "restart_calls",
]


class Action(Enum):
    """What to do; the value is how the log calls it."""

    STOP = "exiting"
    QUIT = "shutting down"
    REOPEN = "reopening logs"
    RELOAD = "reconfiguring"
    DUMP = "listing the Lua threads"
    IGNORE = "ignoring"
    # Only a master has these.
    UPGRADE = "changing binary"
    STAND_DOWN = "stop accepting connections"
    MORE = "starting one more worker"
    FEWER = "stopping one worker"
    CHILD = ""


Actions = Mapping[signal.Signals, Action]

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

#: What a master does.
MASTER_ACTIONS = MappingProxyType(
    {
        **ACTIONS,
        signal.SIGUSR2: Action.UPGRADE,
        signal.SIGWINCH: Action.STAND_DOWN,
        signal.SIGTTIN: Action.MORE,
        signal.SIGTTOU: Action.FEWER,
        signal.SIGCHLD: Action.CHILD,
    }
)

#: What a worker does: what changes the whole server is its master's business.
WORKER_ACTIONS = MappingProxyType(
    {
        **ACTIONS,
        signal.SIGHUP: Action.IGNORE,
        signal.SIGTTIN: Action.IGNORE,
        signal.SIGTTOU: Action.IGNORE,
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
def receive(actions: Actions = ACTIONS) -> Iterator[AsyncIterator[int]]:
    """Take over the signals of a table, in the main thread, until the block ends."""
    with trio.open_signal_receiver(*actions) as received:
        yield received


def restart_calls(restart: bool, actions: Actions = ACTIONS) -> None:
    """``lua_sa_restart``: whether system calls of Lua code (``io.popen`` and the like) go on after a signal.

    Without that they fail with "Interrupted system call". To be called after :func:`receive`.
    """
    for number in actions:
        signal.siginterrupt(number, not restart)


def action_of(number: int, error_log: Log, actions: Actions = ACTIONS) -> Action:
    """What a received signal means; logs it as nginx does."""
    known = signal.Signals(number)
    action = actions[known]
    if error_log.level >= NOTICE:
        effect = f", {action.value}" if action.value else ""
        error_log.log(NOTICE, f"signal {number} ({known.name}) received{effect}".encode())
    return action
