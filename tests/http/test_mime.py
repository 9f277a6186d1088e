"""The type table and the extension rule."""

from __future__ import annotations

import pytest

from trio_lua.http.mime import DEFAULT_TYPES, extension, lookup


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/a.html", b"html"),
        (b"/a.tar.gz", b"gz"),
        (b"/a.b/c", b""),
        (b"/.html", b""),
        (b"/a/.x.jpg", b"jpg"),
        (b"/a.", b""),
        (b"/", b""),
    ],
)
def test_extension(path: bytes, expected: bytes) -> None:
    assert extension(path) == expected


def test_lookup() -> None:
    assert lookup(b"/a.HTML", None, "text/plain") == "text/html"
    assert lookup(b"/a.css", None, "text/plain") == "text/plain"
    assert lookup(b"/a.css", {"css": "text/css"}, "text/plain") == "text/css"
    assert lookup(b"/a.\xff", {"css": "text/css"}, "text/plain") == "text/plain"
    assert lookup(b"/a.html", {}, "text/plain") == "text/plain"


def test_tables() -> None:
    assert dict(DEFAULT_TYPES) == {"html": "text/html", "gif": "image/gif", "jpg": "image/jpeg"}
