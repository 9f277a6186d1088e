"""Request targets: expected values were read off nginx 1.22.1 where they are not obvious."""

from __future__ import annotations

import contextlib
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.errors import ProtocolError
from trio_lua.http.uri import (
    Escape,
    escape,
    normalize,
    parse_unsafe,
    split_target,
    unescape,
)


@pytest.mark.parametrize(
    ("target", "unparsed", "path", "args", "host"),
    [
        (b"/", b"/", b"/", None, None),
        (b"/a?b=c", b"/a?b=c", b"/a", b"b=c", None),
        (b"/a?", b"/a?", b"/a", None, None),
        (b"/a?b?c", b"/a?b?c", b"/a", b"b?c", None),
        (b"/a#b?c", b"/a#b?c", b"/a", None, None),
        (b"/a?b#c", b"/a?b#c", b"/a", b"b", None),
        (b"http://b.com/x?y", b"/x?y", b"/x", b"y", b"b.com"),
        (b"HTTP://B.com:80/x", b"/x", b"/x", None, b"B.com"),
        (b"http://b.com", b"/", b"/", None, b"b.com"),
        (b"http://b.com?x", b"?x", b"/", b"x", b"b.com"),
        (b"x+y-z.1://[::1]:8/", b"/", b"/", None, b"[::1]"),
        (b"http:///x", b"/x", b"/x", None, b""),
    ],
)
def test_split(
    target: bytes, unparsed: bytes, path: bytes, args: bytes | None, host: bytes | None
) -> None:
    found = split_target(target)
    assert (found.unparsed, found.path, found.args, found.host) == (unparsed, path, args, host)


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"a",
        b"a/b",
        b"example.com:80",
        b"http:/x",
        b"http://b:8x/",
        b"http://b_c/",
        b"http://u@b/",
        b"http://b#x",
        b"1http://b/",
        b"http://[::1/",
    ],
)
def test_split_refuses(target: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        split_target(target)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", b"/"),
        (b"/a.b/c..d/.e", b"/a.b/c..d/.e"),
        (b"/a//b///", b"/a/b/"),
        (b"/./a/./b/.", b"/a/b/"),
        (b"/a/../b", b"/b"),
        (b"/a/b/..", b"/a/"),
        (b"/a/..", b"/"),
        (b"/...", b"/..."),
        (b"/..a/.a.", b"/..a/.a."),
        (b"/%41%2fb", b"/A/b"),
        (b"/a/%2e%2E/b", b"/b"),
        (b"/a%2f%2fb", b"/a/b"),
        (b"/%3fa%23%25", b"/?a#%"),
        (b"/%2541", b"/%41"),
        (b"/a+b%2bc", b"/a+b+c"),
        (b"/%e4%0a", b"/\xe4\n"),
        (b"/.%25", b"/.%"),
    ],
)
def test_normalize(path: bytes, expected: bytes) -> None:
    assert normalize(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"/a//b", b"/a//b"), (b"//", b"//"), (b"//..", b"/"), (b"/a//../b", b"/a/b")],
)
def test_normalize_keeps_empty_segments(path: bytes, expected: bytes) -> None:
    assert normalize(path, merge_slashes=False) == expected


@pytest.mark.parametrize(
    "path",
    [
        b"/..",
        b"/../",
        b"/a/../..",
        b"/%2e%2e",
        b"//..",
        b"/./..",
        b"/%00",
        b"/a%",
        b"/a%4",
        b"/%zz",
        b"/%4g",
        b"/a%%41",
    ],
)
def test_normalize_refuses(path: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        normalize(path)
    assert caught.value.status == 400


segments = st.sampled_from(
    [b"/", b"//", b".", b"..", b"a", b"b", b"%2e", b"%2F", b"%41", b"%25", b"%3f", b"%23", b"+"]
)
paths = st.lists(segments, max_size=10).map(lambda parts: b"/" + b"".join(parts))


@given(paths, st.booleans())
def test_normalized_paths_stay_below_the_root(path: bytes, merge: bool) -> None:
    try:
        result = normalize(path, merge)
    except ProtocolError:
        return
    parts = result.split(b"/")
    assert parts[0] == b""
    assert b"." not in parts
    assert b".." not in parts
    if merge:
        assert b"" not in parts[1:-1]
    # Without escapes left to decode, a second reading changes nothing.
    if b"%" not in result:
        assert normalize(result, merge) == result


@given(paths)
def test_climbing_is_what_is_refused(path: bytes) -> None:
    depth = lowest = 0
    for segment in unquote_to_bytes(path).split(b"/")[1:]:
        depth += {b"..": -1, b".": 0, b"": 0}.get(segment, 1)
        lowest = min(lowest, depth)
    try:
        normalize(path)
    except ProtocolError:
        assert lowest < 0
    else:
        assert lowest >= 0


@given(st.binary(max_size=30))
def test_split_and_normalize_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        normalize(split_target(data).path)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (b"/a?b", (b"/a", b"b")),
        (b"/a", (b"/a", None)),
        (b"/a?", (b"/a", b"")),
        (b"/%41", (b"/A", None)),
        (b"a..b/..c", (b"a..b/..c", None)),
        (b"/a/..?x", (b"/a/..", b"x")),
        (b"/%zz%4", (b"/zz", None)),
        (b"/a?../..", (b"/a", b"../..")),
        (b"", None),
        (b"?a", None),
        (b"..", None),
        (b"../a", None),
        (b"/..", None),
        (b"/a/../b?c", None),
        (b"/%2e%2e/a", None),
        (b"/%2e%2e?a", None),
        (b"/a\0", None),
        (b"/a%00b", None),
    ],
)
def test_parse_unsafe(uri: bytes, expected: tuple[bytes, bytes | None] | None) -> None:
    assert parse_unsafe(uri) == expected


@given(st.binary(max_size=40))
def test_parse_unsafe_result_never_climbs(uri: bytes) -> None:
    found = parse_unsafe(uri)
    if found is not None and found[1] is None:
        assert b".." not in found[0].split(b"/")
        assert b"\0" not in found[0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"%41%zz%1z%", b"Azz"), (b"%%41", b"%41"), (b"a%4", b"a"), (b"+%2B", b"++")],
)
def test_unescape(data: bytes, expected: bytes) -> None:
    assert unescape(data) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Escape.URI, b"a/%20%23%25%3F&+;=:%22'%7B%E4~"),
        (Escape.ARGS, b"a/%20%23%25%3F%26%2B%3B=:%22'%7B%E4~"),
        (Escape.URI_COMPONENT, b"a%2F%20%23%25%3F%26%2B%3B%3D%3A%22%27%7B%E4~"),
        (Escape.HTML, b"a/%20%23%25?&+;=:%22%27%7B%E4~"),
        (Escape.REFRESH, b"a/%20#%?&+;=:%22%27%7B%E4%7E"),
        (Escape.MEMCACHED, b"a/%20#%25?&+;=:\"'{\xe4~"),
    ],
)
def test_escape(kind: Escape, expected: bytes) -> None:
    assert escape(b"a/ #%?&+;=:\"'{\xe4~", kind) == expected


@given(st.binary(), st.sampled_from([Escape.URI, Escape.ARGS, Escape.URI_COMPONENT]))
def test_escape_can_be_undone(data: bytes, kind: Escape) -> None:
    assert unescape(escape(data, kind)) == data
