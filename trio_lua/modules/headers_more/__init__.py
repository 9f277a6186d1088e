"""The headers-more module: set, add and clear any header (OpenResty's headers-more-nginx-module)."""

from __future__ import annotations

from trio_lua.request.module import Module

MODULE = Module("headers_more")
