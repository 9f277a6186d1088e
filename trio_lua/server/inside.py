"""Connections from inside the process: a pair of memory streams, whose one end a worker serves."""

from __future__ import annotations

import socket
from typing import Any

import trio
import trio.testing

from trio_lua.config.model import Listen

__all__ = ["Inside", "named"]

#: Clients have the ports behind it.
_FIRST_PORT = 49152
_LAST_PORT = 65535


class _Names:
    """The addresses of a connection in memory, as a socket tells them."""

    def __init__(self, peer: tuple[str, int], listen: Listen) -> None:
        self._peer = peer
        self._listen = listen
        plain = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
        self.family = plain if listen.path is None else socket.AF_UNIX

    def getpeername(self) -> tuple[str, int] | str:
        return self._peer if self._listen.path is None else ""

    def getsockname(self) -> tuple[str, int] | str:
        listen = self._listen
        if listen.path is not None:
            return listen.path
        anywhere = listen.host in ("", "*", "0.0.0.0", "localhost")
        return ("127.0.0.1" if anywhere else listen.host), listen.port


def named(stream: Any, peer: tuple[str, int], listen: Listen) -> Any:
    """A stream with addresses where the server looks for them.

    Args:
        stream: The server's end of a connection.
        peer: Who has the other end.
        listen: What was connected to.
    """
    stream.socket = _Names(peer, listen)
    return stream


class Inside:
    """Makes connections to a worker."""

    def __init__(self) -> None:
        self._last_port = _FIRST_PORT

    def port(self) -> int:
        """A port of a client."""
        self._last_port = self._last_port + 1 if self._last_port < _LAST_PORT else _FIRST_PORT
        return self._last_port

    def connect(self, address: str, listen: Listen) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        """The client's and the server's end of a new connection.

        Args:
            address: Who connects, as ``ngx.var.remote_addr`` tells it.
            listen: The ``listen`` that is connected to.
        """
        ours, theirs = trio.testing.memory_stream_pair()
        return ours, named(theirs, (address, self.port()), listen)
