"""Odd requests and what becomes of them.

The statuses in NGINX are those nginx 1.22.1 answered with. STRICTER lists what nginx lets through and h11, or
the rules for an origin behind a proxy, do not.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.errors import ProtocolError
from trio_lua.http.events import Data, End, Event, Head
from trio_lua.http.h11_protocol import H11Request, HeadLimits

OK = 200


def get(line: bytes = b"GET / HTTP/1.1", *headers: bytes, host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join((line, host, *headers)) + b"\r\n\r\n"


def post(*headers: bytes, body: bytes = b"", line: bytes = b"POST / HTTP/1.1") -> bytes:
    return get(line, *headers) + body


def host(value: bytes) -> bytes:
    return get(host=b"Host:" + value)


NGINX: list[tuple[bytes, int]] = [
    (get(), OK),
    (b"GET / HTTP/1.0\r\n\r\n", OK),
    (b"GET /\r\n", OK),
    (b"GET /\n", OK),
    (b"GET / \r\n", OK),
    (b"POST /\r\n", 400),
    (b"HEAD /\r\n", 400),
    # methods
    (get(b"get / HTTP/1.1"), 400),
    (get(b"G3T / HTTP/1.1"), 400),
    (get(b"M-SEARCH / HTTP/1.1"), OK),
    (get(b"_X / HTTP/1.1"), OK),
    (get(b"CONNECT a:80 HTTP/1.1"), 400),
    (get(b"CONNECT / HTTP/1.1"), 405),
    (get(b"TRACE / HTTP/1.1"), 405),
    (b"TRACE / HTTP/1.1\r\n\r\n", 400),
    (b"TRACE / HTTP/1.0\r\n\r\n", 405),
    # versions
    (get(b"GET / a HTTP/1.1"), 400),
    (get(b"GET / HTTP/2.0"), 505),
    (get(b"GET / HTTP/2"), 505),
    (get(b"GET / HTTP/9.1"), 505),
    (get(b"GET / HTTP/10.0"), 505),
    (get(b"GET / HTTP/11"), 505),
    (get(b"GET / HTTP/0.9"), 400),
    (get(b"GET / HTTP/1"), 400),
    (get(b"GET / HTTP/1.x"), 400),
    (get(b"GET / HTTP/.1"), 400),
    (get(b"GET / HTTX/1.1"), 400),
    (get(b"GET / http/1.1"), 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    # targets
    (get(b"OPTIONS * HTTP/1.1"), 400),
    (get(b"GET example HTTP/1.1"), 400),
    (get(b"GET http://b.com/x HTTP/1.1"), OK),
    (get(b"GET http://b.com HTTP/1.1"), OK),
    (get(b"GET http://b.com?x HTTP/1.1"), OK),
    (get(b"GET http://[::1]:8/x HTTP/1.1"), OK),
    (b"GET ftp+x://B.com./y HTTP/1.0\r\n\r\n", OK),
    (b"GET http://b.com/x\r\n", OK),
    (get(b"GET http://b.com:8x/x HTTP/1.1"), 400),
    (get(b"GET http:///x HTTP/1.1"), 400),
    (get(b"GET http://b_c/x HTTP/1.1"), 400),
    (get(b"GET http:/x HTTP/1.1"), 400),
    (get(b"GET http://b.com#x HTTP/1.1"), 400),
    (get(b"GET http://u@b.com/ HTTP/1.1"), 400),
    (b"GET http://b.com/x HTTP/1.1\r\n\r\n", 400),
    (get(b"GET http://b.com/x HTTP/1.1", host=b"Host: a/b"), 400),
    (get(b"GET /\x01 HTTP/1.1"), 400),
    (get(b"GET /\x7f HTTP/1.1"), 400),
    (get(b"GET /\x00 HTTP/1.1"), 400),
    (get(b"GET /a\tb HTTP/1.1"), 400),
    # Host
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (host(b""), 400),
    (b"GET / HTTP/1.0\r\nHost:\r\n\r\n", 400),
    (get(b"GET / HTTP/1.1", b"Host: a"), 400),
    (host(b" a/b"), 400),
    (host(b" a b"), 400),
    (host(b" a..b"), 400),
    (host(b" ."), 400),
    (host(b" :80"), 400),
    (host(b" a\x01"), 400),
    (host(b"\ta"), 400),
    (host(b" a\t"), 400),
    (host(b" .a"), OK),
    (host(b" A.:80"), OK),
    (host(b" [::1]:80"), OK),
    (host(b" a_b"), OK),
    (host(b" a,b"), OK),
    # header lines
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    (get(b"GET / HTTP/1.1", b" folded"), 400),
    (get(b"GET / HTTP/1.1", b"X: b", b"\tfolded"), 400),
    (get(b"GET / HTTP/1.1", b": b"), 400),
    (get(b"GET / HTTP/1.1", b"X y: b"), 400),
    (get(b"GET / HTTP/1.1", b"X: \x00"), 400),
    (get(b"GET / HTTP/1.1", b"X: a\rb"), 400),
    (get(b"GET / HTTP/1.1", b"X\x7f: a"), 400),
    (get(b"GET / HTTP/1.1", b"\rX"), 400),
    (get(b"GET / HTTP/1.1", b"X_y: b"), OK),
    (get(b"GET / HTTP/1.1", b"X: \x01"), OK),
    (get(b"GET / HTTP/1.1", b"X: \xff"), OK),
    (get(b"GET /\xe4?\xff HTTP/1.1"), OK),
    (get(b"GET /\x7f HTTP/1.1"), 400),
    (get(b"GET / HTTP/1.1", b"X: a\x7f"), OK),
    (get(b"GET / HTTP/1.1", b"Authorization: x", b"Authorization: y"), 400),
    (get(b"GET / HTTP/1.1", b"If-Match: x", b"If-Match: y"), 400),
    (get(b"GET / HTTP/1.1", b"Content-Range: x", b"content-range: y"), 400),
    (get(b"GET / HTTP/1.1", b"Expect: x", b"Expect: y"), 400),
    (get(b"GET / HTTP/1.1", b"Content-Type: x", b"Content-Type: y"), OK),
    (get(b"GET / HTTP/1.1", b"Range: x", b"Range: y", b"Referer: x", b"Referer: y"), OK),
    (get(b"GET / HTTP/1.1", b"Upgrade: websocket", b"Connection: upgrade"), OK),
    (get(b"GET / HTTP/1.1", b"Expect: x"), OK),
    # line ends
    (b"GET / HTTP/1.1\nHost: a\n\n", OK),
    (b"\r\n\r\n" + get(), OK),
    (b"\n\r" + get(), OK),
    (b" " + get(), 400),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    # Content-Length
    (post(b"Content-Length: 0"), OK),
    (post(b"Content-Length: 0001", body=b"x"), OK),
    (post(b"Content-Length: 1 ", body=b"x"), OK),
    (post(b"Content-Length: -1"), 400),
    (post(b"Content-Length: +1", body=b"x"), 400),
    (post(b"Content-Length: 1,1", body=b"x"), 400),
    (post(b"Content-Length: 1", b"Content-Length: 1", body=b"x"), 400),
    (post(b"Content-Length:"), 400),
    (post(b"Content-Length: 0x1", body=b"x"), 400),
    (post(b"Content-Length:\t1", body=b"x"), 400),
    (post(b"Content-Length: 99999999999999999999"), 400),
    # Transfer-Encoding
    (post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), OK),
    (post(b"Transfer-Encoding: CHUNKED ", body=b"0\r\n\r\n"), OK),
    (post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", line=b"POST / HTTP/1.0"), 400),
    (post(b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400),
    (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    (post(b"Transfer-Encoding: gzip"), 501),
    (post(b"Transfer-Encoding: gzip, chunked"), 501),
    (post(b"Transfer-Encoding: identity"), 501),
    (post(b"Transfer-Encoding:"), 501),
    (post(b"Transfer-Encoding:\tchunked"), 501),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    # what is wrong before it is complete
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"GE@", 400),
    (b"GET / HTTP/2", 505),
    (b"GET / HTTP/1.1\r\nX: \x00", 400),
    (b"GET / HTTP/1.1\r\nX y: a\r\n", 400),
]

STRICTER: list[bytes] = [
    get(b"GET  / HTTP/1.1"),
    get(b"GET /  HTTP/1.1"),
    get(b"GET / HTTP/1.1 "),
    get(b"GET / HTTP/1.2"),
    get(b"GET / HTTP/1.10"),
    host(b" a@b"),
    host(b" a:x"),
    host(b" <a>"),
    host(b" \xe4"),
    get(b"GET / HTTP/1.1", b"X"),
    get(b"GET / HTTP/1.1", b"X@y: b"),
    get(b"GET / HTTP/1.1", b"X: a\r"),
    get(b"GET / HTTP/1.1", b"X: a\x0bb"),
    post(b"Content-Length: 00000000000000000000000001", body=b"x"),
    post(b"Transfer-Encoding: gzip", b"Content-Length: 0"),
    post(b"Transfer-Encoding: chunked", body=b"1;a\rb\r\nx\r\n0\r\n\r\n"),
    post(b"Transfer-Encoding: chunked", body=b"1\nx\n0\n\n"),
    post(b"Transfer-Encoding: chunked", body=b"z\r\n"),
]


def outcome(data: bytes, step: int = 0, limits: HeadLimits | None = None) -> list[Event] | int:
    request = H11Request(limits or HeadLimits())
    events: list[Event] = []
    size = step or max(len(data), 1)
    try:
        for at in range(0, len(data), size):
            if events and isinstance(events[-1], End):
                last = events.pop()
                assert isinstance(last, End)
                events.append(End(last.trailing + data[at:]))
                break
            events += request.feed(data[at : at + size])
    except ProtocolError as error:
        return error.status
    return events


def merged(result: list[Event] | int) -> list[Event] | int:
    if isinstance(result, int):
        return result
    joined: list[Event] = []
    for event in result:
        if joined and isinstance(event, Data) and isinstance(joined[-1], Data):
            joined[-1] = Data(joined[-1].data + event.data)
        else:
            joined.append(event)
    return joined


@pytest.mark.parametrize(("data", "status"), NGINX, ids=lambda value: repr(value)[:60])
def test_status_is_that_of_nginx(data: bytes, status: int) -> None:
    result = outcome(data)
    if status == OK:
        assert isinstance(result, list)
        assert isinstance(result[0], Head)
        assert isinstance(result[-1], End)
    else:
        assert result == status


@pytest.mark.parametrize("data", STRICTER, ids=lambda value: repr(value)[:60])
def test_stricter_than_nginx(data: bytes) -> None:
    assert outcome(data) == 400


@pytest.mark.parametrize("step", [1, 3, 17])
def test_pieces_give_what_the_whole_gives(step: int) -> None:
    for data, _ in NGINX:
        assert merged(outcome(data, step)) == merged(outcome(data)), data
    for data in STRICTER:
        assert outcome(data, step) == 400, data


def test_fields_of_a_head() -> None:
    raw = post(b"Transfer-Encoding: chunked", b"Expect: 100-Continue", b"Connection: Close, x")
    events = outcome(b"\r\n" + raw + b"5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\nGET")
    assert events == [
        Head(
            raw=raw,
            method=b"POST",
            target=b"/",
            minor=1,
            host=b"a",
            content_length=None,
            chunked=True,
            expect_continue=True,
            keep_alive=False,
        ),
        Data(b"hello"),
        End(b"GET"),
    ]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (host(b" A.b.:80"), b"a.b"),
        (host(b" [::1]:80"), b"[::1]"),
        (get(b"GET http://B.com:1/ HTTP/1.1"), b"b.com"),
        (b"GET http://b.com/\r\n", b"b.com"),
        (b"GET / HTTP/1.0\r\n\r\n", b""),
    ],
)
def test_host(data: bytes, name: bytes) -> None:
    events = outcome(data)
    assert isinstance(events, list)
    assert isinstance(events[0], Head)
    assert events[0].host == name


@pytest.mark.parametrize(
    ("version", "connection", "expected"),
    [
        (b"1.1", b"x", True),
        (b"1.1", b"close", False),
        (b"1.1", b"keep-alive, Close", False),
        (b"1.1", b"closed", True),
        (b"1.0", b"x", False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_keep_alive(version: bytes, connection: bytes, expected: bool) -> None:
    events = outcome(get(b"GET / HTTP/" + version, b"Connection: " + connection))
    assert isinstance(events, list)
    assert isinstance(events[0], Head)
    assert events[0].keep_alive is expected


def test_expect_means_nothing_in_http_10() -> None:
    events = outcome(post(b"Expect: 100-continue", line=b"POST / HTTP/1.0"))
    assert isinstance(events, list)
    assert isinstance(events[0], Head)
    assert not events[0].expect_continue


def test_simple_request() -> None:
    events = outcome(b"GET /x?y\r\nrest")
    assert isinstance(events, list)
    head, end = events
    assert isinstance(head, Head)
    assert (head.raw, head.target, head.minor, head.keep_alive) == (
        b"GET /x?y\r\n",
        b"/x?y",
        -1,
        False,
    )
    assert end == End(b"rest")


def test_body_of_known_length_comes_as_it_is_received() -> None:
    request = H11Request()
    assert not request.started
    assert request.feed(b"\r\n") == []
    assert not request.started
    head, first = request.feed(post(b"Content-Length: 5", body=b"ab"))
    assert isinstance(head, Head)
    assert head.content_length == 5
    assert first == Data(b"ab")
    assert request.started
    assert request.feed(b"c") == [Data(b"c")]
    assert request.feed(b"deGET /") == [Data(b"de"), End(b"GET /")]
    with pytest.raises(RuntimeError):
        request.feed(b"x")


@pytest.mark.parametrize(
    ("data", "line", "minor"),
    [
        (b"GeT / HTTP/1.1\r\n\r\n", b"GeT / HTTP/1.1", 0),
        (b"GET \x7f", b"GET \x7f", 0),
        (b"POST /\r\n", b"POST /", -1),
        (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1", 1),
    ],
)
def test_what_remains_after_an_error(data: bytes, line: bytes, minor: int) -> None:
    request = H11Request()
    with pytest.raises(ProtocolError):
        request.feed(data)
    assert (request.request_line, request.minor) == (line, minor)


def sized(request_line: int, *headers: int) -> bytes:
    line = b"GET /" + b"a" * (request_line - len("GET / HTTP/1.1\r\n")) + b" HTTP/1.1"
    return get(line, host=b"\r\n".join([b"X: " + b"b" * (n - 5) for n in headers] + [b"Host: a"]))


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (1023, [], OK),
        (1024, [], OK),
        (1025, [], OK),
        (8192, [], OK),
        (8193, [], 414),
        (9000, [], 414),
        (100, [8192], OK),
        (100, [8193], 494),
        (100, [8000] * 4, OK),
        (100, [8000] * 5, 494),
        (8192, [8192, 8192, 8181], OK),
        (8192, [8192, 8192, 8182], 494),
        (8192, [8192, 8192, 8192], 494),
        (100, [913, 8192, 8192, 8192, 8181], OK),
        (100, [913, 8192, 8192, 8192, 8182], 494),
        (100, [4096] * 8, 494),
        (100, [4000] * 8, OK),
    ],
)
@pytest.mark.parametrize("step", [0, 1000])
def test_size_limits(request_line: int, headers: list[int], status: int, step: int) -> None:
    result = outcome(sized(request_line, *headers), step)
    assert result == status if status != OK else isinstance(result, list)


def test_size_limits_before_the_line_ends() -> None:
    limits = HeadLimits(64, 2, 128)
    assert outcome(b"GET /" + b"a" * 122, 1, limits) == []
    assert outcome(b"GET /" + b"a" * 123, 1, limits) == 414
    assert outcome(b"GET / HTTP/1.1\r\nX: " + b"a" * 124, 1, limits) == []
    assert outcome(b"GET / HTTP/1.1\r\nX: " + b"a" * 125, 1, limits) == 494
    assert outcome(get(b"GET / HTTP/1.1", *[b"X: " + b"a" * 100] * 3), 1, limits) == 494


@given(st.data())
def test_any_bytes_give_events_or_a_refusal(data: st.DataObject) -> None:
    pieces = data.draw(
        st.lists(
            st.sampled_from([b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"\n", b"Host: a", b"X:", b" "])
            | st.binary(max_size=3),
            max_size=14,
        )
    )
    blob = b"".join(pieces)
    step = data.draw(st.integers(0, 5))
    result = outcome(blob, step)
    if isinstance(result, int):
        assert result in (400, 405, 414, 494, 501, 505)
    else:
        assert all(isinstance(event, (Head, Data, End)) for event in result)


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (b"Foo: bar\r\n  baz\r\n", r"\x20"),
        (b"Fo o: bar\r\n", r"Fo\x20"),
        (b": bar\r\n", r"\x3a"),
        (b"Foo: b\0r\r\n", r"Foo: b\x00"),
    ],
)
def test_an_invalid_header_line_is_shown_up_to_its_wrong_byte(lines: bytes, shown: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        H11Request().feed(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
    assert str(caught.value) == f'client sent invalid header line: "{shown}..."'
