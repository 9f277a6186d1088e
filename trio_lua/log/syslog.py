"""Logs that go to a syslog server (RFC 3164), over UDP or a Unix socket, as nginx sends them.

A datagram that cannot be sent is lost: a log must not keep a request waiting.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time

from trio_lua.errors import ConfigError

__all__ = ["INFO", "PREFIX", "Syslog"]

PREFIX = "syslog:"

#: The severity of access logs, unless they say otherwise.
INFO = 6

_FACILITIES = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "intern",
    "lpr",
    "news",
    "uucp",
    "clock",
    "authpriv",
    "ftp",
    "ntp",
    "audit",
    "alert",
    "cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
]
_SEVERITIES = ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"]

_PORT = 514
_LONGEST_TAG = 32


class Syslog:
    """A syslog server.

    Args:
        target: What follows ``syslog:`` in a directive, such as ``server=127.0.0.1,facility=local1``.

    Attributes:
        severity: Of lines that have none of their own.

    Raises:
        ConfigError: The target is malformed, or its host is not known.
    """

    def __init__(self, target: str) -> None:
        self._facility = len(_FACILITIES) - 1
        self.severity = INFO
        self._tag = "nginx"
        self._host = f"{socket.gethostname()} "
        self._address: tuple[int, object] | None = None
        self._socket: socket.socket | None = None
        self._second = -1
        self._time = ""
        for word in target.split(","):
            self._read(word)
        if self._address is None:
            raise ConfigError("no syslog server specified")

    def _read(self, word: str) -> None:
        name, _, value = word.partition("=")
        if name == "server" and value:
            if self._address is not None:
                raise ConfigError('duplicate syslog "server"')
            self._address = _address_of(value)
        elif name == "facility":
            self._facility = _index(_FACILITIES, "facility", value)
        elif name == "severity":
            self.severity = _index(_SEVERITIES, "severity", value)
        elif name == "tag":
            if len(value) > _LONGEST_TAG:
                raise ConfigError('syslog "tag" length exceeds 32')
            if not re.fullmatch(r"\w+", value, re.ASCII):
                raise ConfigError('syslog "tag" only allows alphanumeric characters and underscore')
            self._tag = value
        elif word == "nohostname":
            self._host = ""
        else:
            raise ConfigError(f'unknown syslog parameter "{word}"')

    def write(self, line: bytes, severity: int | None = None) -> None:
        """Send a line, without its line feed."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            now = time.localtime(second)
            self._time = f"{time.strftime('%b', now)} {now.tm_mday:2} {time.strftime('%X', now)}"
        number = self._facility * 8 + (self.severity if severity is None else severity)
        head = f"<{number}>{self._time} {self._host}{self._tag}: ".encode()
        with contextlib.suppress(OSError):
            try:
                self._open().send(head + line)
            except ConnectionError:
                # a server that was started anew has another socket
                self.close()
                self._open().send(head + line)

    def _open(self) -> socket.socket:
        if self._socket is None:
            assert self._address is not None
            family, address = self._address
            opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                opened.connect(address)  # type: ignore[arg-type]
            except OSError:
                opened.close()
                raise
            self._socket = opened
        return self._socket

    def close(self) -> None:
        """Close the socket; it is opened again when there is something to send."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _index(names: list[str], what: str, name: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise ConfigError(f'unknown syslog {what} "{name}"') from None


def _address_of(text: str) -> tuple[int, object]:
    if text.startswith("unix:"):
        return socket.AF_UNIX, text[5:]
    host, port = text, str(_PORT)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif ":" in text:
        host, _, port = text.partition(":")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except (OSError, ValueError, UnicodeError):
        raise ConfigError(f'host not found in syslog server "{text}"') from None
    family, _, _, _, address = found[0]
    return int(family), address
