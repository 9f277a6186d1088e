"""What a block can connect to beside what it names itself."""

from __future__ import annotations

import trio

from trio_lua.net.dns import NOT_FOUND, unresolved
from trio_lua.net.errors import SocketError
from trio_lua.net.network import Address
from trio_lua.testing.network import DatagramPeer, LuaNetwork, Peer

__all__ = ["BlockNetwork"]

#: Seconds until it is known that a name does not exist.
_LOOKUP = 0.1


class BlockNetwork(LuaNetwork):
    """A network in which other ports of this machine refuse, and other machines do not answer."""

    def peer(self, address: Address) -> Peer | None:
        known = super().peer(address)
        if known is not None:
            return known
        where = address[1]
        if not isinstance(where, tuple):
            return None
        if _is_here(where[0]):
            return self.refuse("nowhere", 1)
        return self.timeout("nowhere", 1)

    def datagram_peer(self, address: Address) -> DatagramPeer | None:
        known = super().datagram_peer(address)
        where = address[1]
        if known is not None or not isinstance(where, tuple) or _is_here(where[0]):
            return known
        return self.udp("nowhere", 1)

    async def resolve(self, name: str) -> list[str]:
        try:
            return await super().resolve(name)
        except SocketError:
            # far away
            await trio.sleep(_LOOKUP)
            raise unresolved(name, NOT_FOUND) from None


def _is_here(host: str) -> bool:
    return host.startswith(("127.", "::1"))
