"""Conditional requests, as nginx 1.22.1 decides them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.http.conditional import Conditions, evaluate, file_etag, matches

MTIME = 1577934245
ETAG = file_etag(MTIME, 26)
SAME = b"Thu, 02 Jan 2020 03:04:05 GMT"
LATER = b"Thu, 02 Jan 2020 03:04:06 GMT"
EARLIER = b"Thu, 02 Jan 2020 03:04:04 GMT"


def test_etag_of_a_file() -> None:
    assert ETAG == b'"5e0d5da5-1a"'


@pytest.mark.parametrize(
    ("header", "strong", "weak"),
    [
        (b"*", True, True),
        (ETAG, True, True),
        (b"W/" + ETAG, False, True),
        (b'"x", ' + ETAG, True, True),
        (b'"x",W/' + ETAG + b' ,"y"', False, True),
        (ETAG + b'x, "y"', False, False),
        (ETAG + b" x, " + ETAG, True, True),
        (b", " + ETAG, True, True),
        (b'"x"', False, False),
        (b"W/", False, False),
        (b"* ", False, False),
        (b"*, x", False, False),
        (b"", False, False),
    ],
)
def test_matches(header: bytes, strong: bool, weak: bool) -> None:
    assert matches(header, ETAG, weak=False) is strong
    assert matches(header, ETAG, weak=True) is weak
    assert matches(header, None, weak=True) is (header == b"*")


def test_a_weak_tag_of_the_response() -> None:
    assert matches(ETAG, b"W/" + ETAG, weak=True)
    assert not matches(ETAG, b"W/" + ETAG, weak=False)


def status(mode: str = "exact", last_modified: int | None = MTIME, **headers: bytes) -> int:
    return evaluate(
        Conditions(**headers),
        last_modified=last_modified,
        etag=ETAG,
        if_modified_since=mode,
    )


def test_without_conditions() -> None:
    assert status() == 200


@pytest.mark.parametrize(
    ("since", "exact", "before"),
    [(SAME, 304, 304), (LATER, 200, 304), (EARLIER, 200, 200), (b"x", 200, 200)],
)
def test_if_modified_since(since: bytes, exact: int, before: int) -> None:
    assert status("exact", if_modified_since=since) == exact
    assert status("before", if_modified_since=since) == before
    assert status("off", if_modified_since=since) == 200
    assert status("exact", None, if_modified_since=since) == 200


@pytest.mark.parametrize(
    ("since", "expected"), [(SAME, 200), (LATER, 200), (EARLIER, 412), (b"x", 412)]
)
def test_if_unmodified_since(since: bytes, expected: int) -> None:
    assert status(if_unmodified_since=since) == expected
    assert status(last_modified=None, if_unmodified_since=since) == 412


def test_entity_tags() -> None:
    assert status(if_match=ETAG) == 200
    assert status(if_match=b"W/" + ETAG) == 412
    assert status(if_none_match=b"W/" + ETAG) == 304
    assert status(if_none_match=b'"x"') == 200


def test_both_must_say_not_modified() -> None:
    assert status(if_modified_since=SAME, if_none_match=ETAG) == 304
    assert status(if_modified_since=LATER, if_none_match=ETAG) == 200
    assert status(if_modified_since=SAME, if_none_match=b'"x"') == 200
    assert status(if_match=b'"x"', if_none_match=ETAG) == 412


@given(st.text('W/"x, *\t', max_size=12), st.booleans())
def test_any_list_is_walked_to_its_end(text: str, weak: bool) -> None:
    assert matches(text.encode(), b'"x"', weak=weak) in (True, False)
