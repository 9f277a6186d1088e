"""``ngx.exec``: the paths it takes."""

from __future__ import annotations

from trio_lua.http.uri import parse_unsafe
from trio_lua.lua.ops import OpTable

__all__ = ["install"]


def _parse_unsafe_uri(uri: bytes) -> tuple[bytes | None, bytes | None]:
    return parse_unsafe(uri) or (None, None)


def install(table: OpTable) -> None:
    """Add ``rt.py.parse_unsafe_uri``."""
    table.call("parse_unsafe_uri", _parse_unsafe_uri)
