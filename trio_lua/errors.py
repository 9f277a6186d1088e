"""The one error tree.

Every error that this package raises on purpose is a :class:`TrioLuaError`, so an
embedding program can catch all of them with one clause. ``trio.Cancelled`` is never
translated into one of these.
"""

from __future__ import annotations


class TrioLuaError(Exception):
    """Base of all errors of this package."""


class ConfigError(TrioLuaError):
    """The configuration cannot be used.

    Attributes:
        message: What is wrong, in nginx's words where nginx has words for it.
        file: Path of the file, or "" when the configuration was built in Python.
        line: Line number, 0 when there is none.
        hint: A suggestion ("did you mean ..."), "" when there is none; not part of ``str()``.
    """

    def __init__(self, message: str, file: str = "", line: int = 0, *, hint: str = "") -> None:
        self.message = message
        self.file = file
        self.line = line
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        if not self.file:
            return self.message
        if not self.line:
            return f"{self.message} in {self.file}"
        return f"{self.message} in {self.file}:{self.line}"


class LuaError(TrioLuaError):
    """Lua code failed.

    Attributes:
        message: The Lua error value as text.
        traceback: Lua's stack traceback, "" when there is none.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        self.message = message
        self.traceback = traceback
        super().__init__(message)


class ProtocolError(TrioLuaError):
    """A client sent what HTTP does not allow.

    Attributes:
        status: The status to answer with (nginx's choice), such as 400 or 414.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


class IPCError(TrioLuaError):
    """An alert could not be sent, or a request was not answered; the message is the one that Lua gets."""


class ClientGone(ProtocolError):
    """A client went away in the middle of its request."""

    def __init__(self) -> None:
        super().__init__("client prematurely closed connection", 400)
