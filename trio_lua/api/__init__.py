"""The ``ngx.*`` families: for each a Lua file, and beside it a Python file where it needs one.

A family is added with its files and a place in :data:`FAMILIES`, whose order is the order of loading.
"""

from __future__ import annotations

import functools
from pathlib import Path

__all__ = ["FAMILIES", "IN_THREADS", "SCRIPT", "family_files", "thread_files"]

#: What the VM of a script has besides the families.
SCRIPT = Path(__file__).parent / "script.lua"

FAMILIES = (
    "time",
    "codec",
    "base64",
    "request",
    "log",
    "headers",
    "waiting",
    "filters",
    "output",
    "serve",
    "control",
    "thread",
    "timer",
    "body",
    "var",
    "pcre2",
    "regex_pattern",
    "regex",
    "regex_replace",
    "config_regex",
    "expires",
    "charset",
    "gzip",
    "pace",
    "subrequest",
    "socket",
    "socket_receive",
    "socket_send",
    "socket_connect",
    "certificate",
    "tls",
    "ssl",
    "udp",
    "req_socket",
    "abort",
    "threadpool",
    "base",
    "config",
    "shared",
    "worker",
    "last_words",
    "ipc",
    "modules",
    "python",
    "guard",
    "deadline",
)


#: What makes up ``ngx.*`` in the VMs of thread pools: families that need neither request nor event loop.
IN_THREADS = (
    "in_thread_calls",
    "time",
    "codec",
    "base64",
    "log",
    "pcre2",
    "regex_pattern",
    "regex",
    "regex_replace",
    "shared",
    "worker",
    "config",
    "in_thread",
)


def thread_files() -> list[Path]:
    """The Lua files of a thread pool's VM, in loading order."""
    here = Path(__file__).parent
    return [here / f"{name}.lua" for name in IN_THREADS]


@functools.cache
def family_files() -> tuple[Path, ...]:
    """The Lua files of the families, in loading order."""
    here = Path(__file__).parent
    return tuple(here / f"{name}.lua" for name in FAMILIES)
