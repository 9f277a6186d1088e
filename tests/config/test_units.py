from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.config.units import parse_number, parse_size, parse_switch, parse_time


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("16", 16), ("8k", 8192), ("8K", 8192), ("2m", 2 << 20), ("1M", 1 << 20)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value
    assert parse_size(text, giga=True) == value


def test_gigabytes_only_where_allowed() -> None:
    assert parse_size("3g", giga=True) == 3 << 30
    with pytest.raises(ValueError, match="3g"):
        parse_size("3g")


@pytest.mark.parametrize(
    "text", ["", "k", "-1", "1.5", "1kk", "x", "1 k", "²", "9" * 30, "9" * 18 + "m"]
)
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller words the error
        parse_size(text, giga=True)


@pytest.mark.parametrize("text", ["", "+1", "-1", "1_0", "٣", "9" * 30])
def test_wrong_numbers(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("90s", 90.0),
        ("250ms", 0.25),
        ("68000ms", 68.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1h30", 3630.0),
        ("1w2d3h4m5s6ms", 604800.0 + 2 * 86400 + 3 * 3600 + 245.006),
        ("1m 5", 65.0),
    ],
)
def test_times(text: str, value: float) -> None:
    assert parse_time(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "s", "x", "1x", "30m1h", "1s1s", "1M", "1y", "-1", "1.5s", "ms"]
)
def test_wrong_times(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_time(text)


def test_whole_seconds_know_years_but_no_milliseconds() -> None:
    assert parse_time("1y2M", seconds=True) == (365 + 60) * 86400
    for text in ("1ms", "1M1y"):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_time(text, seconds=True)


@given(st.lists(st.integers(0, 1000), min_size=5, max_size=5))
def test_units_add_up(counts: list[int]) -> None:
    parts = list(zip(counts, "wdhms", (604800, 86400, 3600, 60, 1), strict=True))
    text = "".join(f"{count}{unit}" for count, unit, _ in parts)
    assert parse_time(text) == sum(count * worth for count, _, worth in parts)


@given(st.text(max_size=8))
def test_nothing_but_value_error(text: str) -> None:
    for parse in (parse_number, parse_size, parse_time, parse_switch):
        try:
            parse(text)
        except ValueError:
            continue


def test_switches() -> None:
    assert parse_switch("on") is parse_switch("ON") is True
    assert parse_switch("off") is parse_switch("Off") is False
    with pytest.raises(ValueError, match="yes"):
        parse_switch("yes")
