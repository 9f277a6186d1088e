from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path
from threading import Thread, get_native_id

import pytest

from trio_lua.errors import ConfigError
from trio_lua.log.error_log import (
    CRIT,
    DEBUG,
    EMERG,
    ERROR,
    INFO,
    LEVELS,
    NOTICE,
    WARN,
    ErrorLog,
    Log,
    LoggingErrorLog,
    NullErrorLog,
)
from trio_lua.log.files import LogFiles

NOON = time.mktime((2026, 11, 21, 12, 3, 4, 0, 0, -1))


def head(level: str, stamp: str = "2026/11/21 12:03:04") -> str:
    return f"{stamp} [{level}] {os.getpid()}#{get_native_id()}: "


def test_line_format(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    log = ErrorLog(str(path), "info", clock=lambda: NOON)
    log.log(ERROR, b"plain")
    log.log(INFO, b"with connection", 17)
    log.log(0, b"level of ngx.STDERR")
    log.close()
    assert path.read_text() == (
        f"{head('error')}plain\n{head('info')}*17 with connection\n{head('')}level of ngx.STDERR\n"
    )


def test_level_numbers_are_those_of_nginx() -> None:
    assert LEVELS == {
        "emerg": 1,
        "alert": 2,
        "crit": 3,
        "error": 4,
        "warn": 5,
        "notice": 6,
        "info": 7,
        "debug": 8,
    }
    assert (EMERG, CRIT, ERROR, WARN, NOTICE, INFO, DEBUG) == (1, 3, 4, 5, 6, 7, 8)


def test_level_filter(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    log = ErrorLog(str(path), "warn", clock=lambda: NOON)
    assert log.level == WARN
    log.log(NOTICE, b"no")
    log.log(WARN, b"yes")
    log.close()
    assert path.read_text() == f"{head('warn')}yes\n"


def test_head_follows_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    now = NOON
    log = ErrorLog(str(path), clock=lambda: now)
    log.log(ERROR, b"a")
    now += 1.5
    log.log(ERROR, b"b")
    log.close()
    assert path.read_text() == (f"{head('error')}a\n{head('error', '2026/11/21 12:03:05')}b\n")


def test_threads_have_their_own_ids(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    log = ErrorLog(str(path), "info", clock=lambda: NOON)
    ids = [get_native_id()]

    def from_thread() -> None:
        ids.append(get_native_id())
        log.log(ERROR, b"there")

    log.log(ERROR, b"here")
    thread = Thread(target=from_thread)
    thread.start()
    thread.join()
    log.log(ERROR, b"here")
    log.close()
    assert [line.partition("#")[2] for line in path.read_text().splitlines()] == [
        f"{ids[0]}: here",
        f"{ids[1]}: there",
        f"{ids[0]}: here",
    ]


@pytest.mark.parametrize(("size", "cut"), [(1900, False), (2000, True), (70000, True)])
def test_long_lines_are_cut_to_2048_bytes(tmp_path: Path, size: int, cut: bool) -> None:
    path = tmp_path / "error.log"
    log = ErrorLog(str(path), clock=lambda: 1.0e9)
    log.log(ERROR, b"x" * size, 123456789)
    log.close()
    data = path.read_bytes()
    assert data.endswith(b"x\n")
    assert (len(data) == 2048) is cut


def test_messages_are_bytes_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    log = ErrorLog(str(path), clock=lambda: NOON)
    log.log(ERROR, b"a\0b\xff\nc")
    log.close()
    assert path.read_bytes() == head("error").encode() + b"a\0b\xff\nc\n"


def test_several_sinks_each_with_its_level(tmp_path: Path) -> None:
    log = ErrorLog.open(
        [("some.log", "crit"), ("all.log", "debug")], default="d.log", prefix=f"{tmp_path}/"
    )
    assert log.level == DEBUG
    log.log(DEBUG, b"one")
    log.log(CRIT, b"two")
    log.close()
    assert [line.split()[-1] for line in (tmp_path / "all.log").read_text().splitlines()] == [
        "one",
        "two",
    ]
    assert (tmp_path / "some.log").read_text().endswith("two\n")
    assert "one" not in (tmp_path / "some.log").read_text()
    assert not (tmp_path / "d.log").exists()


def test_default_when_no_directive(tmp_path: Path) -> None:
    log = ErrorLog.open([], default="d.log", prefix=str(tmp_path))
    log.log(ERROR, b"x")
    log.log(WARN, b"y")
    log.close()
    assert (tmp_path / "d.log").read_text().splitlines()[0].endswith(": x")
    assert len((tmp_path / "d.log").read_text().splitlines()) == 1


def test_reopen_follows_the_name(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    log = ErrorLog(str(path))
    log.log(ERROR, b"before")
    path.rename(tmp_path / "error.log.1")
    log.log(ERROR, b"still the old one")
    log.reopen()
    log.log(ERROR, b"after")
    log.close()
    assert len((tmp_path / "error.log.1").read_text().splitlines()) == 2
    assert path.read_text().endswith("after\n")
    assert len(path.read_text().splitlines()) == 1


def test_failed_reopen_keeps_the_file_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = ErrorLog(str(folder / "error.log"))
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.log(ERROR, b"still here")
    log.close()
    first, second = (tmp_path / "moved" / "error.log").read_text().splitlines()
    assert first.endswith(f'open() "{folder}/error.log" failed (2: No such file or directory)')
    assert "[emerg]" in first
    assert second.endswith("still here")


def test_logs_share_one_descriptor_per_path(tmp_path: Path) -> None:
    files = LogFiles()
    one = ErrorLog("e.log", prefix=str(tmp_path), files=files)
    two = ErrorLog("e.log", "debug", prefix=str(tmp_path), files=files)
    assert files.open(str(tmp_path / "e.log")).fd == files.open(str(tmp_path / "e.log")).fd
    one.close()
    two.log(DEBUG, b"open until the set is closed")
    files.close()
    two.log(DEBUG, b"dropped")
    assert len((tmp_path / "e.log").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("path", "level", "message"),
    [
        ("syslog:tag=x", "error", "no syslog server specified"),
        ("memory:32m", "error", '"error_log" to "memory:" is not supported'),
        ("memory:32m", "debug", '"error_log" to "memory:" is not supported'),
        ("x.log", "loud", 'invalid log level "loud"'),
        ("no/such/x.log", "error", r"failed \(2: No such file or directory\)"),
    ],
)
def test_refused(tmp_path: Path, path: str, level: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ErrorLog(path, level, prefix=str(tmp_path))


def test_stderr_sink(capfd: pytest.CaptureFixture[str]) -> None:
    log = ErrorLog("stderr", "info", prefix="/nowhere", clock=lambda: NOON, console=b"nginx: ")
    log.log(ERROR, b"once")
    log.reopen()
    log.close()
    assert capfd.readouterr().err == f"{head('error')}once\n"


def test_console_copy_of_serious_messages(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = ErrorLog(str(tmp_path / "e.log"), "info", console=b"nginx: ")
    log.log(EMERG, b"bad")
    log.log(NOTICE, b"not shown")
    log.console = None
    log.log(EMERG, b"not shown either")
    log.close()
    assert capfd.readouterr().err == "nginx: [emerg] bad\n"
    assert len((tmp_path / "e.log").read_text().splitlines()) == 3


def test_error_stream_goes_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "e.log"
    log = ErrorLog(str(path))
    kept = os.dup(2)
    try:
        log.take_stderr()
        os.write(2, b"one\n")
        path.rename(tmp_path / "e.log.1")
        log.reopen()
        os.write(2, b"two\n")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        log.close()
    assert (tmp_path / "e.log.1").read_text() == "one\n"
    assert path.read_text() == "two\n"


def test_error_stream_stays_when_it_is_a_sink() -> None:
    before = os.fstat(2)
    ErrorLog("stderr").take_stderr()
    assert os.fstat(2) == before


def test_forwarding_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="trio_lua.error")
    log: Log = LoggingErrorLog()
    assert log.level == INFO
    log.log(CRIT, b"caf\xc3\xa9 \xff", 5)
    log.log(WARN, b"100% sure")
    log.log(DEBUG, b"no")
    log.reopen()
    log.close()
    first, second = caplog.records
    assert first.name == "trio_lua.error"
    assert first.levelno == logging.CRITICAL
    assert first.getMessage() == "caf\xe9 \\xff"
    assert first.nginx_level == "crit"  # type: ignore[attr-defined]
    assert first.connection == 5  # type: ignore[attr-defined]
    assert second.getMessage() == "100% sure"
    assert second.levelno == logging.WARNING


def test_forwarding_level_can_be_set() -> None:
    assert LoggingErrorLog(level="debug").level == DEBUG
    with pytest.raises(ConfigError, match="invalid log level"):
        LoggingErrorLog(level="loud")


def test_null_log() -> None:
    log: Log = NullErrorLog()
    assert log.level < 0
    log.log(EMERG, b"x")
    log.reopen()
    log.close()


def test_forked_process_writes_its_own_pid(tmp_path: Path) -> None:
    path = tmp_path / "e.log"
    log = ErrorLog(str(path))
    log.log(ERROR, b"parent")
    child = os.fork()
    if not child:
        log.log(ERROR, b"child")
        os._exit(0)
    os.waitpid(child, 0)
    log.close()
    pids = re.findall(r"\] (\d+)#(\d+):", path.read_text())
    assert pids == [(str(os.getpid()), str(get_native_id())), (str(child), str(child))]
