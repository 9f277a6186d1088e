"""From host names to addresses.

Two resolvers. :class:`SystemResolver` asks the operating system, in a thread: it is used where the configuration names no
``resolver`` (OpenResty fails there). :class:`DnsResolver` asks the name servers of the ``resolver`` directive,
keeps answers as long as they say (or ``valid=``), and needs dnspython (the extra ``dns``).
"""

from __future__ import annotations

import socket
from typing import Protocol

import trio

from trio_lua.net.errors import SocketError

__all__ = ["Resolver", "SystemResolver", "resolve"]


class Resolver(Protocol):
    """Finds the addresses of a host name."""

    async def resolve(self, name: str) -> list[str]:
        """The addresses of a name, at least one, as text.

        Raises:
            SocketError: There are none.
        """


class SystemResolver:
    """The operating system's resolution (``/etc/hosts`` included)."""

    async def resolve(self, name: str) -> list[str]:
        try:
            found = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            # what OpenResty says, whose way out is the same: a resolver directive
            raise SocketError(f'no resolver defined to resolve "{name}"') from None
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def resolve(resolver: Resolver, name: str, seconds: float) -> list[str]:
    """The addresses of a name, at least one, as text.

    Raises:
        SocketError: There are none, or the answer took too long.
    """
    with trio.move_on_after(seconds):
        return await resolver.resolve(name)
    raise SocketError(f"{name} could not be resolved (110: Operation timed out)")
