"""``server``, ``listen`` and ``server_name``."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace

from trio_lua.config import regex, units
from trio_lua.config.blocks import Address, HttpBlock, ServerBlock
from trio_lua.config.directives import Context, DirectiveTable, Use, takes
from trio_lua.config.model import Listen

__all__ = ["TABLE"]

TABLE = DirectiveTable()

_LATER = {
    "http2": "HTTP/2",
    "spdy": "SPDY",
    "quic": "HTTP/3",
    "proxy_protocol": "the PROXY protocol",
}


@TABLE.directive("server", Context.HTTP, takes(0), form="{")
def _server(use: Use) -> None:
    assert isinstance(use.block, HttpBlock)
    server = ServerBlock(use.build, use.source)
    use.block.servers.append(server)
    use.read(server)
    if not server.listens:
        port = 80 if os.getuid() == 0 else 8000
        _add(use, server, [Listen("", port, source=use.source)], options=False)
    if server.values.get("ssl", use.block.values.get("ssl")):
        server.listens[:] = [replace(listen, ssl=True) for listen in server.listens]


# ---------------------------------------------------------------- listen


@dataclass(frozen=True, slots=True)
class _Place:
    """An address of ``listen``: hosts and ports, or the path of a Unix socket."""

    hosts: tuple[str, ...] = ("",)
    ports: range = range(80, 81)
    path: str | None = None


class _AddressError(Exception):
    """What is wrong, in nginx's words."""


def _ports(text: str) -> range:
    first, dash, last = text.partition("-")
    try:
        start = units.parse_number(first)
        end = units.parse_number(last) if dash else start
    except ValueError:
        raise _AddressError("invalid port") from None
    # Port 0, which nginx refuses, is whatever the system gives; a range has none such.
    if not (bool(dash) <= start <= 65535 and bool(dash) <= end <= 65535):
        raise _AddressError("invalid port")
    if start > end:
        raise _AddressError("invalid port range")
    return range(start, end + 1)


def _place(text: str) -> _Place:
    if text[:5].lower() == "unix:":
        if len(text) == 5:
            raise _AddressError("no path in the unix domain socket")
        if len(os.fsencode(text[5:])) > 107:
            raise _AddressError("too long path in the unix domain socket")
        return _Place(path=text[5:])
    if text.startswith("["):
        return _place6(text)
    if "/" in text or "?" in text:
        raise _AddressError("invalid host")
    host, colon, port = text.partition(":")
    if not colon:
        if host.replace("-", "", 1).isdigit():
            return _Place(ports=_ports(host))
        return _Place(_hosts(host, text))
    ports = _ports(port)
    if not host:
        raise _AddressError("no host")
    return _Place(_hosts(host, text), ports)


def _place6(text: str) -> _Place:
    host, bracket, rest = text[1:].partition("]")
    if not bracket or (rest and not rest.startswith(":")) or "/" in rest:
        raise _AddressError("invalid host")
    ports = _ports(rest[1:]) if rest else range(80, 81)
    if not host:
        raise _AddressError("no host")
    try:
        packed = socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        raise _AddressError("invalid IPv6 address") from None
    return _Place((socket.inet_ntop(socket.AF_INET6, packed),), ports)


def _hosts(host: str, text: str) -> tuple[str, ...]:
    if host in ("*", "0.0.0.0"):
        return ("",)
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        pass
    else:
        return (host,)
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _AddressError("host not found") from None
    return tuple(dict.fromkeys(str(info[4][0]) for info in found))


@TABLE.directive("listen", Context.SERVER, takes(1, None))
def _listen(use: Use) -> None:
    assert isinstance(use.block, ServerBlock)
    try:
        place = _place(use.args[0])
    except _AddressError as error:
        raise use.error(f'{error} in "{use.args[0]}" of the "listen" directive') from None
    options = Listen("", 0, source=use.source)
    changed = False
    encrypted = "ssl" in use.args[1:]
    for word in use.args[1:]:
        if word == "http2" and encrypted:
            use.warn('"http2" of "listen" is ignored, HTTP/1.1 is served')
        elif word in ("default_server", "default"):
            options = replace(options, default_server=True)
        elif word == "ssl":
            options = replace(options, ssl=True)
        else:
            options = _option(use, options, word)
            changed = True
    if place.path is not None:
        listens = [replace(options, path=place.path)]
    else:
        listens = [
            replace(options, host=host, port=port) for host in place.hosts for port in place.ports
        ]
    _add(use, use.block, listens, options=changed)


def _option(use: Use, options: Listen, word: str) -> Listen:
    """The options with one parameter added."""
    name, equals, value = word.partition("=")
    if word == "bind":
        return options
    if word == "reuseport":
        return replace(options, reuseport=True)
    if word == "deferred":
        return replace(options, deferred=True)
    if word in _LATER:
        raise use.error(
            f'the "{word}" parameter of the "listen" directive is not supported yet',
            f"this server does not speak {_LATER[word]} yet",
        )
    if equals and name == "backlog":
        backlog = _number(use, word, units.parse_number, value)
        if not backlog:
            raise use.error(f'invalid backlog "{word}"')
        return replace(options, backlog=backlog)
    if equals and name == "fastopen":
        return replace(options, fastopen=_number(use, word, units.parse_number, value))
    if equals and name == "rcvbuf":
        return replace(options, rcvbuf=_number(use, word, units.parse_size, value))
    if equals and name == "sndbuf":
        return replace(options, sndbuf=_number(use, word, units.parse_size, value))
    if equals and name == "ipv6only" and value[:1] == "o":
        if value not in ("on", "off"):
            raise use.error(f'invalid ipv6only flags "{value}"')
        return replace(options, ipv6only=value == "on")
    if equals and name == "so_keepalive":
        if value not in ("on", "off") and not _is_keepalive(value):
            raise use.error(f'invalid so_keepalive value: "{value}"')
        return replace(options, so_keepalive=value)
    raise use.error(f'invalid parameter "{word}"')


def _number(use: Use, word: str, parse: object, value: str) -> int:
    assert callable(parse)
    try:
        number = parse(value)
    except ValueError:
        raise use.error(f'invalid {word.partition("=")[0]} "{word}"') from None
    assert isinstance(number, int)
    return number


def _is_keepalive(value: str) -> bool:
    """``idle:interval:count``, each of which may be left out, but not all."""
    parts = [*value.split(":", 2), "", ""][:3]
    try:
        for text in parts[:2]:
            if text:
                units.parse_time(text, seconds=True)
        if parts[2]:
            units.parse_number(parts[2])
    except ValueError:
        return False
    return any(part.strip("0") for part in parts)


def _add(use: Use, server: ServerBlock, listens: list[Listen], *, options: bool) -> None:
    http = use.build.http
    assert http is not None
    for listen in listens:
        text = _text(listen)
        address = http.addresses.setdefault(text, Address())
        if server in address.servers:
            raise use.error(f"a duplicate listen {text}")
        if options and address.has_options:
            raise use.error(f"duplicate listen options for {text}")
        if listen.default_server and address.has_default:
            raise use.error(f"a duplicate default server for {text}")
        address.servers.append(server)
        address.has_options |= options
        address.has_default |= listen.default_server
        server.listens.append(listen)


def _text(listen: Listen) -> str:
    if listen.path is not None:
        return f"unix:{listen.path}"
    if ":" in listen.host:
        return f"[{listen.host}]:{listen.port}"
    return f"{listen.host or '0.0.0.0'}:{listen.port}"


# ---------------------------------------------------------------- server_name


@TABLE.directive("server_name", Context.SERVER, takes(1, None))
def _server_name(use: Use) -> None:
    assert isinstance(use.block, ServerBlock)
    for name in use.args:
        if (name.startswith("*") and (len(name) < 3 or name[1] != ".")) or name == ".":
            raise use.error(f'server name "{name}" is invalid')
        if "/" in name:
            use.warn(f'server name "{name}" has suspicious symbols')
        if name.startswith("~"):
            if name == "~":
                raise use.error(f'empty regex in server name "{name}"')
            caseless = any("A" <= char <= "Z" for char in name)
            regex.check(use, name[1:], caseless=caseless)
            use.block.names.append(name)
        elif name.lower() == "$hostname":
            use.block.names.append(socket.gethostname().lower())
        else:
            use.block.names.append(name.lower())
