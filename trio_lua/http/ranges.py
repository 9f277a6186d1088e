"""Byte ranges as nginx's range filter serves them.

Only the plan is made here: which bytes, and what is written around them. Bodies may be files of any size,
so whoever sends them cuts them up by the plan.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from trio_lua.http.dates import parse_http_date

__all__ = ["NotSatisfiable", "Part", "Plan", "plan_ranges"]

_MAX = 2**63 - 1

_one_range = re.compile(rb" *(?:(\d+) *- *(\d*)|-(\d+)) *(,|\Z)")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a multipart response.

    Attributes:
        head: What is written before the piece.
        start: Offset of the first byte.
        stop: Offset behind the last byte.
    """

    head: bytes
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A 206 response.

    Attributes:
        parts: In the order of the request; one with an empty head for a single range.
        content_length: Length of the whole body.
        content_range: The Content-Range header of a single range, otherwise None.
        content_type: The multipart type that replaces the response's own, otherwise None.
        tail: What is written behind the last part.
    """

    parts: tuple[Part, ...]
    content_length: int
    content_range: bytes | None
    content_type: bytes | None
    tail: bytes


@dataclass(frozen=True, slots=True)
class NotSatisfiable:
    """The answer is 416, with this Content-Range header."""

    content_range: bytes


class _Unsatisfiable(Exception):
    pass


# nginx numbers its boundaries like this, too.
_boundaries = itertools.count(1)


def plan_ranges(
    header: bytes | None,
    length: int,
    *,
    if_range: bytes | None = None,
    etag: bytes | None = None,
    last_modified: int | None = None,
    content_type: bytes = b"",
    max_ranges: int | None = None,
) -> Plan | NotSatisfiable | None:
    """Decide how a 200 response of ``length`` bytes answers a Range header.

    Args:
        header: The Range header.
        if_range: The If-Range header: ranges are served only if it names ``etag`` or ``last_modified``.
        content_type: The Content-Type as it would be sent, with charset; repeated in each part.
        max_ranges: More ranges than this are ignored; None for no limit. (With 0, nginx does not say
            ``Accept-Ranges`` either; that is up to the caller.)

    Returns:
        The plan of a 206 response, a 416, or None for the whole body with status 200.
    """
    if header is None or max_ranges == 0 or len(header) < 7 or header[:6].lower() != b"bytes=":
        return None
    if if_range is not None and not _unchanged(if_range, etag, last_modified):
        return None
    try:
        ranges = _parse(header, length, max_ranges)
    except _Unsatisfiable:
        return NotSatisfiable(b"bytes */%d" % length)
    if ranges is None:
        return None
    if len(ranges) == 1:
        start, stop = ranges[0]
        return Plan(
            (Part(b"", start, stop),),
            stop - start,
            b"bytes %d-%d/%d" % (start, stop - 1, length),
            None,
            b"",
        )
    boundary = b"%020d" % next(_boundaries)
    lead = b"\r\n--" + boundary + b"\r\n"
    if content_type:
        lead += b"Content-Type: " + content_type + b"\r\n"
    lead += b"Content-Range: bytes "
    parts = tuple(
        Part(lead + b"%d-%d/%d\r\n\r\n" % (start, stop - 1, length), start, stop)
        for start, stop in ranges
    )
    tail = b"\r\n--" + boundary + b"--\r\n"
    total = sum(len(part.head) + part.stop - part.start for part in parts) + len(tail)
    return Plan(parts, total, None, b"multipart/byteranges; boundary=" + boundary, tail)


def _unchanged(if_range: bytes, etag: bytes | None, last_modified: int | None) -> bool:
    if len(if_range) >= 2 and if_range.endswith(b'"'):
        return etag is not None and if_range == etag
    return last_modified is not None and parse_http_date(if_range) == last_modified


def _parse(header: bytes, length: int, limit: int | None) -> list[tuple[int, int]] | None:
    ranges: list[tuple[int, int]] = []
    size = 0
    at = 6
    while True:
        match = _one_range.match(header, at)
        if match is None:
            raise _Unsatisfiable
        first, last, suffix, separator = match.groups()
        if max(int(first or 0), int(last or 0), int(suffix or 0)) > _MAX:
            raise _Unsatisfiable
        if suffix is not None:
            start, stop = max(length - int(suffix), 0), length
        else:
            start = int(first)
            stop = min(int(last) + 1, length) if last else length
        if start < stop:
            ranges.append((start, stop))
            size += stop - start
            if size > _MAX:
                raise _Unsatisfiable
            if limit is not None and len(ranges) > limit:
                return None
        elif start == 0:
            return None
        if separator != b",":
            break
        at = match.end()
    if not ranges:
        raise _Unsatisfiable
    # Overlaps that add up to more than the whole are a way to make a server send much for little.
    return None if size > length else ranges
