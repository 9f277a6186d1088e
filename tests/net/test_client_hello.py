"""The first message of TLS clients, as OpenSSL writes it and as it should not be."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.net.client_hello import BadHello, is_tls, parse


def first_bytes(name: str | None = "test.local", **versions: ssl.TLSVersion) -> bytes:
    """What a client sends first."""
    # without certificates: reading the system's takes longer than all else here
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    for attribute, version in versions.items():
        setattr(context, attribute, version)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_offers() -> None:
    hello = parse(first_bytes())
    assert hello is not None
    assert hello.server_name == b"test.local"
    assert hello.version == 0x0304
    assert 0x1301 in hello.ciphers
    assert 29 in hello.groups
    assert len(hello.random) == 32
    assert hello.ticket == b""


def test_older_client_without_name() -> None:
    hello = parse(first_bytes(None, maximum_version=ssl.TLSVersion.TLSv1_2))
    assert hello is not None
    assert hello.server_name is None
    assert (hello.version, hello.versions) == (0x0303, ())


def test_arrives_in_pieces_and_in_several_records() -> None:
    data = first_bytes()
    message = data[5:]
    assert all(parse(data[:size]) is None for size in range(len(data)))
    pieces = [message[at : at + 50] for at in range(0, len(message), 50)]
    split = b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)
    assert parse(split) == parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # another message
        b"\x16\x03\x01\x00\x04\x01\x10\x00\x00",  # a megabyte
        b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03",  # nothing in it
        b"\x16\x03\x01\x00\x00" * 30000,
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(BadHello):
        assert parse(data) is not None


@given(st.data())
def test_never_fails_otherwise(data: st.DataObject) -> None:
    good = bytearray(first_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        hello = parse(bytes(good))
    except BadHello:
        return
    if hello is not None:
        assert hello.server_name is None or isinstance(hello.server_name, bytes)
        assert isinstance(hello.groups, tuple)


def test_tls_or_http() -> None:
    assert is_tls(first_bytes())
    assert is_tls(b"\x80\x2e\x01")
    assert not is_tls(b"GET / HTTP/1.1")
