"""Who may have a location: ``allow`` and ``deny``, and how ``satisfy`` joins them with the rest.

The rules of a location are sorted by address family when the configuration is loaded; ``all`` stands
in every family. The first rule that fits decides, and a location without a fitting rule decides
nothing. An IPv4 address that came over an IPv6 socket is judged by the IPv4 rules.

:class:`Gate` is the access phase's bookkeeping. Each check of the phase, these rules and the Lua
handler, reports its result to it and learns how the phase goes on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import Enum

from trio_lua.errors import ConfigError
from trio_lua.request.exchange import Exchange

__all__ = ["Decision", "Gate", "Rules"]

_ERR = 4
_UNAUTHORIZED, _FORBIDDEN = 401, 403


class Rules:
    """The ``allow`` and ``deny`` lines of a location."""

    __slots__ = ("_inet", "_inet6", "_unix")

    def __init__(self, rules: Sequence[tuple[bool, str]]) -> None:
        """Sort the rules.

        Args:
            rules: Whether to allow, and whom: "all", "unix:", an address or a network.

        Raises:
            ConfigError: An address is not one.
        """
        self._inet: list[tuple[bool, int, int]] = []
        self._inet6: list[tuple[bool, int, int]] = []
        self._unix: list[bool] = []
        for allow, who in rules:
            if who == "all":
                self._inet.append((allow, 0, 0))
                self._inet6.append((allow, 0, 0))
                self._unix.append(allow)
            elif who == "unix:":
                self._unix.append(allow)
            else:
                try:
                    network = ipaddress.ip_network(who, strict=False)
                except ValueError:
                    raise ConfigError(f'invalid parameter "{who}"') from None
                rule = (allow, int(network.netmask), int(network.network_address))
                (self._inet if network.version == 4 else self._inet6).append(rule)

    def __bool__(self) -> bool:
        return bool(self._inet or self._inet6 or self._unix)

    def check(self, peer: str) -> bool | None:
        """Whether a peer is allowed; None when no rule concerns it.

        Args:
            peer: Its address, or "unix:" for a unix socket.
        """
        if not peer or peer.startswith("unix:"):
            return self._unix[0] if self._unix else None
        address = ipaddress.ip_address(peer.partition("%")[0])
        rules = self._inet
        if isinstance(address, ipaddress.IPv6Address):
            mapped = address.ipv4_mapped
            if mapped is not None and self._inet:
                address = mapped
            else:
                rules = self._inet6
        number = int(address)
        for allow, mask, network in rules:
            if number & mask == network:
                return allow
        return None


class Decision(Enum):
    """How the access phase goes on after a check."""

    NEXT = "next"  # to the next check
    DONE = "done"  # access is granted: leave out the other checks
    FINISH = "finish"  # end the request with the status that the check gave


class Gate:
    """Joins the results of the access phase's checks as ``satisfy`` asks.

    Report each check with :meth:`take`; when none ended the phase, ask :meth:`finish`.
    """

    __slots__ = ("_any", "_refusal")

    def __init__(self, satisfy: str) -> None:
        self._any = satisfy == "any"
        self._refusal: int | None = None

    def rules(self, rules: Rules, peer: str, exchange: Exchange) -> Decision:
        """Run a location's rules and take their result; a refusal has the status 403."""
        allowed = rules.check(peer)
        if allowed is None:
            return Decision.NEXT
        if not allowed and not self._any:
            exchange.log(_ERR, b"access forbidden by rule")
        return self.take(0 if allowed else _FORBIDDEN)

    def take(self, result: int | None) -> Decision:
        """Take a check's result.

        Args:
            result: 0 when it grants access, None when it has no opinion, otherwise a status.
        """
        if result is None:
            return Decision.NEXT
        if result == 0:
            if not self._any:
                return Decision.NEXT
            self._refusal = None
            return Decision.DONE
        if self._any and result in (_FORBIDDEN, _UNAUTHORIZED):
            if self._refusal != _UNAUTHORIZED:
                self._refusal = result
            return Decision.NEXT
        return Decision.FINISH

    def finish(self, exchange: Exchange) -> int | None:
        """The status to end the request with when no check granted access but one refused it."""
        refusal, self._refusal = self._refusal, None
        if refusal == _FORBIDDEN:
            exchange.log(_ERR, b"access forbidden by rule")
        return refusal
