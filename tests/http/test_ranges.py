"""Byte ranges; expected results were read off nginx 1.22.1 serving a file of 26 bytes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.http.ranges import NotSatisfiable, Plan, plan_ranges

SIZE = 26
WHOLE = None
REFUSED = NotSatisfiable(b"bytes */26")


def spans(result: Plan | NotSatisfiable | None) -> list[tuple[int, int]] | NotSatisfiable | None:
    if isinstance(result, Plan):
        return [(part.start, part.stop) for part in result.parts]
    return result


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"bytes=0-0", [(0, 1)]),
        (b"bytes=0-", [(0, 26)]),
        (b"bytes=-1", [(25, 26)]),
        (b"bytes=-30", [(0, 26)]),
        (b"bytes=25-100", [(25, 26)]),
        (b"bytes=0-9223372036854775807", [(0, 26)]),
        (b"BYTES= 00 - 01", [(0, 2)]),
        (b"bytes=0-1,3-4", [(0, 2), (3, 5)]),
        (b"bytes=0-1, 3 - 4 ,-2", [(0, 2), (3, 5), (24, 26)]),
        (b"bytes=5-3,0-1", [(0, 2)]),
        (b"bytes=0-1,5-3", [(0, 2)]),
        (b"bytes=-0", REFUSED),
        (b"bytes=5-3", REFUSED),
        (b"bytes=26-", REFUSED),
        (b"bytes=30-,40-", REFUSED),
        (b"bytes=0-1,", REFUSED),
        (b"bytes=,0-1", REFUSED),
        (b"bytes=0-x", REFUSED),
        (b"bytes=- 1", REFUSED),
        (b"bytes=--1", REFUSED),
        (b"bytes=1-2-3", REFUSED),
        (b"bytes=\t0-1", REFUSED),
        (b"bytes=0-1 ;", REFUSED),
        (b"bytes=9223372036854775808-", REFUSED),
        (b"bytes=0-99999999999999999999", REFUSED),
        (b"bytes=0-25,0-1", WHOLE),
        (b"bytes=0-20,0-20", WHOLE),
        (b"bytes=", WHOLE),
        (b"bytes =0-1", WHOLE),
        (b"byte=0-1", WHOLE),
        (None, WHOLE),
    ],
)
def test_parsing(
    header: bytes | None, expected: list[tuple[int, int]] | NotSatisfiable | None
) -> None:
    assert spans(plan_ranges(header, SIZE)) == expected


def test_max_ranges() -> None:
    assert plan_ranges(b"bytes=0-1", SIZE, max_ranges=0) is None
    assert plan_ranges(b"bytes=0-1,3-4", SIZE, max_ranges=1) is None
    assert spans(plan_ranges(b"bytes=0-1,3-4", SIZE, max_ranges=2)) == [(0, 2), (3, 5)]


def test_an_empty_file_is_sent_whole() -> None:
    assert plan_ranges(b"bytes=0-", 0) is None
    assert plan_ranges(b"bytes=-5", 0) is None
    assert plan_ranges(b"bytes=5-", 0) == NotSatisfiable(b"bytes */0")


def test_single_range() -> None:
    plan = plan_ranges(b"bytes=5-9", SIZE, content_type=b"text/plain")
    assert isinstance(plan, Plan)
    assert plan.content_range == b"bytes 5-9/26"
    assert plan.content_type is None
    assert plan.content_length == 5
    assert (plan.parts[0].head, plan.tail) == (b"", b"")


def test_multipart() -> None:
    plan = plan_ranges(b"bytes=0-1,24-", SIZE, content_type=b"text/html; charset=utf-8")
    assert isinstance(plan, Plan)
    assert plan.content_range is None
    assert plan.content_type is not None
    match = re.fullmatch(rb"multipart/byteranges; boundary=(\d{20})", plan.content_type)
    assert match is not None
    boundary = match.group(1)
    text = b"abcdefghijklmnopqrstuvwxyz"
    body = b"".join(part.head + text[part.start : part.stop] for part in plan.parts) + plan.tail
    assert body == (
        b"\r\n--" + boundary + b"\r\n"
        b"Content-Type: text/html; charset=utf-8\r\n"
        b"Content-Range: bytes 0-1/26\r\n\r\nab"
        b"\r\n--" + boundary + b"\r\n"
        b"Content-Type: text/html; charset=utf-8\r\n"
        b"Content-Range: bytes 24-25/26\r\n\r\nyz"
        b"\r\n--" + boundary + b"--\r\n"
    )
    assert plan.content_length == len(body)
    other = plan_ranges(b"bytes=0-1,24-", SIZE)
    assert isinstance(other, Plan)
    assert other.content_type != plan.content_type
    assert b"Content-Type" not in other.parts[0].head


@pytest.mark.parametrize(
    ("if_range", "served"),
    [
        (b'"5e0d5da5-1a"', True),
        (b"Thu, 02 Jan 2020 03:04:05 GMT", True),
        (b"Thu Jan  2 03:04:05 2020", True),
        (b'W/"5e0d5da5-1a"', False),
        (b'"x"', False),
        (b'"', False),
        (b"x", False),
        (b"Thu, 02 Jan 2020 03:04:06 GMT", False),
    ],
)
def test_if_range(if_range: bytes, served: bool) -> None:
    plan = plan_ranges(
        b"bytes=1-2",
        SIZE,
        if_range=if_range,
        etag=b'"5e0d5da5-1a"',
        last_modified=1577934245,
    )
    assert (plan is not None) is served
    assert plan_ranges(b"bytes=1-2", SIZE, if_range=if_range) is None


@given(st.text("0123456789-, ", max_size=20), st.integers(0, 50))
def test_parts_lie_in_the_body_and_do_not_exceed_it(text: str, length: int) -> None:
    plan = plan_ranges(b"bytes=" + text.encode(), length)
    if isinstance(plan, Plan):
        assert all(0 <= part.start < part.stop <= length for part in plan.parts)
        assert sum(part.stop - part.start for part in plan.parts) <= length
