"""Sizes, times, numbers and switches as nginx writes them.

Each function takes the text and returns the value, or raises :class:`ValueError`;
what nginx calls the mistake depends on the directive, so that is said elsewhere.
"""

from __future__ import annotations

import re

_SCALES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_MAX = (1 << 63) - 1

# The order in which units may follow each other, and what one of each is worth in milliseconds.
_TIME_UNITS = {
    "y": (1, 365 * 86_400_000),
    "M": (2, 30 * 86_400_000),
    "w": (3, 7 * 86_400_000),
    "d": (4, 86_400_000),
    "h": (5, 3_600_000),
    "m": (6, 60_000),
    "s": (7, 1000),
    "ms": (8, 1),
    " ": (9, 1000),
}
_TIME_PART = re.compile(r"([0-9]*)(ms|[yMwdhms ])[ ]*")
_DIGITS = re.compile(r"[0-9]+")


def parse_number(text: str) -> int:
    """``"16"`` -> 16; only ASCII digits, no sign."""
    if not _DIGITS.fullmatch(text):
        raise ValueError(text)
    value = int(text)
    if value > _MAX:
        raise ValueError(text)
    return value


def parse_size(text: str, *, giga: bool = False) -> int:
    """``"8k"`` -> 8192. ``giga`` allows the suffix "g" (nginx: only where a size is a file offset)."""
    scale = _SCALES.get(text[-1:].lower(), 1)
    if scale == 1 << 30 and not giga:
        raise ValueError(text)
    value = parse_number(text if scale == 1 else text[:-1]) * scale
    if value > _MAX:
        raise ValueError(text)
    return value


def parse_time(text: str, *, seconds: bool = False) -> float:
    """``"1h30m"`` -> 5400.0. A bare number is seconds.

    ``seconds`` is for settings that nginx keeps in whole seconds: "ms" is refused there, while
    only those know years and months.
    """
    total = 0
    step = 0 if seconds else 2
    position = 0
    length = len(text)
    while position < length:
        part = _TIME_PART.match(text, position)
        if part is None:
            break
        digits, unit = part.groups()
        rank, scale = _TIME_UNITS[unit]
        # A year and a blank may repeat where nginx lets them; all other units only go downwards.
        if unit == "ms" and seconds:
            raise ValueError(text)
        if unit == "y":
            if step > 0:
                raise ValueError(text)
        elif unit == " ":
            if step >= 7:
                raise ValueError(text)
        elif step >= rank:
            raise ValueError(text)
        step = rank
        total += int(digits or "0") * scale
        position = part.end()
    rest = text[position:]
    if rest:
        total += parse_number(rest) * 1000
    elif not _DIGITS.search(text):
        raise ValueError(text)
    if total > _MAX:
        raise ValueError(text)
    return total / 1000


def parse_switch(text: str) -> bool:
    """``"on"`` or ``"off"`` in any case."""
    lowered = text.lower()
    if lowered == "on":
        return True
    if lowered == "off":
        return False
    raise ValueError(text)
