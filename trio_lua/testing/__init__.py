"""Tests of Lua handlers: the real server in memory, on virtual time.

Everything works without pytest, too::

    clock = LuaClock()

    async def main():
        async with open_server("ngx.sleep(3600) ngx.say('hello')", clock=clock) as server:
            response = await server.get("/")
            assert (response.status, response.text) == (200, "hello\\n")

    run(main, clock=clock)

The fixtures (:mod:`trio_lua.testing.plugin`) are thin wrappers around these names.
"""

from __future__ import annotations

from trio_lua.testing.client import Client, Headers, IncompleteResponse, Response
from trio_lua.testing.clock import LuaClock
from trio_lua.testing.log import LogRecord, LogRecords
from trio_lua.testing.network import (
    Answer,
    DatagramPeer,
    HttpPeer,
    HttpRequest,
    LuaNetwork,
    MemcachedPeer,
    NetworkFailure,
    Peer,
    RedisError,
    RedisPeer,
    Script,
)
from trio_lua.testing.run import run
from trio_lua.testing.server import Leak, LuaServer, configuration, open_server
from trio_lua.testing.stuck import Stuck
from trio_lua.testing.vm import Lua, open_lua

__all__ = [
    "Answer",
    "Client",
    "DatagramPeer",
    "Headers",
    "HttpPeer",
    "HttpRequest",
    "IncompleteResponse",
    "Leak",
    "LogRecord",
    "LogRecords",
    "Lua",
    "LuaClock",
    "LuaNetwork",
    "LuaServer",
    "MemcachedPeer",
    "NetworkFailure",
    "Peer",
    "RedisError",
    "RedisPeer",
    "Response",
    "Script",
    "Stuck",
    "configuration",
    "open_lua",
    "open_server",
    "run",
]
