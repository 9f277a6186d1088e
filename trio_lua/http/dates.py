"""HTTP dates as nginx writes and reads them.

Reading is as forgiving as nginx's: week days are not looked at, months are told apart by the letters that
matter, and what follows the time of day is ignored.
"""

from __future__ import annotations

import calendar
import re
import time
from datetime import date

__all__ = ["format_http_date", "parse_http_date"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def format_http_date(seconds: float) -> bytes:
    """``Sun, 06 Nov 1994 08:49:37 GMT``."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:4d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    ).encode("ascii")


_clock = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_after_comma = re.compile(
    rb"(?P<day>\d\d)(?: (?P<month>...) (?P<year>\d{4})|-(?P<month2>...)-(?P<year2>\d\d)) " + _clock,
    re.S,
)
_asctime = re.compile(rb"(?P<month>...). ?(?P<day>\d\d?) " + _clock + rb" (?P<year>\d{4})", re.S)
_start = re.compile(rb"[^, ]*([, ]) *")


def _month(name: bytes) -> int:
    """The month's number from 1, or 0; like nginx by the letters that tell them apart."""
    first = name[:1]
    if first == b"J":
        return 1 if name[1:2] == b"a" else 6 if name[2:] == b"n" else 7
    if first == b"M":
        return 3 if name[2:] == b"r" else 5
    if first == b"A":
        return 4 if name[1:2] == b"p" else 8
    return {b"F": 2, b"S": 9, b"O": 10, b"N": 11, b"D": 12}.get(first, 0)


def parse_http_date(value: bytes) -> int | None:
    """Seconds since the epoch for any of HTTP's three date formats; None when it is none of them."""
    start = _start.match(value)
    if start is None:
        return None
    pattern = _after_comma if start.group(1) == b"," else _asctime
    match = pattern.match(value, start.end())
    if match is None:
        return None
    found = match.groupdict()
    month = _month(found["month"] or found["month2"])
    day, hour, minute, second = (int(found[n]) for n in ("day", "hour", "minute", "second"))
    if found["year"]:
        year = int(found["year"])
    else:
        year = int(found["year2"])
        year += 2000 if year < 70 else 1900
    if not month or not year or hour > 23 or minute > 59 or second > 59:
        return None
    leap_day = day == 29 and month == 2
    if not calendar.isleap(year) if leap_day else day > _MONTH_DAYS[month - 1]:
        return None
    # Day 0 is the last of the month before, as in nginx.
    days = date(year, month, 1).toordinal() + day - 1 - date(1970, 1, 1).toordinal()
    return ((days * 24 + hour) * 60 + minute) * 60 + second
