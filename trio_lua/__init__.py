"""OpenResty's programming model on Trio.

The names below are the public API for programs that embed the server. They are loaded when they are
first used, because the commands must answer at once.
"""

from __future__ import annotations

# Checkers know this name; the module that defines it would take as long to load as a `-V` may.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from trio_lua.config.model import Config
    from trio_lua.errors import ConfigError, IPCError, LuaError, ProtocolError, TrioLuaError
    from trio_lua.process.configure import ConfigBuilder, from_lua, load, loads
    from trio_lua.process.embed import Server, serve
    from trio_lua.process.sockets import ListenError
    from trio_lua.server.client import Headers, IncompleteResponse, Response
    from trio_lua.server.observe import (
        ObservedOperation,
        ObservedPhase,
        ObservedRequest,
        Observer,
    )

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigBuilder",
    "ConfigError",
    "Headers",
    "IPCError",
    "IncompleteResponse",
    "ListenError",
    "LuaError",
    "ObservedOperation",
    "ObservedPhase",
    "ObservedRequest",
    "Observer",
    "ProtocolError",
    "Response",
    "Server",
    "TrioLuaError",
    "__version__",
    "from_lua",
    "load",
    "loads",
    "serve",
]

_HOMES = {
    "Config": "trio_lua.config.model",
    "ConfigBuilder": "trio_lua.process.configure",
    "ConfigError": "trio_lua.errors",
    "Headers": "trio_lua.server.client",
    "IPCError": "trio_lua.errors",
    "IncompleteResponse": "trio_lua.server.client",
    "ListenError": "trio_lua.process.sockets",
    "LuaError": "trio_lua.errors",
    "ObservedOperation": "trio_lua.server.observe",
    "ObservedPhase": "trio_lua.server.observe",
    "ObservedRequest": "trio_lua.server.observe",
    "Observer": "trio_lua.server.observe",
    "ProtocolError": "trio_lua.errors",
    "Response": "trio_lua.server.client",
    "Server": "trio_lua.process.embed",
    "TrioLuaError": "trio_lua.errors",
    "from_lua": "trio_lua.process.configure",
    "load": "trio_lua.process.configure",
    "loads": "trio_lua.process.configure",
    "serve": "trio_lua.process.embed",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
