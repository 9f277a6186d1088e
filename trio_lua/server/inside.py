"""Connections from inside the process: a pair of memory streams, whose one end a worker serves."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import trio
import trio.testing

from trio_lua.config.model import Config, Listen

__all__ = ["Inside", "encrypted", "listen_of", "named"]

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


def listen_of(config: Config, scheme: str, port: int) -> Listen:
    """The ``listen`` that a URL leads to, whatever the address in front of its port.

    Args:
        config: The configuration.
        scheme: ``http`` or ``https``.
        port: The port.

    Raises:
        ValueError: There is none.
    """
    listens = [listen for server in config.http.servers for listen in server.listens]
    for listen in listens:
        if listen.path is None and listen.port == port and listen.ssl is (scheme == "https"):
            return listen
    there = {
        f"{'https' if listen.ssl else 'http'} on {listen.port}": None
        for listen in listens
        if listen.path is None
    }
    known = ", ".join(there) or "nothing"
    raise ValueError(f"the configuration has no {scheme} on port {port}; it has {known}")


async def encrypted(stream: trio.abc.Stream, name: str) -> trio.abc.Stream:
    """The client's end of TLS over a stream. Certificates are not looked at: the other end is in this process.

    Args:
        stream: The connection.
        name: The host name that is asked for.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    secured = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
    await secured.do_handshake()
    return secured


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
