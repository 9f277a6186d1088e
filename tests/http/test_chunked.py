"""The chunked decoder against h11: what it accepts, h11 accepts, with the same data."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_lua.errors import ProtocolError
from trio_lua.http.chunked import ChunkedDecoder

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def decode(data: bytes, step: int = 0) -> tuple[bytes, bool, bytes] | None:
    decoder = ChunkedDecoder()
    body = bytearray()
    size = step or max(len(data), 1)
    trailing = b""
    try:
        for at in range(0, len(data), size):
            if decoder.done:
                trailing += data[at:]
                break
            for piece in decoder.feed(data[at : at + size]):
                assert piece
                body += piece
    except ProtocolError:
        return None
    if decoder.done:
        trailing = decoder.trailing + trailing
    return bytes(body), decoder.done, trailing


def decode_with_h11(data: bytes) -> tuple[bytes, bool, bytes]:
    connection = h11.Connection(h11.SERVER, 1 << 20)
    connection.receive_data(HEAD)
    assert type(connection.next_event()) is h11.Request
    connection.receive_data(data) if data else None
    body = bytearray()
    while True:
        event = connection.next_event()
        if type(event) is h11.Data:
            body += event.data
        elif type(event) is h11.EndOfMessage:
            return bytes(body), True, connection.trailing_data[0]
        else:
            assert event is h11.NEED_DATA
            return bytes(body), False, b""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"0\r\n\r\n", (b"", True, b"")),
        (b"5\r\nhello\r\n0\r\n\r\nGET", (b"hello", True, b"GET")),
        (b"A;x=y\r\n0123456789\r\n000\r\nT: v\r\nU:\r\n\r\n", (b"0123456789", True, b"")),
        (b"1 \r\na\r\n1;x\t\r\nb\r\n", (b"ab", False, b"")),
        (b"5\r\nhel", (b"hel", False, b"")),
        (b"", (b"", False, b"")),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 2])
def test_decoding(data: bytes, expected: tuple[bytes, bool, bytes], step: int) -> None:
    assert decode(data, step) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"g\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1\nx\r\n",
        b"1;a\rb\r\nx\r\n",
        b"1;a\x00\r\nx\r\n",
        b"1 a\r\nx\r\n",
        b"1 ;a\r\nx\r\n",
        b"1\r\nxy\r\n",
        b"1\r\nx\n0\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nT: a\rb\r\n\r\n",
        b"7ffffffffffffffb\r\n",
        b"10000000000000000\r\n",
        b"1;" + b"a" * 5000,
        b"0\r\n" + b"T: " + b"a" * 40000,
        b"0\r\n" + (b"T: " + b"a" * 4000 + b"\r\n") * 9,
    ],
    ids=lambda value: repr(value)[:30],
)
@pytest.mark.parametrize("step", [0, 1])
def test_refused(data: bytes, step: int) -> None:
    assert decode(data, step) is None


pieces = st.sampled_from(
    [
        b"0",
        b"1",
        b"2",
        b"a",
        b"F",
        b"\r\n",
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b";",
        b"x=y",
        b" ",
        b"\t",
        b"xy",
        b"T: v",
        b":",
        b"0\r\n\r\n",
        b"1\r\nx\r\n",
        b"\x00",
        b"\x0b",
        b"\xff",
    ]
)


@given(st.lists(pieces, max_size=12).map(b"".join), st.integers(0, 4))
@example(b"1;\x0b\r\nx\r\n", 0)
@example(b"0\r\nT: \x01\r\n\r\n", 0)
def test_never_wider_than_h11(data: bytes, step: int) -> None:
    found = decode(data, step)
    if found is not None:
        assert found == decode_with_h11(data)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=9), st.data())
def test_well_formed_bodies_are_read(chunks: list[bytes], rest: bytes, data: st.DataObject) -> None:
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    step = data.draw(st.integers(0, 7))
    assert decode(encoded + rest, step) == (b"".join(chunks), True, rest)
