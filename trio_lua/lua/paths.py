"""Where ``require`` looks: ``lua_package_path`` and ``lua_package_cpath``, ``LUA_PATH`` and ``LUA_CPATH``.

nginx makes its Lua VM before it reduces the environment to what ``env`` directives name, and so the variables count
although handlers do not see them. Here the VM is made after that; this module is loaded before, and keeps them.
"""

from __future__ import annotations

import os

__all__ = ["lua_cpath", "lua_path"]

_AT_START = {name: os.environ.get(name, "") for name in ("LUA_PATH", "LUA_CPATH")}

_PATH = (
    "./?.lua;/usr/local/share/luajit-2.1/?.lua;"
    "/usr/local/share/lua/5.1/?.lua;/usr/local/share/lua/5.1/?/init.lua;"
    "/usr/local/lib/lua/5.1/?.lua;/usr/local/lib/lua/5.1/?/init.lua;"
    "/usr/share/luajit-2.1/?.lua;/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua"
)
_CPATH = (
    "./?.so;/usr/local/lib/lua/5.1/?.so;/usr/lib/x86_64-linux-gnu/lua/5.1/?.so;"
    "/usr/lib/aarch64-linux-gnu/lua/5.1/?.so;/usr/local/lib/lua/5.1/loadall.so"
)


def lua_path(directive: str | None, prefix: str) -> str:
    """``package.path`` of a configuration: ``;;`` stands for the default, ``$prefix`` for the server prefix."""
    return _merge(directive, _default("LUA_PATH", _PATH), prefix)


def lua_cpath(directive: str | None, prefix: str) -> str:
    """``package.cpath``, in the same way."""
    return _merge(directive, _default("LUA_CPATH", _CPATH), prefix)


def _default(variable: str, standard: str) -> str:
    return _merge(os.environ.get(variable, _AT_START[variable]), standard, "")


def _merge(path: str | None, default: str, prefix: str) -> str:
    if not path:
        return default
    path = path.replace("${prefix}", prefix).replace("$prefix", prefix)
    return path.replace(";;", f";{default};").strip(";")
