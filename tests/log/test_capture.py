"""Captured lines of the error log."""

from __future__ import annotations

import re

from serving import MemoryLog

from trio_lua.log.capture import LogBuffer
from trio_lua.log.tee import TeeLog


def test_lines_are_kept_and_written() -> None:
    buffer, log = LogBuffer(4096, lambda: 1700000000.25), MemoryLog()
    log.level = 6
    captured = TeeLog(log, buffer.add)
    captured.log(4, b"first", 7)
    captured.log(7, b"not written")
    buffer.level = 3
    captured.log(4, b"only written")
    captured.log(3, b"second")
    assert [text for _, text in log.lines] == ["first", "not written", "only written", "second"]
    level, time, line = buffer.take() or (0, 0, b"")
    assert (level, time) == (4, 1700000000.25)
    assert re.fullmatch(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[error\] \d+#\d+: \*7 first", line)
    entry = buffer.take()
    assert entry is not None
    assert entry[2].endswith(b": second")
    assert buffer.take() is None


def test_new_lines_push_out_old_ones() -> None:
    buffer = LogBuffer(4096, lambda: 0.0)
    for number in range(100):
        buffer.add(4, b"line %d " % number + b"x" * 500, 0)
    lines = []
    while entry := buffer.take():
        lines.append(entry[2])
    assert len(lines) == 7
    assert b": line 99 " in lines[-1]
    buffer.add(4, b"y" * 10000, 0)
    entry = buffer.take()
    assert entry is not None
    assert len(entry[2]) == 4096 - 16


def test_a_line_lies_in_one_piece() -> None:
    buffer = LogBuffer(4200, lambda: 0.0)
    for number in range(4):
        buffer.add(4, b"short %d" % number, 0)
    # does not fit behind the short ones, and takes their place
    buffer.add(4, b"x" * 4900, 0)
    buffer.add(4, b"last", 0)
    lines = []
    while entry := buffer.take():
        lines.append(entry[2].rpartition(b" ")[2])
    assert [line[-4:] for line in lines] == [b"xxxx", b"last"]
