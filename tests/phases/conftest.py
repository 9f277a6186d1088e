"""A plain request to drive the parts of the phases without an engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import pytest
import trio

from trio_lua.config.model import (
    Location,
    LuaCode,
    MatchKind,
    Server,
    Settings,
    Source,
    Template,
    Var,
)
from trio_lua.request.exchange import Captures

SOURCE = Source("nginx.conf", 7)


def template(text: str) -> Template:
    """Compile ``$name``, ``${name}`` and ``$1`` as the configuration parser does."""
    parts: list[str | Var] = []
    end = 0
    for match in re.finditer(r"\$(?:([1-9])|(\w+)|\{(\w+)\})", text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        parts.append(Var(match[1] or match[2] or match[3]))
        end = match.end()
    if end < len(text):
        parts.append(text[end:])
    return Template(text, tuple(parts))


class FakeRegexes:
    """Python's ``re`` in the place of PCRE2."""

    def __init__(self) -> None:
        self.patterns: list[re.Pattern[bytes]] = []
        self.runs = 0

    def compile(self, pattern: bytes, caseless: bool) -> int:
        try:
            compiled = re.compile(pattern, re.IGNORECASE if caseless else 0)
        except re.error as error:
            raise ValueError(f"bad regex: {error}") from error
        self.patterns.append(compiled)
        return len(self.patterns) - 1

    def exec(self, id: int, subject: bytes) -> Captures | None:
        self.runs += 1
        match = self.patterns[id].search(subject)
        return None if match is None else (match.group(), *match.groups())

    def names(self, id: int) -> Mapping[str, int]:
        return self.patterns[id].groupindex


class FakeExchange:
    """A request as plain attributes; what was done to it can be read off afterwards."""

    def __init__(
        self,
        target: bytes = b"/",
        *,
        method: bytes = b"GET",
        uri: bytes | None = None,
        headers: Mapping[bytes, bytes] | None = None,
        variables: Mapping[str, bytes] | None = None,
    ) -> None:
        path, _, args = target.partition(b"?")
        self.method = method
        self.target = target
        self.uri = path if uri is None else uri
        self.args: bytes | None = args or None
        self.request_headers = dict(headers or {})
        self.variables = dict(variables or {})
        self.captures: Captures = ()
        self.lua: Callable[[LuaCode], bytes | None] = lambda code: b"lua"
        self.header_sent = False
        self.status = 200
        self.response_headers: dict[bytes, bytes] = {}
        self.body = b""
        self.pieces: list[bytes] = []
        self.ended = False
        self.logged: list[tuple[int, bytes]] = []

    def set_uri(self, uri: bytes) -> None:
        self.uri = uri

    def set_args(self, args: bytes | None) -> None:
        self.args = args

    def header(self, name: bytes) -> bytes | None:
        return self.request_headers.get(name)

    def evaluate(self, template: Template) -> bytes:
        return b"".join(
            part.encode() if isinstance(part, str) else self.variable(part.name)
            for part in template.parts
        )

    def variable(self, name: str) -> bytes:
        if name.isdigit():
            return (self.captures[int(name)] or b"") if int(name) < len(self.captures) else b""
        builtin = {"uri": self.uri, "args": self.args or b"", "request_uri": self.target}
        return self.variables.get(name, builtin.get(name, b""))

    def set_variable(self, name: str, value: bytes) -> None:
        if name == "args":
            self.args = value
        else:
            self.variables[name] = value

    def match(
        self, pattern: str, subject: bytes, *, caseless: bool = False, keep: bool = False
    ) -> bool:
        if pattern == "limit":
            raise ValueError("match limit")
        match = re.search(pattern.encode(), subject, re.IGNORECASE if caseless else 0)
        self.captures = () if match is None else (match.group(), *match.groups())
        return match is not None

    def run_set_by_lua(self, handler: LuaCode) -> bytes | None:
        return self.lua(handler)

    def set_status(self, status: int) -> None:
        assert not self.header_sent
        self.status = status

    def set_header(self, name: bytes, value: bytes, *, early: bool = False) -> None:
        assert not self.header_sent
        self.response_headers[name] = value

    def clear_headers(self, names: Sequence[bytes]) -> None:
        for name in names:
            self.response_headers.pop(name, None)

    def compresses(self, content_type: bytes, length: int) -> bool:
        return False

    async def send(self, data: bytes, *, last: bool = False) -> None:
        assert not self.ended
        self.header_sent = True
        self.body += data
        self.pieces.append(data)
        self.ended = last

    async def checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    def log(self, level: int, message: bytes) -> None:
        self.logged.append((level, message))


def location(path: str, *locations: Location, **fields: object) -> Location:
    """A location from nginx's notation: ``= /a``, ``^~ /a``, ``~ re``, ``~* re``, ``@name``, ``/a``."""
    kind = MatchKind.PREFIX
    modifier, _, rest = path.partition(" ")
    if rest:
        kind, path = MatchKind(modifier), rest
    elif path.startswith("@"):
        kind = MatchKind.NAMED
    settings = fields.pop("settings", None) or Settings()
    assert isinstance(settings, Settings)
    return Location(kind, path, settings, SOURCE, locations=locations, **fields)  # type: ignore[arg-type]


def server(*names: str, locations: Sequence[Location] = (), **fields: object) -> Server:
    """A server by its names."""
    outermost = Location(MatchKind.SERVER, "", Settings(), SOURCE, locations=tuple(locations))
    return Server(
        listens=fields.pop("listens", ()),  # type: ignore[arg-type]
        names=names,
        location=outermost,
        source=SOURCE,
        **fields,  # type: ignore[arg-type]
    )


class Make:
    """The makers above, as one fixture: test modules cannot import from here."""

    template = staticmethod(template)
    location = staticmethod(location)
    server = staticmethod(server)
    exchange = FakeExchange
    regexes = FakeRegexes
    source = SOURCE


@pytest.fixture
def make() -> type[Make]:
    return Make
