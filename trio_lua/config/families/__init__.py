"""The directives, by subject: each module has a ``TABLE`` of its own."""

from __future__ import annotations

from trio_lua.config.families import (
    filters,
    http,
    later,
    location,
    logs,
    lua,
    main,
    rewrite,
    server,
    tls,
)

__all__ = ["FAMILIES"]

FAMILIES = (
    main.TABLE,
    http.TABLE,
    filters.TABLE,
    server.TABLE,
    location.TABLE,
    rewrite.TABLE,
    logs.TABLE,
    lua.TABLE,
    tls.TABLE,
    later.TABLE,
)
