"""The resolver of the ``resolver`` directive: asks name servers itself, as nginx does.

Answers are kept as long as they say, or ``valid=``. Requests that ask for the same name at the same time share one
query. The wire format is dnspython's (the extra ``dns``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from trio_lua.net.errors import SocketError

__all__ = ["NOT_FOUND", "DnsResolver", "parse_server", "system_servers", "unresolved"]

#: A server that has not answered by then is asked again, or the next one is.
_PATIENCE = 5.0
#: Names that are kept.
_KEPT = 10000
#: How long a name is kept at most, in seconds.
_LONGEST = 86400.0

#: Response codes in nginx's words.
_CODES = {
    1: "Format error",
    2: "Server failure",
    3: "Host not found",
    4: "Unimplemented",
    5: "Operation refused",
}
#: How many servers' answers lead from one alias to the next, as in nginx.
_MOST_ALIASES = 50
#: The response code of a name that does not exist.
NOT_FOUND = 3


def parse_server(word: str) -> tuple[str, int]:
    """Address and port of a server in the ``resolver`` directive."""
    if word.startswith("["):
        host, _, rest = word[1:].partition("]")
        return host, int(rest[1:] or 53)
    host, _, port = word.partition(":")
    return host, int(port or 53)


def system_servers(path: str = "/etc/resolv.conf") -> list[str]:
    """The name servers of the system (``resolver local=on``)."""
    try:
        text = Path(path).read_text()
    except OSError:
        return []
    lines = [line.split() for line in text.splitlines()]
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


class DnsResolver:
    """Asks name servers.

    Args:
        servers: Their addresses and ports.
        valid: Seconds for which answers are kept; None for what they say.
        ipv4: Whether to ask for IPv4 addresses.
        ipv6: Whether to ask for IPv6 addresses.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        *,
        valid: float | None = None,
        ipv4: bool = True,
        ipv6: bool = True,
    ) -> None:
        self._servers = list(servers)
        self._valid = valid
        self._types = [kind for kind, wanted in (("A", ipv4), ("AAAA", ipv6)) if wanted]
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._asking: dict[str, trio.Event] = {}
        self._turn = 0

    async def resolve(self, name: str) -> list[str]:
        key = name.lower()
        while True:
            known = self._known.get(key)
            if known is not None and known[0] > trio.current_time():
                addresses = known[1]
                # each user begins with another address
                addresses.append(addresses.pop(0))
                return list(addresses)
            asking = self._asking.get(key)
            if asking is None:
                break
            await asking.wait()
        self._asking[key] = asked = trio.Event()
        try:
            lifetime, addresses = await self._ask(name)
        finally:
            del self._asking[key]
            asked.set()
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[key] = trio.current_time() + lifetime, list(addresses)
        return addresses

    async def _ask(self, name: str) -> tuple[float, list[str]]:
        """Seconds to keep the answer, and addresses."""
        try:
            import dns.exception
            import dns.message
        except ImportError:
            log = 'the "resolver" directive needs dnspython (the extra "dns" of trio-lua)'
            raise SocketError("failed to start the resolver", log) from None
        try:
            queries = [dns.message.make_query(name, kind) for kind in self._types]
        except dns.exception.DNSException:
            raise unresolved(name, NOT_FOUND) from None
        found: list[Any] = [None] * len(queries)

        async def ask(index: int) -> None:
            found[index] = await self._follow(queries[index])

        async with trio.open_nursery() as nursery:
            for index in range(len(queries)):
                nursery.start_soon(ask, index)
        addresses = [address for _, texts, _ in found for address in texts]
        if not addresses:
            code = next((code for _, _, code in found if code), NOT_FOUND)
            raise unresolved(name, code)
        lifetime = min(ttl for ttl, texts, _ in found if texts)
        return (lifetime if self._valid is None else self._valid), addresses

    async def _follow(self, query: Any) -> tuple[float, list[str], int]:
        """Seconds to keep the answer to a query, its addresses, its response code.

        A server that knows only a part of a chain of aliases is asked for the next one.
        """
        import dns.message

        longest = math.inf
        for _ in range(_MOST_ALIASES):
            lifetime, addresses, code, alias = _read(await self._query(query))
            longest = min(longest, lifetime)
            if alias is None:
                return longest, addresses, code
            query = dns.message.make_query(alias, query.question[0].rdtype)
        return 0, [], 0

    async def _query(self, query: Any) -> Any:
        """The answer of the first server that gives one."""
        import dns.asyncquery
        import dns.exception

        while True:
            host, port = self._servers[self._turn % len(self._servers)]
            self._turn += 1
            with trio.move_on_after(_PATIENCE):
                try:
                    answer, _ = await dns.asyncquery.udp_with_fallback(
                        query, host, port=port, ignore_unexpected=True
                    )
                except (dns.exception.DNSException, OSError, EOFError):
                    # nothing to be had from this server at the moment
                    await trio.sleep_forever()
                return answer


def _read(answer: Any) -> tuple[float, list[str], int, Any]:
    """Seconds to keep an answer, its addresses, its response code, and the alias to ask for instead."""
    import dns.exception
    import dns.rdatatype

    code = int(answer.rcode())
    if code:
        return 0, [], code, None
    with contextlib.suppress(dns.exception.DNSException):
        chain = answer.resolve_chaining()
        lifetime = min(float(chain.minimum_ttl), _LONGEST)
        if chain.answer is not None:
            return lifetime, [str(item.address) for item in chain.answer], 0, None
        # a server that has followed the aliases to where there is no address says so
        at_the_end = any(part.rdtype == dns.rdatatype.SOA for part in answer.authority)
        if chain.cnames and not at_the_end:
            return lifetime, [], 0, chain.canonical_name
    return math.inf, [], 0, None


def unresolved(name: str, code: int) -> SocketError:
    """The failure of a query with a response code."""
    return SocketError(
        f"{name} could not be resolved ({code}: {_CODES.get(code, 'Unknown error')})"
    )
