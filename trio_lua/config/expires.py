"""The argument of ``expires``, which may come from a variable and is then read per request."""

from __future__ import annotations

from dataclasses import dataclass

from trio_lua.config.units import parse_time

__all__ = ["Expiry", "parse_expiry"]

_DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a response goes stale.

    Attributes:
        kind: "off", "epoch" and "max" stand for themselves; "access" counts from the request,
            "modified" from ``Last-Modified``, "daily" from the next midnight, local time.
        seconds: May be negative, for a response that is stale already.
    """

    kind: str
    seconds: int = 0


def parse_expiry(text: str, *, modified: bool = False) -> Expiry:
    """Read what follows ``expires`` or ``expires modified``.

    Raises:
        ValueError: It means nothing; the message is nginx's, to follow the directive's name.
    """
    if not modified and text in ("epoch", "max", "off"):
        return Expiry(text)
    daily = text.startswith("@")
    if daily and modified:
        raise ValueError('daily time cannot be used with "modified" parameter')
    try:
        seconds = int(parse_time(text[1:] if text[:1] in ("@", "+", "-") else text, seconds=True))
    except ValueError:
        raise ValueError("invalid value") from None
    if daily:
        if seconds > _DAY:
            raise ValueError("daily time value must be less than 24 hours")
        return Expiry("daily", seconds)
    return Expiry("modified" if modified else "access", -seconds if text[:1] == "-" else seconds)
