"""Status lines as they were read off nginx 1.22.1."""

from __future__ import annotations

import pytest

from trio_lua.http.status import status_line, wire_status


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (200, b"HTTP/1.1 200 OK\r\n"),
        (101, b"HTTP/1.1 101 Switching Protocols\r\n"),
        (302, b"HTTP/1.1 302 Moved Temporarily\r\n"),
        (401, b"HTTP/1.1 401 Unauthorized\r\n"),
        (404, b"HTTP/1.1 404 Not Found\r\n"),
        (408, b"HTTP/1.1 408 Request Time-out\r\n"),
        (507, b"HTTP/1.1 507 Insufficient Storage\r\n"),
        (203, b"HTTP/1.1 203 \r\n"),
        (300, b"HTTP/1.1 300 \r\n"),
        (418, b"HTTP/1.1 418 \r\n"),
        (494, b"HTTP/1.1 494 \r\n"),
        (599, b"HTTP/1.1 599 \r\n"),
        (1000, b"HTTP/1.1 1000 \r\n"),
        (99, b"HTTP/1.1 099 \r\n"),
    ],
)
def test_status_line(code: int, line: bytes) -> None:
    assert status_line(code) == line


def test_reasons_of_a_bad_request_are_nginxs_own_affair() -> None:
    assert [wire_status(code) for code in (400, 404, 494, 495, 496, 497, 498)] == [
        400,
        404,
        400,
        400,
        400,
        400,
        498,
    ]
