"""The security level of the system's OpenSSL configuration.

OpenSSL applies ``CipherString`` of its configuration file to each new context, and Python then puts its own string, with
level 2, in its place. Where an administrator has chosen another level, nginx follows; so do we.
"""

from __future__ import annotations

import os
import re
import ssl
from functools import cache
from pathlib import Path

__all__ = ["read_level", "with_system_level"]

_LEVEL = re.compile(r"@SECLEVEL=(\d)")


def with_system_level(ciphers: str) -> str:
    """A list of ciphers with the level of the system's configuration, if it has none and there is one."""
    level = _system_level()
    return ciphers if level is None or "@SECLEVEL" in ciphers else f"{ciphers}:@SECLEVEL={level}"


@cache
def _system_level() -> int | None:
    path = os.environ.get("OPENSSL_CONF")
    if path is None:
        path = str(Path(ssl.get_default_verify_paths().openssl_cafile).parent / "openssl.cnf")
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return None
    return read_level(text)


def read_level(text: str) -> int | None:
    """The level in a configuration file (config(5)), None when it has none."""
    sections: dict[str, dict[str, str]] = {"": {}}
    values = sections[""]
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            values = sections.setdefault(line.strip("[] \t"), {})
        elif "=" in line:
            name, _, value = line.partition("=")
            values[name.strip()] = value.strip()
    name = ""
    for key in ("openssl_conf", "ssl_conf", "system_default"):
        name = sections.get(name, {}).get(key, "-")
    found = _LEVEL.search(sections.get(name, {}).get("CipherString", ""))
    return None if found is None else int(found[1])
