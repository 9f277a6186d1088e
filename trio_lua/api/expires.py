"""``expires``: times that come from variables."""

from __future__ import annotations

from trio_lua.config.expires import parse_expiry
from trio_lua.lua.ops import OpTable

__all__ = ["install"]


def install(table: OpTable) -> None:
    """Add the calls of ``expires.lua``."""

    def parse(text: bytes, modified: bool) -> tuple[bytes | None, int]:
        try:
            expiry = parse_expiry(text.decode("utf-8", "surrogateescape"), modified=modified)
        except ValueError:
            return None, 0
        return expiry.kind.encode(), expiry.seconds

    table.call("parse_expiry", parse)
