"""Configurations as the commands get them: from nginx.conf, or from one Lua file or string."""

from __future__ import annotations

from collections.abc import Callable

from trio_lua.errors import ConfigError

__all__ = ["DEFAULT_LISTEN", "from_code", "from_conf", "from_script", "is_script", "one_line"]

#: Where an application without a configuration listens.
DEFAULT_LISTEN = "127.0.0.1:8000"

Warn = Callable[[str, str], None]


def is_script(path: str) -> bool:
    """Whether a target is a Lua application rather than a configuration."""
    return path.endswith(".lua")


def one_line(error: ConfigError) -> str:
    """A configuration error as compilers write theirs: ``file:line: message (hint)``."""
    place = ""
    if error.file:
        place = f"{error.file}:{error.line}: " if error.line else f"{error.file}: "
    return f"{place}{error.message}" + (f" ({error.hint})" if error.hint else "")
