"""The access log: the file, and how ``log_format`` escapes the values in it.

Evaluating a format is the engine's work, as it needs the request's variables. It fetches the
function of the format's ``escape`` parameter once, by :func:`escaper`, and calls it for every
variable with the value, or None where the variable has none.

``buffer=``, ``gzip``, ``flush=`` of the directive do not matter here: each line is written at
once, so that the log is complete whenever somebody looks.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from trio_lua.errors import ConfigError
from trio_lua.log.files import LogFile, LogFiles, resolve
from trio_lua.log.syslog import PREFIX, Syslog

__all__ = ["COMBINED", "AccessLog", "escape_default", "escape_json", "escape_none", "escaper"]

#: The text of the predefined format ``combined``.
COMBINED = (
    '$remote_addr - $remote_user [$time_local] "$request" '
    '$status $body_bytes_sent "$http_referer" "$http_user_agent"'
)

_DEFAULT = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_DEFAULT_TABLE = {bytes([n]): b"\\x%02X" % n for n in range(256)}
_JSON = re.compile(rb'[\x00-\x1f"\\]')
_JSON_TABLE = {bytes([n]): b"\\u%04X" % n for n in range(32)} | {
    b'"': b'\\"',
    b"\\": b"\\\\",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
    b"\b": b"\\b",
    b"\f": b"\\f",
}


def escape_default(value: bytes | None) -> bytes:
    r"""``\xXX`` for control and non-ASCII bytes, quotes and backslashes; ``-`` for no value."""
    if value is None:
        return b"-"
    return _DEFAULT.sub(lambda found: _DEFAULT_TABLE[found[0]], value)


def escape_json(value: bytes | None) -> bytes:
    """What may stand in a JSON string; nothing for no value."""
    if value is None:
        return b""
    return _JSON.sub(lambda found: _JSON_TABLE[found[0]], value)


def escape_none(value: bytes | None) -> bytes:
    """The value as it is; nothing for no value."""
    return value or b""


_ESCAPERS: dict[str, Callable[[bytes | None], bytes]] = {
    "default": escape_default,
    "json": escape_json,
    "none": escape_none,
}


def escaper(name: str) -> Callable[[bytes | None], bytes]:
    """The function of ``log_format ... escape=name``.

    Raises:
        ConfigError: There is no such way of escaping.
    """
    try:
        return _ESCAPERS[name]
    except KeyError:
        raise ConfigError(f'unknown log format escaping "{name}"') from None


class AccessLog:
    """An access log of a fixed path.

    Args:
        path: A file, ``"syslog:server=..."``, ``"/dev/stdout"`` or ``"/dev/stderr"``; relative paths lie under ``prefix``.
        prefix: The server's prefix directory.
        files: Where files are opened and shared with other logs; by default an own set.

    Raises:
        ConfigError: The file cannot be opened, or the syslog server is not known.
    """

    __slots__ = ("_file", "_files", "_own", "_syslog", "path")

    def __init__(self, path: str, *, prefix: str = "", files: LogFiles | None = None) -> None:
        self._syslog: Syslog | None = None
        self._own = files is None
        self._files = LogFiles() if files is None else files
        if path.startswith(PREFIX):
            self.path = path
            self._syslog = Syslog(path.removeprefix(PREFIX))
            self._file: LogFile | None = None
        else:
            self.path = resolve(path, prefix)
            self._file = self._files.open(self.path)

    def write(self, line: bytes) -> None:
        """Append a line, given without its line feed."""
        if self._file is not None:
            self._file.write(line + b"\n")
        elif self._syslog is not None:
            self._syslog.write(line)

    def reopen(self) -> None:
        """Open the file again by name.

        Raises:
            OSError: It cannot be opened; the old one stays in use.
        """
        if self._file is not None:
            self._file.reopen()

    def close(self) -> None:
        """Close the file, unless its set was handed in."""
        if self._syslog is not None:
            self._syslog.close()
        if self._own:
            self._files.close()
