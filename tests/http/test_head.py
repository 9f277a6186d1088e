"""The head recogniser and the header reader, case by case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trio_lua.http
from trio_lua.lua.vm import VM

HEAD_LUA = Path(trio_lua.http.__file__).parent / "head.lua"

HTTP_11, KEEP_ALIVE, COMPLEX, HAS_ARGS = 1, 2, 4, 8
PLAIN = HTTP_11 | KEEP_ALIVE


@pytest.fixture(scope="module")
def vm() -> VM:
    vm = VM(files=[HEAD_LUA])
    vm.run(
        b"local rt = ...\n"
        b"function rt.export.headers(raw, n, underscores, all)\n"
        b"    local n, list = rt.parse_headers(raw, n, underscores, all)\n"
        b"    return n, unpack(list)\n"
        b"end\n",
        "=test",
    )
    return vm


@pytest.fixture(scope="module")
def recognise(vm: VM) -> Callable[[bytes], Any]:
    return vm.export("recognise")


def get(target: bytes = b"/", *headers: bytes, version: bytes = b"1.1") -> bytes:
    return (
        b"\r\n".join((b"GET " + target + b" HTTP/" + version, b"Host: a", *headers)) + b"\r\n\r\n"
    )


def test_everything_is_returned(recognise: Callable[[bytes], Any]) -> None:
    head = b"PUT /a/b?c=d HTTP/1.1\r\nHost: Example.COM:8080\r\nContent-Length: 12\r\n\r\n"
    assert recognise(head + b"hello world!GET") == (
        len(head),
        PLAIN | HAS_ARGS,
        12,
        b"PUT",
        b"/a/b?c=d",
        b"example.com",
        5,
    )
    simple = b"GET / HTTP/1.0\r\n\r\n"
    assert recognise(simple) == (len(simple), 0, 0, b"GET", b"/", b"", 0)


def test_an_incomplete_head_is_not_recognised(recognise: Callable[[bytes], Any]) -> None:
    head = get(b"/a?b", b"Connection: keep-alive", b"Content-Length: 3")
    for end in range(len(head)):
        assert recognise(head[:end]) == 0
    assert recognise(head) != 0


@pytest.mark.parametrize(
    ("target", "flags", "question"),
    [
        (b"/", 0, 0),
        (b"/a.b/c", 0, 0),
        (b"/a+b", 0, 0),
        (b"/a?", HAS_ARGS, 3),
        (b"/a?b/./c//d%20", HAS_ARGS, 3),
        (b"/a?b#c", HAS_ARGS | COMPLEX, 3),
        (b"//", COMPLEX, 0),
        (b"/a//b", COMPLEX, 0),
        (b"/.a", COMPLEX, 0),
        (b"/a/..", COMPLEX, 0),
        (b"/%41", COMPLEX, 0),
        (b"/a#b", COMPLEX, 0),
    ],
)
def test_target_flags(
    recognise: Callable[[bytes], Any], target: bytes, flags: int, question: int
) -> None:
    found = recognise(get(target))
    assert (found[1], found[4], found[6]) == (PLAIN | flags, target, question)


@pytest.mark.parametrize(
    ("version", "connection", "expected"),
    [
        (b"1.1", b"x", PLAIN),
        (b"1.1", b"close", HTTP_11),
        (b"1.1", b"Keep-Alive , CLOSE", HTTP_11),
        (b"1.1", b"closed", PLAIN),
        (b"1.1", b"", PLAIN),
        (b"1.1", b",,\t,", PLAIN),
        (b"1.0", b"x", 0),
        (b"1.0", b"keep-alive", KEEP_ALIVE),
        (b"1.0", b"x,keep-alive", KEEP_ALIVE),
        (b"1.0", b"keep-alive, close", 0),
    ],
)
def test_keep_alive(
    recognise: Callable[[bytes], Any], version: bytes, connection: bytes, expected: int
) -> None:
    assert recognise(get(b"/", b"connection: " + connection, version=version))[1] == expected


def test_close_wins_over_several_lines(recognise: Callable[[bytes], Any]) -> None:
    head = get(b"/", b"Connection: close", b"Connection: keep-alive")
    assert recognise(head)[1] == HTTP_11


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n" + get(),
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G1T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /\r\nHost: a\r\n\r\n",
        get(version=b"1.2"),
        get(version=b"2.0"),
        get(version=b"1.10"),
        get(version=b"0.9"),
        get(b"*"),
        get(b"http://a/"),
        get(b"/\x01"),
        get(b"/\xe4"),
        get(b"/\x7f"),
        get(b"/a\tb"),
        get(b"/a?b\xe4"),
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\rX",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        get(b"/", b" folded"),
        get(b"/", b"\tfolded"),
        get(b"/", b"Host: a"),
        get(b"/", b": x"),
        get(b"/", b"X"),
        get(b"/", b"X y: z"),
        get(b"/", b"X@: z"),
        get(b"/", b"X: \x01"),
        get(b"/", b"X: \x00"),
        get(b"/", b"X: \x7f"),
        get(b"/", b"X: a\rb"),
        get(b"/", b"Transfer-Encoding: chunked"),
        get(b"/", b"transfer-encoding:"),
        get(b"/", b"Expect: 100-continue"),
        get(b"/", b"Content-Length:"),
        get(b"/", b"Content-Length: -1"),
        get(b"/", b"Content-Length: 1,1"),
        get(b"/", b"Content-Length: 1 1"),
        get(b"/", b"Content-Length: 0x1"),
        get(b"/", b"Content-Length:\t1"),
        get(b"/", b"Content-Length: 1234567890123456"),
        get(b"/", b"Content-Length: 1", b"content-length: 1"),
        get(b"/", b"If-Match: a", b"if-match: a"),
        get(b"/", b"Authorization: a", b"AUTHORIZATION: a"),
        *(
            b"GET / HTTP/1.1\r\nHost:" + value + b"\r\n\r\n"
            for value in [
                b"",
                b" ",
                b"\ta",
                b" a\t",
                b" a b",
                b" a/b",
                b" a..b",
                b" .",
                b" a.",
                b" :1",
                b" a:x",
                b" a:1:2",
                b" a@b",
                b" <a>",
                b" \xe4",
                b" a,b",
                b" [::1]",
                b" " + b"a" * 256,
            ]
        ),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_is_left_to_h11(recognise: Callable[[bytes], Any], head: bytes) -> None:
    assert recognise(head) == 0


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"a", b"a"),
        (b" a ", b"a"),
        (b"A-b_C.9:", b"a-b_c.9"),
        (b".a:80", b".a"),
        (b"a" * 255, b"a" * 255),
    ],
)
def test_host(recognise: Callable[[bytes], Any], value: bytes, host: bytes) -> None:
    assert recognise(b"GET / HTTP/1.1\r\nHost:" + value + b"\r\n\r\n")[5] == host


def test_if_range_beside_if_match(recognise: Callable[[bytes], Any]) -> None:
    assert recognise(get(b"/", b"If-Match: a", b"If-Range: b", b"If-None-Match: c")) != 0


def test_headers_keep_order_and_spelling(vm: VM) -> None:
    headers = vm.export("headers")
    head = (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Foo:bar  \r\nx-fOO:   b a z\r\nEmpty:\r\nTab:\tx\t\r\n\r\n"
    )
    expected = (
        5,
        b"Host",
        b"a",
        b"X-Foo",
        b"bar",
        b"x-fOO",
        b"b a z",
        b"Empty",
        b"",
        b"Tab",
        b"\tx\t",
    )
    assert headers(head, len(head)) == expected
    assert headers(head + b"X: y\r\n\r\n", len(head)) == expected
    assert headers(head.replace(b"\r\n", b"\n"), None) == expected


def test_headers_that_are_left_out(vm: VM) -> None:
    headers = vm.export("headers")
    head = b"GET / HTTP/1.1\r\nA_b: 1\r\nC.d: 2\r\nE_f!: 3\r\nbroken\r\n: none\r\n folded: x\r\nG: 4\r\n\r\n"
    assert headers(head, len(head)) == (1, b"G", b"4")
    assert headers(head, len(head), True) == (2, b"A_b", b"1", b"G", b"4")
    everything = (4, b"A_b", b"1", b"C.d", b"2", b"E_f!", b"3", b"G", b"4")
    assert headers(head, len(head), False, True) == everything
    assert headers(b"GET /\r\n", 7) == 0
    assert headers(b"GET / HTTP/1.1\r\n\r\n", 18) == 0
