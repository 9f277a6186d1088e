"""The directive modules that come with the package: some of nginx's own, and those that OpenResty bundles.

The commands and the functions of :mod:`trio_lua` know their directives; the configuration layer by itself does not.

Each is a module, or a folder: its directives and its Python half in ``__init__.py``, its Lua half beside it.
:class:`Module` is what they are made with, and others can be. Filters run in the order of the list.
"""

from __future__ import annotations

from trio_lua.modules import (
    auth_basic,
    auth_request,
    dav,
    echo,
    headers_more,
    map,
    memc,
    proxy,
    set_misc,
)
from trio_lua.request.module import Exchange, Module

__all__ = ["BUNDLED", "Exchange", "Module"]

BUNDLED: tuple[Module, ...] = (
    auth_basic.MODULE,
    auth_request.MODULE,
    headers_more.MODULE,
    echo.MODULE,
    set_misc.MODULE,
    map.MODULE,
    dav.MODULE,
    memc.MODULE,
    proxy.MODULE,
)
