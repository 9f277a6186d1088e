"""Going to the background, with an exit status that can be trusted.

nginx's first process exits as soon as it has forked; what fails later is only in the log. Here it
waits on a pipe until the process that stays says that it serves, so that a script
may connect when the command has returned, and sees a failed start in its status.

One fork is enough: the child is the leader of a new session without a terminal, and the
server never opens one. So the process id in the pid file is also its process group, as with nginx.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

from trio_lua.errors import TrioLuaError
from trio_lua.log.files import os_error

__all__ = ["Ready", "daemonize"]


class Ready:
    """The child's end of the pipe. Dropping it unused, or dying, tells that the start failed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def notify(self) -> None:
        """Tell the parent that the server listens and answers; it then exits with 0."""
        if self._fd >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._fd, b"R")
            self.close()

    def close(self) -> None:
        """Close the pipe."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def daemonize(*, leave: Callable[[int], None] = os._exit) -> Ready:
    """Fork, and go on in the child, in a session of its own.

    Call it before threads or an event loop exist. Standard input and output become ``/dev/null``;
    the error stream stays until the log takes it over.

    Args:
        leave: What the parent ends with; it is given the exit status. ``os._exit`` because nothing
            that the parent opened (sockets, files) may be cleaned up on its way out.

    Raises:
        TrioLuaError: The system refuses to fork.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError as exc:
        os.close(reading)
        os.close(writing)
        raise TrioLuaError(f"fork() failed {os_error(exc)}") from None
    if child:
        os.close(writing)
        leave(_wait(child, reading))
    os.close(reading)
    os.setsid()
    os.umask(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if null > 2:
        os.close(null)
    return Ready(writing)


def _wait(child: int, reading: int) -> int:
    """The status to exit with: 0 once the child is ready, else the child's own, never 0."""
    try:
        ready = os.read(reading, 1)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        return 130
    finally:
        os.close(reading)
    if ready:
        return 0
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code > 0 else 1
