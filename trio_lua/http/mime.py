"""Which type a file has, by the extension of its path."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["DEFAULT_TYPES", "extension", "lookup"]

# What nginx knows when a configuration has no `types`.
DEFAULT_TYPES: Mapping[str, str] = MappingProxyType(
    {"html": "text/html", "gif": "image/gif", "jpg": "image/jpeg"}
)


def extension(path: bytes) -> bytes:
    """What stands behind the last dot of the last segment; a leading dot does not count."""
    name = path[path.rfind(b"/") + 1 :]
    at = name.rfind(b".")
    return name[at + 1 :] if at > 0 else b""


def lookup(path: bytes, types: Mapping[str, str] | None, default: str) -> str:
    """The type of a decoded path.

    Args:
        types: Lower-case extension -> type; None for :data:`DEFAULT_TYPES`.
        default: The type of everything else (``default_type``).
    """
    suffix = extension(path)
    if not suffix:
        return default
    table = DEFAULT_TYPES if types is None else types
    return table.get(suffix.decode("utf-8", "surrogateescape").lower(), default)
