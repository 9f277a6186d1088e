from __future__ import annotations

from typing import Any

import pytest

from trio_lua.errors import ConfigError
from trio_lua.phases.access import Decision, Gate, Rules

RULES = (
    (False, "192.168.1.1"),
    (True, "192.168.1.0/24"),
    (True, "10.1.1.77/16"),
    (True, "2001:0db8::/32"),
    (False, "unix:"),
    (False, "all"),
)


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("192.168.1.1", False),
        ("192.168.1.2", True),
        ("10.1.255.255", True),
        ("10.2.0.0", False),
        ("2001:db8:1::1", True),
        ("2001:db9::1", False),
        ("::ffff:192.168.1.2", True),
        ("::ffff:192.168.1.1", False),
        ("fe80::1%eth0", False),
        ("unix:", False),
        ("unix:/run/peer", False),
        ("", False),
    ],
)
def test_rules(peer: str, allowed: bool) -> None:
    assert Rules(RULES).check(peer) is allowed


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "unix:", "::ffff:127.0.0.1"])
def test_no_fitting_rule(peer: str) -> None:
    assert not Rules(())
    assert Rules(()).check(peer) is None
    rules = Rules([(True, "10.0.0.0/8"), (True, "fd00::/8")])
    assert rules
    assert rules.check(peer) is None


def test_mapped_address_is_an_ipv6_one_without_ipv4_rules() -> None:
    assert Rules([(False, "::ffff:0:0/96")]).check("::ffff:127.0.0.1") is False


def test_unix_rule_is_only_for_unix_peers() -> None:
    rules = Rules([(True, "unix:")])
    assert rules.check("unix:") is True
    assert rules.check("127.0.0.1") is None


@pytest.mark.parametrize("who", ["everyone", "1.2.3", "10.0.0.0/33", "::/129"])
def test_bad_rule(who: str) -> None:
    with pytest.raises(ConfigError, match="invalid parameter"):
        Rules([(True, who)])


def results(make: Any, satisfy: str, *checks: int | None) -> tuple[list[str], int | None]:
    """Feed results to a gate: the decisions, and the status at the end of the phase."""
    gate = Gate(satisfy)
    decisions = []
    for check in checks:
        decision = gate.take(check)
        decisions.append(decision.value)
        if decision is not Decision.NEXT:
            return decisions, None
    return decisions, gate.finish(make.exchange())


@pytest.mark.parametrize(
    ("satisfy", "checks", "expected"),
    [
        ("all", [0, None], (["next", "next"], None)),
        ("all", [0, 403], (["next", "finish"], None)),
        ("all", [403], (["finish"], None)),
        ("any", [0], (["done"], None)),
        ("any", [403, 0], (["next", "done"], None)),
        ("any", [403, None], (["next", "next"], 403)),
        ("any", [403, 401], (["next", "next"], 401)),
        ("any", [401, 403], (["next", "next"], 401)),
        ("any", [None, None], (["next", "next"], None)),
        ("any", [403, 500], (["next", "finish"], None)),
    ],
)
def test_satisfy(make: Any, satisfy: str, checks: list[int | None], expected: Any) -> None:
    assert results(make, satisfy, *checks) == expected


DENIED = (4, b"access forbidden by rule")


@pytest.mark.parametrize(("satisfy", "decision"), [("all", "finish"), ("any", "next")])
def test_refusal_is_logged_once(make: Any, satisfy: str, decision: str) -> None:
    exchange = make.exchange()
    gate = Gate(satisfy)
    assert gate.rules(Rules([(False, "all")]), "127.0.0.1", exchange).value == decision
    if satisfy == "any":
        assert exchange.logged == []
        assert gate.finish(exchange) == 403
        assert gate.finish(exchange) is None
    assert exchange.logged == [DENIED]


def test_401_at_the_end_is_not_called_a_rule(make: Any) -> None:
    exchange = make.exchange()
    gate = Gate("any")
    assert gate.rules(Rules(RULES), "192.168.1.1", exchange) is Decision.NEXT
    assert gate.take(401) is Decision.NEXT
    assert gate.finish(exchange) == 401
    assert exchange.logged == []


def test_rules_that_grant_or_have_no_opinion(make: Any) -> None:
    exchange = make.exchange()
    rules = Rules([(True, "127.0.0.0/8")])
    assert Gate("any").rules(rules, "127.0.0.1", exchange) is Decision.DONE
    assert Gate("all").rules(rules, "127.0.0.1", exchange) is Decision.NEXT
    assert Gate("any").rules(rules, "10.0.0.1", exchange) is Decision.NEXT
