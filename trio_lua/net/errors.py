"""What goes wrong with sockets, in OpenResty's words."""

from __future__ import annotations

import os
import ssl

from trio_lua.errors import TrioLuaError

__all__ = ["SocketError", "text_of"]

ERR, CRIT = 4, 3


class SocketError(TrioLuaError):
    """A socket operation failed.

    Attributes:
        text: What Lua code gets as its second value.
        log: The line for the error log, None when there is none.
        level: nginx's number for the line's level.
    """

    def __init__(self, text: str, log: str | None = None, level: int = ERR) -> None:
        self.text = text
        self.log = log
        self.level = level
        super().__init__(text)


def text_of(error: OSError) -> str:
    """An operating system error as a lower-case sentence (``connection refused``); ``error`` without a number."""
    if not error.errno or isinstance(error, ssl.SSLError):
        return "error"
    return os.strerror(error.errno).lower()
