"""A network for tests: what Lua code can connect to, in memory and on virtual time.

The sockets of Lua code are ends of socket pairs (see :mod:`trio_lua.net.network`), so everything above them is what
runs in production: timeouts, TLS, keepalive pools.
"""

from __future__ import annotations

from trio_lua.testing.network.fake import LuaNetwork, NetworkFailure
from trio_lua.testing.network.http import Answer, HttpPeer, HttpRequest
from trio_lua.testing.network.memcached import MemcachedPeer
from trio_lua.testing.network.peers import DatagramPeer, Peer, Script
from trio_lua.testing.network.redis import RedisError, RedisPeer

__all__ = [
    "Answer",
    "DatagramPeer",
    "HttpPeer",
    "HttpRequest",
    "LuaNetwork",
    "MemcachedPeer",
    "NetworkFailure",
    "Peer",
    "RedisError",
    "RedisPeer",
    "Script",
]
