"""The memc module: a location that speaks to memcached (OpenResty's memc-nginx-module).

The variables ``$memc_cmd``, ``$memc_key``, ``$memc_value``, ``$memc_flags`` and ``$memc_exptime`` say what is asked;
without a command the method does: GET gets, PUT sets, POST adds, DELETE deletes. The Lua half asks over a socket like
those of ``ngx.socket.tcp``.
"""

from __future__ import annotations

from pathlib import Path

from trio_lua.config.directives import Context, Use, takes
from trio_lua.request.module import Module

__all__ = ["MODULE"]

MODULE = Module("memc", lua=Path(__file__).with_name("memc.lua"))

_COMMANDS = [
    "get",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "delete",
    "incr",
    "decr",
    "flush_all",
    "stats",
    "version",
    "verbosity",
]


@MODULE.directive("memc_pass", Context.LOCATION | Context.LOCATION_IF, takes(1))
def _pass(use: Use) -> None:
    use.set_content("memc", use.template(0))


@MODULE.directive("memc_connect_timeout", Context.SETTING, takes(1))
@MODULE.directive("memc_send_timeout", Context.SETTING, takes(1))
@MODULE.directive("memc_read_timeout", Context.SETTING, takes(1))
def _timeout(use: Use) -> None:
    use.put_setting(use.name, use.time())


@MODULE.directive("memc_cmds_allowed", Context.SETTING, takes(1, None))
def _allowed(use: Use) -> None:
    for name in use.args:
        if name not in _COMMANDS:
            raise use.error(f'unknown memcached command "{name}"')
    use.put_setting("memc_cmds_allowed", {name: True for name in use.args})
