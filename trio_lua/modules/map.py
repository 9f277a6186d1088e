"""Variables by tables: ``map``, ``geo`` and ``split_clients``, as nginx's modules of these names.

Their blocks become tables when the configuration is read; a variable is looked up when it is first read in a
request, and keeps that value (unless ``volatile``).
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Union

from trio_lua.config import regex
from trio_lua.config.directives import Context, Use, takes
from trio_lua.config.families.slots import slots
from trio_lua.config.model import Source, Template, Var
from trio_lua.config.syntax import fail
from trio_lua.request.module import Exchange, Module

__all__ = ["MODULE", "murmur_hash2"]

MODULE = Module("map")

slots(MODULE.directives, Use.number, Context.HTTP, "map_hash_bucket_size", "map_hash_max_size")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# -------------------------------------------------------------------------------------- map


@dataclass(slots=True)
class _Map:
    source: Template
    default: Template | None = None
    exact: dict[bytes, Template] = field(default_factory=dict)
    #: Host names that end or begin so (in lower case, with the dot), the longest first.
    endings: list[tuple[bytes, Template]] = field(default_factory=list)
    beginnings: list[tuple[bytes, Template]] = field(default_factory=list)
    #: Pattern and whether it ignores case.
    patterns: list[tuple[str, bool, Template]] = field(default_factory=list)
    hostnames: bool = False


@MODULE.directive("map", Context.HTTP, takes(2), form="{")
def _map(use: Use) -> None:
    table = _Map(use.template(0))
    name = use.variable(1)
    volatile = False
    for words, source in use.entries():
        if words == ("hostnames",):
            table.hostnames = True
        elif words == ("volatile",):
            volatile = True
        elif len(words) != 2:
            raise fail("invalid number of the map parameters", source)
        else:
            _map_entry(use, table, words[0], words[1], source)
    for wildcards in (table.endings, table.beginnings):
        wildcards.sort(key=lambda item: -len(item[0]))
    use.compute(name, "map", table, cached=not volatile)


def _map_entry(use: Use, table: _Map, word: str, text: str, source: Source) -> None:
    value = use.build.variables.template(text, source)
    if word == "default":
        if table.default is not None:
            raise fail("duplicate default map parameter", source)
        table.default = value
    elif word.startswith("~"):
        caseless = word.startswith("~*")
        pattern = word[2:] if caseless else word[1:]
        regex.check(use, pattern, caseless=caseless)
        table.patterns.append((pattern, caseless, value))
    else:
        word = word.removeprefix("\\")
        if not _add_key(table, _encode(word).lower(), value, word, source):
            raise fail(f'conflicting parameter "{word}"', source)


def _add_key(table: _Map, key: bytes, value: Template, word: str, source: Source) -> bool:
    """Whether the key is new."""
    if table.hostnames and (b"*" in key or key.startswith(b".")):
        ending = key.startswith((b"*.", b"."))
        rest = key.lstrip(b"*") if ending else key.removesuffix(b"*")
        if b"*" in rest or b".." in rest or len(rest) < 2 or not (ending or rest[-1:] == b"."):
            raise fail(f'invalid hostname or wildcard "{word}"', source)
        if key.startswith(b".") and not _put(table.exact, key[1:], value):
            return False
        wildcards = table.endings if ending else table.beginnings
        if any(other == rest for other, _ in wildcards):
            return False
        wildcards.append((rest, value))
        return True
    return _put(table.exact, key, value)


def _put(table: dict[bytes, Template], key: bytes, value: Template) -> bool:
    return table.setdefault(key, value) is value


@MODULE.compute("map")
def _mapped(request: Exchange, table: _Map) -> bytes:
    text = request.evaluate(table.source)
    if table.hostnames:
        text = text.removesuffix(b".")
    value = _find(request, table, text) or table.default
    return b"" if value is None else request.evaluate(value)


def _find(request: Exchange, table: _Map, text: bytes) -> Template | None:
    key = text.lower()
    value = table.exact.get(key)
    if value is not None:
        return value
    for ending, value in table.endings:
        if key.endswith(ending) and len(key) > len(ending):
            return value
    for beginning, value in table.beginnings:
        if key.startswith(beginning) and len(key) > len(beginning):
            return value
    for pattern, caseless, value in table.patterns:
        if request.match(pattern, text, caseless=caseless, keep=True):
            return value
    return None


# -------------------------------------------------------------------------------------- geo

_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

#: What stands for a client without an address: nginx asks for 255.255.255.255.
_NOWHERE = ipaddress.IPv4Address("255.255.255.255")


@dataclass(slots=True)
class _Geo:
    source: Template | None
    default: bytes = b""
    ranges: bool = False
    proxies: list[_Network] = field(default_factory=list)
    recursive: bool = False
    #: Values by IP version and prefix length, then by network address.
    networks: dict[tuple[int, int], dict[int, bytes]] = field(default_factory=dict)
    #: The lengths of each IP version, the longest first.
    lengths: dict[int, list[int]] = field(default_factory=dict)
    #: First and last address of each range, in order, and its value.
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)


@MODULE.directive("geo", Context.HTTP, takes(1, 2), form="{")
def _geo(use: Use) -> None:
    source = None
    if len(use.args) == 2:
        text = use.args[0]
        if not text.startswith("$"):
            raise use.error(f'invalid variable name "{text}"')
        source = Template(text, (use.build.variables.use(text[1:], use.source),))
    name = use.variable(len(use.args) - 1)
    table = _Geo(source)
    ranges: dict[tuple[int, int], bytes] = {}
    has_networks = False
    for words, place in use.entries():
        if words == ("ranges",):
            if has_networks:
                raise fail(
                    'the "ranges" directive must be the first directive inside "geo" block', place
                )
            table.ranges = True
        elif words == ("proxy_recursive",):
            table.recursive = True
        elif len(words) != 2:
            raise fail("invalid number of the geo parameters", place)
        elif words[0] == "proxy":
            table.proxies.append(_network(words[1], place))
        elif words[0] == "default":
            table.default = _encode(words[1])
        elif table.ranges:
            _add_range(use, ranges, words, place)
        else:
            has_networks = True
            _add_network(use, table, words, place)
    for (start, end), value in sorted(ranges.items()):
        if table.ends and start <= table.ends[-1]:
            raise use.error(f'range "{_range_text(start, end)}" overlaps another')
        table.starts.append(start)
        table.ends.append(end)
        table.values.append(value)
    for version, length in sorted(table.networks, reverse=True):
        table.lengths.setdefault(version, []).append(length)
    use.compute(name, "geo", table)


def _network(text: str, source: Source) -> _Network:
    try:
        return ipaddress.ip_network("255.255.255.255" if text == "nowhere" else text, strict=False)
    except ValueError:
        raise fail(f'invalid network "{text}"', source) from None


def _add_network(use: Use, table: _Geo, words: Sequence[str], source: Source) -> None:
    key, text = words
    delete = key == "delete"
    network = _network(text if delete else key, source)
    values = table.networks.setdefault((network.version, network.prefixlen), {})
    number = int(network.network_address)
    if delete:
        if values.pop(number, None) is None:
            use.build.warn(f'no network "{network}" to delete in {source}')
        return
    value = _encode(text)
    if number in values:
        use.build.warn(
            f'duplicate network "{network}", value: "{text}", '
            f'old value: "{values[number].decode("utf-8", "replace")}" in {source}'
        )
    values[number] = value


def _add_range(
    use: Use, ranges: dict[tuple[int, int], bytes], words: Sequence[str], source: Source
) -> None:
    key, text = words
    delete = key == "delete"
    word = text if delete else key
    first, _, last = word.partition("-")
    try:
        place = int(ipaddress.IPv4Address(first)), int(ipaddress.IPv4Address(last or first))
    except ValueError:
        raise fail(f'invalid range "{word}"', source) from None
    if place[0] > place[1]:
        raise fail(f'invalid range "{word}"', source)
    if delete:
        if ranges.pop(place, None) is None:
            use.build.warn(f'no address range "{word}" to delete in {source}')
        return
    if place in ranges:
        use.build.warn(
            f'duplicate range "{word}", value: "{text}", '
            f'old value: "{ranges[place].decode("utf-8", "replace")}" in {source}'
        )
    ranges[place] = _encode(text)


def _range_text(start: int, end: int) -> str:
    return f"{ipaddress.IPv4Address(start)}-{ipaddress.IPv4Address(end)}"


@MODULE.compute("geo")
def _located(request: Exchange, table: _Geo) -> bytes:
    address = _client(request, table)
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or (_NOWHERE if table.ranges else address)
    number = int(address)
    if table.ranges:
        index = bisect_right(table.starts, number) - 1
        return table.values[index] if index >= 0 and number <= table.ends[index] else table.default
    bits = address.max_prefixlen
    for length in table.lengths.get(address.version, ()):
        network = number >> (bits - length) << (bits - length)
        value = table.networks[address.version, length].get(network)
        if value is not None:
            return value
    return table.default


_REMOTE = Template("$remote_addr", (Var("remote_addr"),))


def _client(request: Exchange, table: _Geo) -> _Address:
    address = _parse(request.evaluate(table.source or _REMOTE))
    if address is None or not table.proxies:
        return address or _NOWHERE
    for forwarded in _forwarded(request):
        if not any(address in network for network in table.proxies):
            break
        address = forwarded
        if not table.recursive:
            break
    return address


def _forwarded(request: Exchange) -> Iterator[_Address]:
    """The addresses of X-Forwarded-For from the last to the first, up to one that is none."""
    text = request.variable(b"http_x_forwarded_for") or b""
    for part in reversed(re.split(rb"[ ,]+", text.strip(b" ,"))):
        address = _parse(part)
        if address is None:
            return
        yield address


def _parse(text: bytes) -> _Address | None:
    try:
        return ipaddress.ip_address(text.decode("ascii", "replace"))
    except ValueError:
        return None


# ---------------------------------------------------------------------------- split_clients


@dataclass(slots=True)
class _Split:
    source: Template
    #: Up to which hash (exclusive; None: all that are left) the clients get a value.
    parts: list[tuple[int | None, bytes]] = field(default_factory=list)


@MODULE.directive("split_clients", Context.HTTP, takes(2), form="{")
def _split_clients(use: Use) -> None:
    table = _Split(use.template(0))
    name = use.variable(1)
    total = last = 0
    for words, source in use.entries():
        if len(words) != 2:
            raise fail("invalid number of the split_clients parameters", source)
        part, value = words
        if part == "*":
            total = max(total, 10000)
            table.parts.append((None, _encode(value)))
            continue
        share = re.fullmatch(r"(\d+)(?:\.(\d{0,2}))?%", part)
        hundredths = (
            0 if share is None else int(share[1]) * 100 + int((share[2] or "").ljust(2, "0"))
        )
        if not hundredths:
            raise fail(f'invalid percent value "{part}"', source)
        total += hundredths
        last += hundredths * 0xFFFFFFFF // 10000
        table.parts.append((last, _encode(value)))
    if total > 10000:
        raise use.error("percent total is greater than 100%")
    use.compute(name, "split_clients", table)


@MODULE.compute("split_clients")
def _share(request: Exchange, table: _Split) -> bytes:
    number = murmur_hash2(request.evaluate(table.source))
    for limit, value in table.parts:
        if limit is None or number < limit:
            return value
    return b""


def murmur_hash2(data: bytes) -> int:
    """MurmurHash2 with seed 0, 32 bits: what nginx splits clients by."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    number = len(data) & mask
    whole = len(data) & ~3
    for place in range(0, whole, 4):
        part = int.from_bytes(data[place : place + 4], "little") * multiplier & mask
        part = (part ^ part >> 24) * multiplier & mask
        number = number * multiplier & mask ^ part
    if whole < len(data):
        number = (number ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
    number = (number ^ number >> 13) * multiplier & mask
    return number ^ number >> 15
