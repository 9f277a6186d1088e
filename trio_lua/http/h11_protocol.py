"""The reader for every request that the head recogniser refused.

Chunked bodies, ``Expect``, absolute targets, bare LF line ends, requests that arrive in pieces, and all
that is wrong. h11 parses the head and is the reference for what a head may look like; around it stands
what h11 lets through but an origin behind a proxy must not, and the status nginx answers with.

* The end of the head is found here and h11 gets exactly the head. So the raw bytes are known, the body
  and the next request are never copied through h11's buffer, and nothing is parsed twice.
* The request line is judged as soon as it is complete, header lines as they come in: a client that has
  sent nonsense hears so at once instead of running into a timeout.
* Lines are measured as nginx places them in its header buffers, so that the same requests are too large.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11

from trio_lua.errors import ProtocolError
from trio_lua.http.chunked import ChunkedDecoder
from trio_lua.http.events import Data, End, Event, Head
from trio_lua.http.uri import split_target

__all__ = ["DEFAULT_LIMITS", "H11Request", "HeadLimits", "host_name"]


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """How large a head may be: nginx's header buffers.

    Attributes:
        first: ``client_header_buffer_size``.
        large_count: Number of ``large_client_header_buffers``.
        large_size: Their size.
    """

    first: int = 1024
    large_count: int = 4
    large_size: int = 8192


DEFAULT_LIMITS = HeadLimits()

_head_end = re.compile(rb"\n\r?\n")
_request_line = re.compile(rb"([A-Z_-]+) ([\x21-\x7e\x80-\xff]+)(?: HTTP/(.*)| *)", re.S)
_partial_request_line = re.compile(
    rb"[A-Z_-]+(?: (?:[\x21-\x7e\x80-\xff]+(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.[01]?)?)?)?)?)?)?)?)?)?)?\r?"
)
_newer_version = re.compile(rb"[2-9]|1[0-9]")
_header_line = re.compile(
    rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:[ \t]*(?:[^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?[ \t]*\r?"
)
#: As much of a header line as nginx reads before a byte that it refuses.
_good_header = re.compile(rb"(?:[^\x00-\x20\x7f:]+(?::[^\x00]*)?)?")
_folded = re.compile(rb"\n[ \t]")
# nginx takes a tab for a part of the value; to h11 it is white space around it.
_tab_in_framing = re.compile(rb"\n(host|content-length|transfer-encoding|expect):[^\n]*\t", re.I)
_content_lengths = re.compile(rb"\ncontent-length:([^\r\n]*)", re.I)
_transfer_encodings = re.compile(rb"\ntransfer-encoding:[ \t]*([^\r\n]*)", re.I)
_host_headers = re.compile(rb"\n(host:[^\r\n]*)", re.I)
_method = re.compile(rb"[A-Z_-]+(?: |\Z)")
_digits = re.compile(rb" *([0-9]{1,20}) *")
_host = re.compile(
    rb"(?:([A-Za-z0-9._~!$&'()*+,;=%-]+)|(\[[0-9A-Za-z:._~!$&'()*+,;=%-]+\]))(?::[0-9]*)?"
)

_ONCE = frozenset(
    (
        b"authorization",
        b"content-range",
        b"expect",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
    )
)

#: As much of a too long line as nginx puts into its log.
_LOGGED_LINE = 1748

_HEAD, _LENGTH, _CHUNKED, _DONE, _FAILED = range(5)


def host_name(value: bytes) -> bytes:
    """The host in a Host header: lower-case, without port and trailing dot.

    Raises:
        ProtocolError: No host can look like that.
    """
    match = _host.fullmatch(value)
    if match is None or b".." in value:
        raise ProtocolError("client sent invalid host header")
    name: bytes = (match.group(1) or match.group(2)).lower()
    if name.endswith(b"."):
        name = name[:-1]
        if not name:
            raise ProtocolError("client sent invalid host header")
    return name


def _invalid_header(line: bytes) -> ProtocolError:
    """nginx's words: the line up to the byte that is wrong."""
    match = _good_header.match(line)
    at = match.end() if match is not None else 0
    if at == len(line):
        return ProtocolError("client sent invalid header line")
    good = line[:at].decode("utf-8", "replace")
    return ProtocolError(f'client sent invalid header line: "{good}\\x{line[at]:02x}..."')


def _duplicate(raw: bytes, name: bytes, what: str = "header line") -> ProtocolError:
    lines = [line.rstrip(b"\r ") for line in raw.split(b"\n")]
    first, second = [
        line.decode("utf-8", "replace") for line in lines if line.lower().startswith(name + b":")
    ][:2]
    return ProtocolError(f'client sent duplicate {what}: "{second}", previous value: "{first}"')


class H11Request:
    """One request: bytes in, events out.

    The events of a request are one :class:`Head`, any number of :class:`Data` and one :class:`End`. After
    ``End`` or an error the reader is used up.

    Attributes:
        request_line: The first line without its line end, as far as it was received. With ``minor``
            it remains after an error, for the log line and for the form of the error's response.
        minor: As in :class:`Head`; 0 until the request line has said otherwise.
        failed: After an error, what was being read, in nginx's words; "" for the body.
        host_line: The first Host header of a head that was refused, b"" without one.
        rest: What has been received behind the head in the same turn, as it came.
    """

    __slots__ = (
        "_buffer",
        "_buffers",
        "_chunks",
        "_left",
        "_limits",
        "_line_at",
        "_method",
        "_searched",
        "_space",
        "_state",
        "_target",
        "_target_host",
        "failed",
        "host_line",
        "minor",
        "request_line",
        "rest",
    )

    def __init__(self, limits: HeadLimits = DEFAULT_LIMITS) -> None:
        self.request_line = b""
        self.minor = 0
        self.host_line = b""
        self.failed = ""
        self.rest = b""
        self._limits = limits
        self._state = _HEAD
        self._buffer: bytes | bytearray = b""
        self._searched = 0
        self._line_at = 0
        self._space = limits.first
        self._buffers = 0
        self._method = b""
        self._target = b""
        self._target_host: bytes | None = None
        self._left = 0
        self._chunks: ChunkedDecoder | None = None

    @property
    def progress(self) -> tuple[str, bytes, bytes]:
        """How far an incomplete head has come: what is being read, the request line and the Host line so far."""
        buffer = bytes(self._buffer)
        line, ended, _ = buffer.partition(b"\n")
        host = _host_headers.search(buffer)
        return (
            "reading client request headers" if ended else "reading client request line",
            line.removesuffix(b"\r"),
            host.group(1) if host is not None else b"",
        )

    @property
    def started(self) -> bool:
        """Whether anything but empty lines has been received."""
        return self._state != _HEAD or bool(self._buffer)

    def feed(self, data: bytes) -> list[Event]:
        """Take in bytes and return what they complete.

        Raises:
            ProtocolError: The client must be answered with its status (494 is nginx's number for too
                large headers) and the connection closed.
        """
        try:
            if self._state == _HEAD:
                return self._feed_head(data)
            if self._state == _LENGTH or self._state == _CHUNKED:
                events: list[Event] = []
                self._feed_body(data, events)
                return events
        except ProtocolError:
            self._fail()
            raise
        raise RuntimeError("the request has been read to its end")

    def _fail(self) -> None:
        head = bytes(self._buffer)
        if not self._method:
            self.failed = "reading client request line"
            self.request_line = head.partition(b"\n")[0].removesuffix(b"\r")
        else:
            if self._state == _HEAD:
                self.failed = "reading client request headers"
            match = _host_headers.search(head)
            if match is not None:
                self.host_line = match.group(1)
        self._state = _FAILED
        self._buffer = b""

    # ------------------------------------------------------------ head

    def _feed_head(self, data: bytes) -> list[Event]:
        buffer = self._buffer
        if buffer:
            if isinstance(buffer, bytes):
                buffer = bytearray(buffer)
            buffer += data
            self._buffer = buffer
        else:
            if data[:1] in (b"\r", b"\n"):
                data = data.lstrip(b"\r\n")
            if not data:
                return []
            self._buffer = buffer = data
        match = _head_end.search(buffer, self._searched)
        if match is None:
            self._searched = max(0, len(buffer) - 2)
            return self._check_incomplete()
        end = match.end()
        raw = bytes(buffer[:end])
        self.rest = rest = bytes(buffer[end:])
        if not self._method:
            simple = self._check_request_line(raw[: raw.index(b"\n")])
            if simple:
                return self._simple(raw + rest)
        if end > self._limits.first:
            self._measure(raw)
        head = self._parse(raw)
        events: list[Event] = [head]
        if head.chunked:
            self._state = _CHUNKED
            self._chunks = ChunkedDecoder()
            if rest:
                self._feed_body(rest, events)
        elif head.content_length:
            self._state = _LENGTH
            self._left = head.content_length
            if rest:
                self._feed_body(rest, events)
        else:
            self._state = _DONE
            events.append(End(rest))
        self._buffer = b""
        return events

    def _check_incomplete(self) -> list[Event]:
        buffer = self._buffer
        if not self._method:
            end = buffer.find(b"\n")
            if end < 0:
                line = bytes(buffer)
                if _partial_request_line.fullmatch(line) is None:
                    self._check_request_line(line)
                    raise ProtocolError("client sent invalid request")
                self.request_line = line
                self._room(0, len(line), False, 414)
                return []
            if self._check_request_line(bytes(buffer[:end])):
                return self._simple(bytes(buffer))
        self._measure(buffer)
        return []

    def _check_request_line(self, line: bytes) -> bool:
        if line.endswith(b"\r"):
            line = line[:-1]
        self.request_line = line
        match = _request_line.fullmatch(line)
        if match is None:
            if _method.match(line) is None:
                raise ProtocolError("client sent invalid method")
            raise ProtocolError("client sent invalid request")
        method, target, version = match.groups()
        if not target.startswith(b"/"):
            self._target_host = host_name(split_target(target).host or b"")
        if version is None:
            self.minor = -1
            if method != b"GET":
                raise ProtocolError("client sent invalid method in HTTP/0.9 request")
        elif version != b"1.1" and version != b"1.0":
            if _newer_version.match(version):
                raise ProtocolError("client sent invalid version", 505)
            raise ProtocolError("client sent invalid request")
        if version == b"1.1":
            self.minor = 1
        self._method = method
        self._target = target
        return version is None

    def _measure(self, buffer: bytes | bytearray) -> None:
        at = self._line_at
        first = at == 0
        while True:
            end = buffer.find(b"\n", at)
            if end < 0:
                break
            self._room(at, end + 1 - at, True, 414 if first else 494)
            if not first:
                line = bytes(buffer[at:end])
                if line not in (b"", b"\r") and _header_line.fullmatch(line) is None:
                    raise _invalid_header(line)
            first = False
            at = end + 1
        self._line_at = at
        if at < len(buffer):
            self._room(at, len(buffer) - at, False, 414 if first else 494)
            if buffer.find(b"\0", at) >= 0:
                raise _invalid_header(bytes(buffer[at:]))

    def _room(self, at: int, length: int, complete: bool, status: int) -> None:
        """Place a line in nginx's buffers: in the rest of the present one, else in a new large one."""
        if length < self._space or (complete and length == self._space):
            if complete:
                self._space -= length
            return
        limits = self._limits
        fits = length <= limits.large_size if complete else length < limits.large_size
        if self._buffers == limits.large_count or not fits:
            if status == 414:
                self._method = b""
                raise ProtocolError("client sent too long URI", 414)
            line = bytes(self._buffer[at : at + _LOGGED_LINE]).decode("utf-8", "replace")
            raise ProtocolError(f'client sent too long header line: "{line}..."', 494)
        if complete:
            self._buffers += 1
            self._space = limits.large_size - length

    def _simple(self, received: bytes) -> list[Event]:
        end = received.index(b"\n") + 1
        host = self._target_host or b""
        self._buffer = b""
        self._state = _DONE
        head = Head(received[:end], self._method, self._target, -1, host, None, False, False, False)
        return [head, End(received[end:])]

    def _parse(self, raw: bytes) -> Head:
        folded = _folded.search(raw)
        if folded is not None:
            raise _invalid_header(raw[folded.start() + 1 :].partition(b"\n")[0])
        connection = h11.Connection(h11.SERVER, len(raw) + 1)
        # nginx lets bytes beyond ASCII stand in a path as they are; h11 must not see them
        target = self._target
        connection.receive_data(raw if target.isascii() else raw.replace(target, b"/", 1))
        try:
            request = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise self._refusal(raw, error) from None
        assert type(request) is h11.Request
        if b"\t" in raw:
            match = _tab_in_framing.search(raw)
            if match is not None:
                encoding = match.group(1).lower() == b"transfer-encoding"
                raise ProtocolError("client sent invalid header line", 501 if encoding else 400)

        minor = self.minor
        host: bytes | None = None
        length: int | None = None
        chunked = expect = close = wants_keep_alive = False
        once: set[bytes] = set()
        for name, value in request.headers:
            if name == b"host":
                host = host_name(value)
            elif name == b"connection":
                for option in value.lower().split(b","):
                    option = option.strip(b" \t")
                    if option == b"close":
                        close = True
                    elif option == b"keep-alive":
                        wants_keep_alive = True
            elif name == b"content-length":
                length = self._content_length(raw)
            elif name == b"transfer-encoding":
                chunked = True
            elif name in _ONCE:
                if name in once:
                    raise _duplicate(raw, name)
                once.add(name)
                if name == b"expect" and minor == 1:
                    expect = value.lower() == b"100-continue"
        if chunked:
            if minor == 0:
                raise ProtocolError('client sent HTTP/1.0 request with "Transfer-Encoding" header')
            if length is not None:
                raise ProtocolError(
                    'client sent "Content-Length" and "Transfer-Encoding" headers at the same time'
                )
        if self._method == b"CONNECT" or self._method == b"TRACE":
            raise ProtocolError(f"client sent {self._method.decode()} method", 405)
        return Head(
            raw,
            self._method,
            self._target,
            minor,
            self._target_host or host or b"",
            length,
            chunked,
            expect,
            not close and (minor == 1 or wants_keep_alive),
        )

    def _content_length(self, raw: bytes) -> int:
        # h11 folds "5,5" and repeated equal lines into one value; only the raw head shows them.
        values = _content_lengths.findall(raw)
        if len(values) > 1:
            raise _duplicate(raw, b"content-length")
        match = _digits.fullmatch(values[0])
        length = int(match.group(1)) if match is not None else -1
        if not 0 <= length < 2**63:
            raise ProtocolError('client sent invalid "Content-Length" header')
        return length

    def _refusal(self, raw: bytes, error: h11.RemoteProtocolError) -> ProtocolError:
        # h11 says 501 for an unknown coding; nginx only once everything else is in order.
        codings = _transfer_encodings.findall(raw)
        hosts = _host_headers.findall(raw)
        lengths = _content_lengths.findall(raw)
        if (
            error.error_status_hint == 501
            and len(codings) == 1
            and len(hosts) == 1
            and not lengths
            and self.minor == 1
        ):
            coding = codings[0].decode("utf-8", "replace")
            return ProtocolError(f'client sent unknown "Transfer-Encoding": "{coding}"', 501)
        for line in raw.split(b"\n")[1:]:
            if line not in (b"", b"\r") and _header_line.fullmatch(line) is None:
                return _invalid_header(line)
        if len(hosts) > 1:
            return _duplicate(raw, b"host", "host header")
        if len(lengths) > 1:
            return _duplicate(raw, b"content-length")
        if lengths and _digits.fullmatch(lengths[0]) is None:
            return ProtocolError('client sent invalid "Content-Length" header')
        if not hosts and self.minor == 1:
            return ProtocolError('client sent HTTP/1.1 request without "Host" header')
        return ProtocolError(f"client sent invalid request: {error}")

    # ------------------------------------------------------------ body

    def _feed_body(self, data: bytes, events: list[Event]) -> None:
        if self._state == _LENGTH:
            left = self._left
            if len(data) < left:
                self._left = left - len(data)
                if data:
                    events.append(Data(data))
                return
            if len(data) == left:
                events.append(Data(data))
                data = b""
            else:
                events.append(Data(data[:left]))
                data = data[left:]
            self._left = 0
            self._state = _DONE
            events.append(End(data))
            return
        chunks = self._chunks
        assert chunks is not None
        events.extend(map(Data, chunks.feed(data)))
        if chunks.done:
            self._state = _DONE
            events.append(End(chunks.trailing))
