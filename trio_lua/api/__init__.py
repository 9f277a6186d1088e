"""The ``ngx.*`` families: for each a Lua file, and beside it a Python file where it needs one.

A family is added with its files and a place in :data:`FAMILIES`, whose order is the order of loading.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["FAMILIES", "SCRIPT", "family_files"]

#: What the VM of a script has besides the families.
SCRIPT = Path(__file__).parent / "script.lua"

FAMILIES = (
    "time",
    "codec",
    "request",
    "log",
    "headers",
    "output",
    "serve",
    "control",
    "thread",
    "timer",
    "body",
    "var",
    "regex",
    "expires",
    "charset",
    "gzip",
    "pace",
    "subrequest",
    "socket",
    "tls",
    "udp",
    "req_socket",
    "abort",
    "base",
    "shared",
    "worker",
    "modules",
)


def family_files() -> list[Path]:
    """The Lua files of the families, in loading order."""
    here = Path(__file__).parent
    return [here / f"{name}.lua" for name in FAMILIES]
