"""The pid file: written by the process that stays, read by ``-s``, removed at the end."""

from __future__ import annotations

import os

from trio_lua.errors import TrioLuaError
from trio_lua.log.files import os_error

__all__ = ["PidFileError", "read", "remove", "test", "write"]


class PidFileError(TrioLuaError):
    """The pid file cannot be used; the message is nginx's."""


def write(path: str, pid: int | None = None) -> None:
    """Write ``pid``, by default this process's.

    Raises:
        PidFileError: The file cannot be written.
    """
    text = b"%d\n" % (os.getpid() if pid is None else pid)
    _open_for(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, text)


def test(path: str) -> None:
    """See whether it could be written, as ``-t`` does: it is created but not changed.

    Raises:
        PidFileError: It cannot.
    """
    _open_for(path, os.O_RDWR | os.O_CREAT, b"")


def _open_for(path: str, flags: int, text: bytes) -> None:
    try:
        fd = os.open(path, flags, 0o644)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)
    except OSError as exc:
        raise PidFileError(f'open() "{path}" failed {os_error(exc)}') from None


def read(path: str) -> int:
    """The process id in it.

    Raises:
        PidFileError: There is no file, or no number in it.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(64).rstrip(b"\r\n")
    except OSError as exc:
        raise PidFileError(f'open() "{path}" failed {os_error(exc)}') from None
    if not data.isdigit() or int(data) == 0:
        shown = data.decode("utf-8", "replace")
        raise PidFileError(f'invalid PID number "{shown}" in "{path}"')
    return int(data)


def remove(path: str) -> None:
    """Remove it; that it is gone already is no error.

    Raises:
        PidFileError: It cannot be removed.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise PidFileError(f'unlink() "{path}" failed {os_error(exc)}') from None
