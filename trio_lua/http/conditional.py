"""Conditional requests as nginx's not-modified filter decides them.

The order is nginx's, not that of RFC 9110: both preconditions are tested before anything else, and with
``If-Modified-Since`` and ``If-None-Match`` both present, both must say "not modified".
"""

from __future__ import annotations

from dataclasses import dataclass

from trio_lua.http.dates import parse_http_date

__all__ = ["Conditions", "evaluate", "file_etag", "matches"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditional headers of a request; None where absent."""

    if_match: bytes | None = None
    if_none_match: bytes | None = None
    if_modified_since: bytes | None = None
    if_unmodified_since: bytes | None = None


def file_etag(mtime: int, size: int) -> bytes:
    """The ETag nginx gives a file."""
    return b'"%x-%x"' % (mtime, size)


def matches(header: bytes, etag: bytes | None, *, weak: bool) -> bool:
    """Whether a list of entity tags names ``etag``; ``*`` names everything.

    Args:
        weak: Compare weakly: ``W/`` does not count on either side.
    """
    if header == b"*":
        return True
    if etag is None:
        return False
    if weak and len(etag) > 2 and etag.startswith(b"W/"):
        etag = etag[2:]
    at = 0
    end = len(header)
    while at < end:
        if weak and end - at > 2 and header.startswith(b"W/", at):
            at += 2
        if header.startswith(etag, at):
            at += len(etag)
            while at < end and header[at] in b" \t":
                at += 1
            if at == end or header[at] == 0x2C:
                return True
        # A comma inside a tag ends it here, too: that is how nginx walks the list.
        comma = header.find(b",", at)
        if comma < 0:
            return False
        at = comma
        while at < end and header[at] in b" \t,":
            at += 1
    return False


def evaluate(
    conditions: Conditions,
    *,
    last_modified: int | None,
    etag: bytes | None,
    if_modified_since: str = "exact",
) -> int:
    """What becomes of a 200 response: 200, 304 or 412.

    Args:
        last_modified: The response's Last-Modified time, None when it has none.
        if_modified_since: The directive's value: ``off``, ``exact`` or ``before``.
    """
    since = conditions.if_unmodified_since
    if since is not None:
        limit = parse_http_date(since)
        # A date that cannot be read counts as the second before 1970.
        if last_modified is None or (-1 if limit is None else limit) < last_modified:
            return 412
    if conditions.if_match is not None and not matches(conditions.if_match, etag, weak=False):
        return 412
    if conditions.if_modified_since is None and conditions.if_none_match is None:
        return 200
    if conditions.if_modified_since is not None and _modified(
        conditions.if_modified_since, last_modified, if_modified_since
    ):
        return 200
    if conditions.if_none_match is not None and not matches(
        conditions.if_none_match, etag, weak=True
    ):
        return 200
    return 304


def _modified(since: bytes, last_modified: int | None, mode: str) -> bool:
    if last_modified is None or mode == "off":
        return True
    seconds = parse_http_date(since)
    limit = -1 if seconds is None else seconds
    if limit == last_modified:
        return False
    return mode == "exact" or limit < last_modified
