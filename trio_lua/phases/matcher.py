"""Which server answers a request, and which location of it.

Both choices are nginx's, to the letter, because configurations lean on the details: an exact name
before the longest leading wildcard before the longest trailing one before regular expressions in
file order; an exact location before everything, the longest prefix next, and regular expressions
over a prefix unless it is ``^~``, with the locations nested inside a chosen one searched in turn.

Everything is arranged when the configuration is loaded. At run time a prefix is found by bisection:
the longest prefix of a path is either its neighbour in sorted order or one of that neighbour's own
prefixes, so that a short walk up the chain of prefixes ends at it. Answers that depend on the path
alone are remembered, in a bounded table that is emptied when full.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from trio_lua.config.model import Listen, Location, MatchKind, Server
from trio_lua.errors import ConfigError
from trio_lua.request.exchange import Captures

__all__ = [
    "Address",
    "LocationMatch",
    "LocationTable",
    "Regexes",
    "ServerMatch",
    "ServerTable",
    "server_tables",
]

#: Host, port and unix socket path of a ``listen``, as written.
Address = tuple[str, int, "str | None"]

#: Named groups and what they captured; they become variables of the request.
Variables = tuple[tuple[str, bytes], ...]

# Bounds of the table of remembered answers; a longer path is looked up each time.
_REMEMBERED = 1024
_REMEMBERED_LENGTH = 256


class Regexes(Protocol):
    """Where regular expressions are compiled and run."""

    def compile(self, pattern: bytes, caseless: bool) -> int:
        """Compile a pattern and return its number.

        Raises:
            ValueError: The pattern is not a regular expression; the text says why.
        """

    def exec(self, id: int, subject: bytes) -> Captures | None:
        """Match a compiled pattern; None when it does not match.

        Raises:
            ValueError: The match could not be finished, such as at a match limit.
        """

    def names(self, id: int) -> Mapping[str, int]:
        """The named groups of a compiled pattern and their numbers."""


class ServerMatch(NamedTuple):
    """A chosen server; ``captures`` is None unless a regular expression chose it."""

    server: Server
    captures: Captures | None
    variables: Variables


class LocationMatch(NamedTuple):
    """A chosen location; ``captures`` is None unless a regular expression chose it.

    ``location`` is None when no location matches: the server's own settings are used then.
    """

    location: Location | None
    captures: Captures | None
    variables: Variables


class _Regex:
    """A compiled pattern that knows its named groups."""

    __slots__ = ("_id", "_names", "_regexes")

    def __init__(self, regexes: Regexes, pattern: str, caseless: bool) -> None:
        self._regexes = regexes
        self._id = regexes.compile(pattern.encode("utf-8", "surrogateescape"), caseless)
        self._names = tuple(regexes.names(self._id).items())

    def match(self, subject: bytes) -> tuple[Captures, Variables] | None:
        captures = self._regexes.exec(self._id, subject)
        if captures is None:
            return None
        if not self._names:
            return captures, ()
        return captures, tuple(
            (name, (captures[group] if group < len(captures) else None) or b"")
            for name, group in self._names
        )


class ServerTable:
    """The servers that share one listening address.

    Attributes:
        servers: All of them, in file order.
        default: The server for hosts that no name matches.
        conflicts: Names that an earlier server has already; nginx warns and ignores them.
    """

    def __init__(
        self, servers: Sequence[Server], regexes: Regexes, *, default: Server | None = None
    ) -> None:
        """Arrange the names.

        Args:
            servers: In file order, at least one.
            regexes: Compiles the names that are regular expressions.
            default: The ``default_server``; otherwise the first one is.

        Raises:
            ConfigError: A name is not valid.
        """
        self.servers = tuple(servers)
        self.default = default if default is not None else servers[0]
        self.conflicts: list[str] = []
        self._exact: dict[bytes, ServerMatch] = {}
        self._base: dict[bytes, ServerMatch] = {}
        self._heads: dict[bytes, ServerMatch] = {}
        self._tails: dict[bytes, ServerMatch] = {}
        self._regexes: list[tuple[_Regex, Server]] = []
        self._otherwise = ServerMatch(self.default, None, ())
        for server in servers:
            for name in server.names or ("",):
                self._add(name, server, regexes)

    def _add(self, name: str, server: Server, regexes: Regexes) -> None:
        if name.startswith("~"):
            self._add_regex(name[1:], server, regexes)
            return
        if name.lower() == "$hostname":
            name = socket.gethostname()
        key = name.lower().encode("utf-8", "surrogateescape")
        match = ServerMatch(server, None, ())
        if not _is_name(key):
            raise ConfigError(
                f'invalid server name or wildcard "{name}"', server.source.file, server.source.line
            )
        if key.startswith(b".") and len(key) > 1:
            # One name for both: it is ignored as a whole when the plain name is taken.
            plain = key[1:]
            if plain in self._exact or plain in self._base or plain in self._heads:
                self.conflicts.append(name)
            else:
                self._base[plain] = self._heads[plain] = match
        elif key.startswith(b"*.") and len(key) > 2:
            self._put(self._heads, key[2:], name, match)
        elif key.endswith(b".*") and len(key) > 2:
            self._put(self._tails, key[:-2], name, match)
        elif key in self._base:
            self.conflicts.append(name)
        else:
            self._put(self._exact, key, name, match)

    def _put(
        self, names: dict[bytes, ServerMatch], key: bytes, name: str, match: ServerMatch
    ) -> None:
        if key in names:
            self.conflicts.append(name)
        else:
            names[key] = match

    def _add_regex(self, pattern: str, server: Server, regexes: Regexes) -> None:
        # Hosts are lower case, so a pattern with capitals can only mean "in any case".
        caseless = any("A" <= char <= "Z" for char in pattern)
        try:
            if not pattern:
                raise ValueError('empty regex in server name "~"')
            regex = _Regex(regexes, pattern, caseless)
        except ValueError as error:
            raise ConfigError(str(error), server.source.file, server.source.line) from error
        self._regexes.append((regex, server))

    def find(self, host: bytes) -> ServerMatch:
        """Choose the server of a host.

        Args:
            host: In lower case, without port and trailing dot; empty when the client named none.
        """
        match = self._exact.get(host)
        if match is not None:
            return match
        if not host:
            return self._otherwise
        if self._heads:
            match = self._base.get(host)
            dot = -1
            while match is None:
                dot = host.find(b".", dot + 1)
                if dot < 0:
                    break
                match = self._heads.get(host[dot + 1 :])
            if match is not None:
                return match
        if self._tails:
            dot = len(host)
            while (dot := host.rfind(b".", 0, dot)) >= 0:
                match = self._tails.get(host[:dot])
                if match is not None:
                    return match
        for regex, server in self._regexes:
            found = regex.match(host)
            if found is not None:
                return ServerMatch(server, *found)
        return self._otherwise


def _is_name(key: bytes) -> bool:
    """Whether a name has at most the one wildcard that may be there."""
    if b".." in key or b"\0" in key:
        return False
    stars = key.count(b"*")
    if stars == 0:
        return True
    return stars == 1 and len(key) > 2 and (key.startswith(b"*.") or key.endswith(b".*"))


def server_tables(servers: Iterable[Server], regexes: Regexes) -> dict[Address, ServerTable]:
    """Group servers by the addresses they listen on.

    Raises:
        ConfigError: A name is not valid, or an address has two default servers.
    """
    groups: dict[Address, list[Server]] = {}
    defaults: dict[Address, Server] = {}
    for server in servers:
        for listen in server.listens:
            address = (listen.host, listen.port, listen.path)
            group = groups.setdefault(address, [])
            if any(known is server for known in group):
                raise ConfigError(
                    f"a duplicate listen {_address_text(listen)}",
                    listen.source.file,
                    listen.source.line,
                )
            group.append(server)
            if not listen.default_server:
                continue
            if address in defaults:
                raise ConfigError(
                    f"a duplicate default server for {_address_text(listen)}",
                    listen.source.file,
                    listen.source.line,
                )
            defaults[address] = server
    return {
        address: ServerTable(group, regexes, default=defaults.get(address))
        for address, group in groups.items()
    }


def _address_text(listen: Listen) -> str:
    if listen.path is not None:
        return f"unix:{listen.path}"
    return f"{listen.host or '0.0.0.0'}:{listen.port}"


class _Prefix:
    """One path of a level, with the locations ``= path`` and ``path`` (or ``^~ path``)."""

    __slots__ = ("exact", "inside", "outer", "path", "prefix")

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.exact: Location | None = None
        self.prefix: Location | None = None
        self.inside: _Level | None = None
        #: The longest other path of the level that begins this one.
        self.outer: _Prefix | None = None


class _Level:
    """The locations written side by side in one block."""

    __slots__ = ("_exact", "_paths", "_prefixes", "_regexes")

    def __init__(self, locations: Sequence[Location], regexes: Regexes) -> None:
        nodes: dict[bytes, _Prefix] = {}
        self._regexes: list[tuple[_Regex, Location, _Level | None]] = []
        self._exact: dict[bytes, Location] = {}
        for location in locations:
            if location.kind in (MatchKind.REGEX, MatchKind.REGEX_NOCASE):
                self._add_regex(location, regexes)
            elif location.kind in (MatchKind.EXACT, MatchKind.PREFIX, MatchKind.PREFIX_FINAL):
                path = location.path.encode("utf-8", "surrogateescape")
                node = nodes.get(path)
                if node is None:
                    node = nodes[path] = _Prefix(path)
                self._add_path(node, location, regexes)
        for path, node in nodes.items():
            # its content handler makes the redirect to "/path/"
            found = node.exact or node.prefix
            assert found is not None
            if found.auto_redirect and path[:-1] not in nodes:
                self._exact[path[:-1]] = found
        self._prefixes = [node for _, node in sorted(nodes.items()) if node.prefix is not None]
        self._paths = [node.path for node in self._prefixes]
        chain: list[_Prefix] = []
        for node in self._prefixes:
            while chain and not node.path.startswith(chain[-1].path):
                chain.pop()
            node.outer = chain[-1] if chain else None
            chain.append(node)

    def _add_path(self, node: _Prefix, location: Location, regexes: Regexes) -> None:
        exact = location.kind is MatchKind.EXACT
        if (node.exact if exact else node.prefix) is not None:
            raise ConfigError(
                f'duplicate location "{location.path}"', location.source.file, location.source.line
            )
        if exact:
            node.exact = self._exact[node.path] = location
        else:
            node.prefix = location
            node.inside = _nested(location, regexes)

    def _add_regex(self, location: Location, regexes: Regexes) -> None:
        try:
            regex = _Regex(regexes, location.path, location.kind is MatchKind.REGEX_NOCASE)
        except ValueError as error:
            raise ConfigError(str(error), location.source.file, location.source.line) from error
        self._regexes.append((regex, location, _nested(location, regexes)))

    def find(self, uri: bytes) -> tuple[LocationMatch | None, bool]:
        """Choose among these locations; True beside the choice when it beats outer regexes."""
        exact = self._exact.get(uri)
        if exact is not None:
            return LocationMatch(exact, None, ()), True
        best: LocationMatch | None = None
        final = False
        node = self._longest_prefix(uri)
        if node is not None:
            assert node.prefix is not None
            best = LocationMatch(node.prefix, None, ())
            final = node.prefix.kind is MatchKind.PREFIX_FINAL
            if node.inside is not None:
                inner, decided = node.inside.find(uri)
                if inner is not None:
                    best = inner
                if decided:
                    return best, True
        if not final:
            for regex, location, inside in self._regexes:
                found = regex.match(uri)
                if found is not None:
                    return _inside_regex(location, inside, uri, *found), True
        return best, False

    def _longest_prefix(self, uri: bytes) -> _Prefix | None:
        place = bisect_right(self._paths, uri)
        node = self._prefixes[place - 1] if place else None
        while node is not None and not uri.startswith(node.path):
            node = node.outer
        return node


def _nested(location: Location, regexes: Regexes) -> _Level | None:
    return _Level(location.locations, regexes) if location.locations else None


def _inside_regex(
    location: Location, inside: _Level | None, uri: bytes, captures: Captures, variables: Variables
) -> LocationMatch:
    if inside is not None:
        inner, _ = inside.find(uri)
        if inner is not None:
            # The last match has the numbered groups; named ones of all matches stay.
            return LocationMatch(
                inner.location,
                inner.captures if inner.captures is not None else captures,
                variables + inner.variables,
            )
    return LocationMatch(location, captures, variables)


class LocationTable:
    """The locations of one server."""

    def __init__(self, server: Location, regexes: Regexes) -> None:
        """Arrange the locations.

        Args:
            server: A server's outermost location.
            regexes: Compiles the locations that are regular expressions.

        Raises:
            ConfigError: A location appears twice, or its regular expression is not valid.
        """
        self._root = _Level(server.locations, regexes)
        self._known: dict[bytes, LocationMatch] = {}
        self._named: dict[bytes, Location] = {}
        for location in server.locations:
            if location.kind is MatchKind.NAMED:
                name = _bare_name(location.path.encode("utf-8", "surrogateescape"))
                if name in self._named:
                    raise ConfigError(
                        f'duplicate location "@{name.decode("utf-8", "replace")}"',
                        location.source.file,
                        location.source.line,
                    )
                self._named[name] = location

    def find(self, uri: bytes) -> LocationMatch:
        """Choose the location of a path.

        Raises:
            ValueError: A regular expression could not be matched to its end: answer 500.
        """
        known = self._known.get(uri)
        if known is not None:
            return known
        match, _ = self._root.find(uri)
        if match is None:
            match = LocationMatch(None, None, ())
        if match.captures is None and len(uri) <= _REMEMBERED_LENGTH:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[uri] = match
        return match

    def named(self, name: bytes) -> Location | None:
        """The location ``@name``; the "@" may be left out."""
        return self._named.get(_bare_name(name))


def _bare_name(name: bytes) -> bytes:
    return name[1:] if name.startswith(b"@") else name
