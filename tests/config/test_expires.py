"""The argument of ``expires``."""

from __future__ import annotations

import pytest

from trio_lua.config.expires import Expiry, parse_expiry


@pytest.mark.parametrize(
    ("text", "modified", "expected"),
    [
        ("off", False, Expiry("off")),
        ("epoch", False, Expiry("epoch")),
        ("max", False, Expiry("max")),
        ("1h30m", False, Expiry("access", 5400)),
        ("+1d", False, Expiry("access", 86400)),
        ("-1", False, Expiry("access", -1)),
        ("@15h30m", False, Expiry("daily", 55800)),
        ("1h", True, Expiry("modified", 3600)),
        ("-1h", True, Expiry("modified", -3600)),
    ],
)
def test_what_it_means(text: str, modified: bool, expected: Expiry) -> None:
    assert parse_expiry(text, modified=modified) == expected


@pytest.mark.parametrize(
    ("text", "modified", "message"),
    [
        ("", False, "invalid value"),
        ("x", False, "invalid value"),
        ("max", True, "invalid value"),
        ("@25h", False, "daily time value must be less than 24 hours"),
        ("@1h", True, 'daily time cannot be used with "modified" parameter'),
    ],
)
def test_what_it_refuses(text: str, modified: bool, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        parse_expiry(text, modified=modified)
