"""The recogniser against h11: what it accepts, h11 accepts, and reads the same.

A few seconds' worth of heads by default; TRIO_LUA_FUZZ_SECONDS=600 goes on for ten minutes. The number of heads
compared is printed.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thoroughness import examples

import trio_lua.http
from trio_lua.errors import ProtocolError
from trio_lua.http.events import Data, End, Head
from trio_lua.http.h11_protocol import H11Request
from trio_lua.http.uri import normalize, split_target
from trio_lua.lua.vm import VM

SECONDS = float(os.environ.get("TRIO_LUA_FUZZ_SECONDS", "0"))
EXAMPLES = examples(1500)
MUTANTS = 6

HTTP_11, KEEP_ALIVE, COMPLEX, HAS_ARGS = 1, 2, 4, 8

METHODS = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"M-SEARCH",
    b"OPTIONS",
    b"get",
    b"G3T",
    b"TRACE",
    b"CONNECT",
]
TARGETS = [
    b"/",
    b"/a",
    b"/a/b.c",
    b"//",
    b"/..",
    b"/%41",
    b"/a?b=c",
    b"/?",
    b"/a#b",
    b"*",
    b"http://a/",
    b"/\xe4",
]
VERSIONS = (
    [b"HTTP/1.1"] * 6 + [b"HTTP/1.0"] * 2 + [b"HTTP/1.2", b"HTTP/2.0", b"HTTP/1", b"http/1.1", b""]
)
ENDS = [b"\r\n"] * 20 + [b"\n", b"\r", b"\r\r\n", b""]
NAMES = [
    b"Host",
    b"host",
    b"Connection",
    b"Content-Length",
    b"Transfer-Encoding",
    b"Expect",
    b"Accept",
    b"Cookie",
]
NAMES += [
    b"If-Match",
    b"If-Range",
    b"If-None-Match",
    b"Authorization",
    b"Upgrade",
    b"X_y",
    b"X.y!",
    b"X y",
    b"",
]
VALUES = [
    b"a",
    b"a.b:80",
    b"A.B",
    b"a..b",
    b"a/b",
    b"[::1]",
    b"close",
    b"keep-alive",
    b"Close, x",
    b"chunked",
]
VALUES += [
    b"100-continue",
    b"0",
    b"5",
    b"5,5",
    b"-1",
    b"007",
    b"websocket",
    b"",
    b" ",
    b"\t",
    b"\x01",
    b"\xff\xfe",
]
COLONS = [b": "] * 10 + [b":", b":  ", b":\t", b" :", b" ", b""]
BYTES = b"\x00\x01\t\n\r\x0b\x0c\x1f !#%/.:;,?@AZaz_09[]~\x7f\x80\xff-"

header = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(COLONS), st.sampled_from(VALUES), st.sampled_from(ENDS)
).map(b"".join)
good_header = st.sampled_from(
    [
        b"Accept: */*\r\n",
        b"Connection: keep-alive\r\n",
        b"Connection: close\r\n",
        b"Cookie: a=b; c=\xe4\r\n",
        b"Content-Length: 3\r\n",
        b"content-length:0  \r\n",
        b"X_Y.z: \t a\tb \r\n",
        b"Upgrade: h2c\r\n",
        b'If-None-Match: "a"\r\n',
        b"User-Agent: Mozilla/5.0 (X11) x/y\r\n",
        b"Range: bytes=0-1\r\n",
    ]
)
good_head = st.builds(
    lambda method, target, minor, host, headers: (
        b"%b %b HTTP/1.%d\r\nHost: %b\r\n" % (method, target, minor, host)
        + b"".join(headers)
        + b"\r\n"
    ),
    st.sampled_from(METHODS[:6]),
    st.sampled_from(TARGETS[:9])
    | st.text("ab/.?%2eF#=&", max_size=9).map(lambda s: b"/" + s.encode()),
    st.integers(0, 1),
    st.sampled_from([b"a", b"A.b", b"localhost:8080", b"x-y_z.example", b"a:"]),
    st.lists(good_header, max_size=4),
)
odd_head = st.builds(
    lambda method, target, version, end, headers, last: (
        method + b" " + target + b" " + version + end + b"".join(headers) + last
    ),
    st.sampled_from(METHODS),
    st.sampled_from(TARGETS),
    st.sampled_from(VERSIONS),
    st.sampled_from(ENDS),
    st.lists(header | good_header, max_size=5),
    st.sampled_from(ENDS),
)
heads = st.tuples(
    good_head | odd_head, st.sampled_from([b"", b"", b"abc", b"GET / HTTP/1.1\r\n", b"\r\n"])
)


def mutate(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            changed[at:at] = bytes([chance.choice(BYTES)])
        elif kind == 1:
            del changed[at : at + chance.randint(1, 4)]
        elif kind == 2 and at < len(changed):
            changed[at] = chance.choice(BYTES)
        elif kind == 3:
            lines = bytes(changed).splitlines(keepends=True)
            if lines:
                lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
                changed = bytearray(b"".join(lines))
        else:
            changed[at:at] = (
                chance.choice(NAMES) + chance.choice(COLONS) + chance.choice(VALUES) + b"\r\n"
            )
    return bytes(changed)


class Comparison:
    """The recogniser in its VM, and how much has been compared."""

    def __init__(self) -> None:
        vm = VM(files=[Path(trio_lua.http.__file__).parent / "head.lua"])
        vm.run(
            b"local rt = ...\n"
            b"function rt.export.headers(raw, n)\n"
            b"    local n, list = rt.parse_headers(raw, n, true, true)\n"
            b"    return n, unpack(list)\n"
            b"end\n",
            "=test",
        )
        self.recognise: Callable[[bytes], Any] = vm.export("recognise")
        self.headers: Callable[[bytes, int], Any] = vm.export("headers")
        self.compared = 0
        self.accepted = 0

    def check(self, data: bytes) -> None:
        self.compared += 1
        found = self.recognise(data)
        if found != 0:
            self.accepted += 1
            self.check_accepted(data, *found)

    def check_accepted(
        self,
        data: bytes,
        length: int,
        flags: int,
        content_length: int,
        method: bytes,
        target: bytes,
        host: bytes,
        question: int,
    ) -> None:
        connection = h11.Connection(h11.SERVER, 1 << 20)
        connection.receive_data(data)
        request = connection.next_event()
        assert type(request) is h11.Request, data
        assert connection.trailing_data[0] == data[length:], data
        assert request.method == method, data
        assert request.target == target, data
        assert request.http_version == (b"1.1" if flags & HTTP_11 else b"1.0"), data

        listed = self.headers(data, length)
        flat = listed[1:] if listed else ()
        ours = [(flat[i], flat[i + 1].strip(b" \t")) for i in range(0, len(flat), 2)]
        assert ours == request.headers.raw_items(), data

        lengths = [value for name, value in request.headers if name == b"content-length"]
        assert content_length == (int(lengths[0]) if lengths else 0), data

        # What h11 lets through and the recogniser must not.
        head = data[:length]
        lower = [(name.lower(), value) for name, value in ours]
        names = [name for name, _ in lower]
        assert b"transfer-encoding" not in names, data
        assert b"expect" not in names, data
        assert names.count(b"content-length") <= 1, data
        assert names.count(b"host") == 1 or (names.count(b"host") == 0 and not flags & HTTP_11), (
            data
        )
        assert all(value.isdigit() for name, value in lower if name == b"content-length"), data
        assert re.search(rb"\n[ \t]", head) is None, data
        assert re.search(rb"(?<!\r)\n|\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", head) is None, (
            data
        )
        assert re.fullmatch(rb"[a-z0-9._-]*", host), data
        assert re.fullmatch(rb"[A-Z_-]+", method), data

        options = [
            option.strip(b" \t").lower()
            for name, value in lower
            if name == b"connection"
            for option in value.split(b",")
        ]
        wanted = b"close" not in options and bool(flags & HTTP_11 or b"keep-alive" in options)
        assert bool(flags & KEEP_ALIVE) == wanted, data

        assert question == target.find(b"?") + 1, data
        assert bool(flags & HAS_ARGS) == (question > 0), data
        parts = split_target(target)
        if not flags & COMPLEX:
            assert normalize(parts.path) == parts.path, data
            assert b"#" not in target, data
            assert parts.path == target.partition(b"?")[0], data

        # The other reader, which sees the request when the recogniser is off.
        event, *rest = H11Request().feed(data)
        assert event == Head(
            raw=head,
            method=method,
            target=target,
            minor=flags & HTTP_11,
            host=host,
            content_length=int(lengths[0]) if lengths else None,
            chunked=False,
            expect_continue=False,
            keep_alive=wanted,
        ), data
        body = data[length : length + content_length]
        complete = len(body) == content_length
        assert [e for e in rest if isinstance(e, Data)] == ([Data(body)] if body else []), data
        ends = [End(data[length + content_length :])] if complete else []
        assert [e for e in rest if isinstance(e, End)] == ends, data


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return Comparison()


def test_accepts_nothing_that_h11_reads_otherwise(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    @settings(
        max_examples=EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(heads, st.integers(0, 2**32))
    def compare(parts: tuple[bytes, bytes], seed: int) -> None:
        data = b"".join(parts)
        comparison.check(data)
        chance = random.Random(seed)
        for _ in range(MUTANTS):
            comparison.check(mutate(data, chance))

    end = time.monotonic() + SECONDS
    compare()
    while time.monotonic() < end:
        compare()
    assert comparison.accepted > EXAMPLES // 4
    with capsys.disabled():
        print(f"\n{comparison.compared} heads compared, {comparison.accepted} of them recognised")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=lambda value: repr(value)[:60],
)
def test_the_list_of_h11s_leniencies(comparison: Comparison, data: bytes) -> None:
    assert comparison.recognise(data) == 0
    with pytest.raises(ProtocolError) as caught:
        H11Request().feed(data)
    assert caught.value.status == 400
