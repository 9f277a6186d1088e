"""Lines that go to syslog servers."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from trio_lua.errors import ConfigError
from trio_lua.log.error_log import ErrorLog
from trio_lua.log.syslog import Syslog


def test_form_and_parameters() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = f"server=127.0.0.1:{server.getsockname()[1]}"
        for target, pattern in (
            (address, rb"<190>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ nginx: line"),
            (
                f"{address},facility=local1,severity=warn,tag=me,nohostname",
                rb"<140>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d me: line",
            ),
        ):
            log = Syslog(target)
            log.write(b"line")
            log.close()
            assert re.fullmatch(pattern, server.recv(1000))


def test_errors_have_their_own_severity() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        log = ErrorLog(f"syslog:server=127.0.0.1:{server.getsockname()[1]}", "warn")
        log.log(4, b"bad", 7)
        log.log(7, b"not told")
        log.log(5, b"odd")
        log.take_stderr()
        log.reopen()
        log.close()
        assert re.fullmatch(rb"<187>.* nginx: .* \[error\] \d+#\d+: \*7 bad", server.recv(1000))
        assert server.recv(1000).startswith(b"<188>")


def test_there_is_a_file_as_well(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    log = ErrorLog.open([("syslog:server=127.0.0.1:9", "info")], default=str(path))
    log.log(4, b"bad")
    log.log(5, b"odd")
    log.close()
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["bad"]


def test_server_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Syslog(f"server=unix:{path}")
    log.write(b"nobody hears that")
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(path))
            log.write(b"hello")
            assert server.recv(1000).endswith(b": hello")
        path.unlink()
    log.write(b"nor that")
    log.close()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", 'unknown syslog parameter ""'),
        ("tag=x", "no syslog server specified"),
        ("server=a b", 'host not found in syslog server "a b"'),
        ("server=127.0.0.1:x", "host not found"),
        ("server=127.0.0.1,server=127.0.0.1", 'duplicate syslog "server"'),
        ("server=127.0.0.1,facility=x", 'unknown syslog facility "x"'),
        ("server=127.0.0.1,severity=x", 'unknown syslog severity "x"'),
        ("server=127.0.0.1,tag=a-b", "only allows alphanumeric"),
        (f"server=127.0.0.1,tag={'x' * 33}", "length exceeds 32"),
        ("server=127.0.0.1,loud", 'unknown syslog parameter "loud"'),
    ],
)
def test_malformed(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Syslog(target)
