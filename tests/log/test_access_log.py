from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from trio_lua.errors import ConfigError
from trio_lua.log.access_log import (
    COMBINED,
    AccessLog,
    escape_default,
    escape_json,
    escape_none,
    escaper,
)
from trio_lua.log.files import LogFiles


def test_escape_default() -> None:
    assert escape_default(b"GET /a?b=1 HTTP/1.1") == b"GET /a?b=1 HTTP/1.1"
    assert escape_default(b'a"b\\c\n\x7f\xe9~ ') == b"a\\x22b\\x5Cc\\x0A\\x7F\\xE9~ "
    assert escape_default(None) == b"-"
    assert escape_default(b"") == b""


def test_escape_json() -> None:
    value = bytes(range(0x80))
    assert json.loads(b'"' + escape_json(value) + b'"') == value.decode()
    assert escape_json(b"\x1f\x00") == b"\\u001F\\u0000"
    assert escape_json(b"\x7f\xff") == b"\x7f\xff"
    assert escape_json(None) == b""


def test_escape_none() -> None:
    assert escape_none(b'"\x00') == b'"\x00'
    assert escape_none(None) == b""


def test_escaper() -> None:
    assert escaper("json") is escape_json
    with pytest.raises(ConfigError, match='unknown log format escaping "x"'):
        escaper("x")


def test_combined_names_the_usual_fields() -> None:
    assert COMBINED.startswith("$remote_addr - $remote_user [$time_local] ")
    assert COMBINED.endswith('"$http_referer" "$http_user_agent"')


def test_write_and_reopen(tmp_path: Path) -> None:
    log = AccessLog("a.log", prefix=str(tmp_path))
    log.write(b"one")
    (tmp_path / "a.log").rename(tmp_path / "a.log.1")
    log.reopen()
    log.write(b"two")
    log.close()
    log.write(b"dropped")
    assert (tmp_path / "a.log.1").read_bytes() == b"one\n"
    assert (tmp_path / "a.log").read_bytes() == b"two\n"


def test_shared_files(tmp_path: Path) -> None:
    files = LogFiles()
    log = AccessLog("a.log", prefix=str(tmp_path), files=files)
    log.close()
    log.write(b"x")
    files.close()
    assert (tmp_path / "a.log").read_bytes() == b"x\n"


def test_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("/dev/stdout")
    log.write(b"line")
    log.close()
    os.write(1, b"the stream is still open\n")
    assert capfd.readouterr().out == "line\nthe stream is still open\n"


def test_write_once(tmp_path: Path) -> None:
    files = LogFiles()
    files.write_once(str(tmp_path / "host.log"), b"x\n")
    files.write_once(str(tmp_path / "host.log"), b"y\n")
    assert (tmp_path / "host.log").read_bytes() == b"x\ny\n"
    with pytest.raises(FileNotFoundError):
        files.write_once(str(tmp_path / "no" / "host.log"), b"x\n")


def test_syslog() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        log = AccessLog(f"syslog:server=127.0.0.1:{server.getsockname()[1]}")
        log.write(b"GET /")
        log.reopen()
        log.close()
        assert server.recv(1000).endswith(b" nginx: GET /")


def test_disk_full_is_silent(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    log = AccessLog("/dev/full")
    log.write(b"x")
    log.write(b"left alone for a second")
    log.close()
