"""The cached clock and nginx's date formats."""

from __future__ import annotations

import email.utils
import math
import time as stdtime
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from chunks import Eval, evaluator
from hypothesis import given
from hypothesis import strategies as st

import trio_lua.api
from trio_lua.api import time
from trio_lua.lua.vm import VM

API = Path(trio_lua.api.__file__).parent


class Clock:
    def __init__(self) -> None:
        self.value = 1290079655.25
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return self.value


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def lua(clock: Clock) -> Eval:
    return evaluator(VM(calls=time.calls(clock), files=[API / "time.lua"]))


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    stdtime.tzset()
    yield
    monkeypatch.undo()
    stdtime.tzset()


def at(lua: Eval, clock: Clock, value: float) -> None:
    clock.value = value
    lua("rt.S.now = nil")


class TestClock:
    def test_is_read_once_a_turn(self, lua: Eval, clock: Clock) -> None:
        at(lua, clock, 1290079655.25)
        before = clock.calls
        assert lua("return ngx.now(), ngx.time(), rt.now(), ngx.now()") == (
            1290079655.25,
            1290079655,
            1290079655.25,
            1290079655.25,
        )
        clock.value += 10
        assert lua("return ngx.now()") == 1290079655.25
        assert clock.calls == before + 1
        lua("rt.S.now = nil")
        assert lua("return ngx.now()") == 1290079665.25

    def test_update_time(self, lua: Eval, clock: Clock) -> None:
        at(lua, clock, 1.0)
        assert lua("return ngx.now()") == 1
        clock.value = 2.5
        assert lua("return ngx.update_time()") is None
        assert lua("return ngx.now()") == 2.5

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (1290079655.1239, 1290079655.123),
            (1290079655.9999, 1290079655.999),
            (1290079655.234, 1290079655.234),
            (1290079655.0, 1290079655.0),
        ],
    )
    def test_milliseconds(self, lua: Eval, clock: Clock, value: float, expected: float) -> None:
        at(lua, clock, value)
        assert lua("return ngx.now()") == expected

    @given(st.integers(0, 2**32 - 1), st.integers(0, 999))
    def test_whole_milliseconds_stay(
        self, lua: Eval, clock: Clock, seconds: int, milliseconds: int
    ) -> None:
        value = seconds + milliseconds / 1000
        at(lua, clock, value)
        assert lua("return ngx.now()") == value

    @pytest.mark.usefixtures("zone")
    def test_local_and_universal_texts(self, lua: Eval, clock: Clock) -> None:
        at(lua, clock, 1290108600.9)
        assert lua("return ngx.localtime(), ngx.today(), ngx.utctime()") == (
            b"2010-11-19 01:00:00",
            b"2010-11-19",
            b"2010-11-18 19:30:00",
        )
        at(lua, clock, 1290108601.0)
        assert lua("return ngx.localtime(), ngx.utctime()") == (
            b"2010-11-19 01:00:01",
            b"2010-11-18 19:30:01",
        )


class TestDates:
    @given(st.integers(0, 253402300799))
    def test_http_time(self, lua: Eval, seconds: int) -> None:
        text = lua("return ngx.http_time(...)", seconds)
        assert text == lua("return rt.http_time(...)", seconds)
        assert lua("return ngx.parse_http_time(...)", text) == seconds
        moment = datetime.fromtimestamp(seconds, timezone.utc)
        assert text.decode() == email.utils.format_datetime(moment, usegmt=True)

    def test_http_time_of_fractions_and_extremes(self, lua: Eval) -> None:
        first, last = b"Thu, 01 Jan 1970 00:00:00 GMT", b"Fri, 31 Dec 9999 23:59:59 GMT"
        assert lua("return ngx.http_time(1290079655.9)") == b"Thu, 18 Nov 2010 11:27:35 GMT"
        assert lua("return ngx.http_time(-5), ngx.http_time(1e15)") == (first, last)
        for value in (math.inf, -math.inf, math.nan):
            assert lua("return ngx.http_time(...)", value) == first

    def test_cookie_time(self, lua: Eval) -> None:
        code = "return ngx.cookie_time(...)"
        assert lua(code, 1290079655) == b"Thu, 18-Nov-10 11:27:35 GMT"
        assert lua(code, 1104537600) == b"Sat, 01-Jan-05 00:00:00 GMT"
        assert lua(code, 2145916799) == b"Thu, 31-Dec-37 23:59:59 GMT"
        assert lua(code, 2145916800) == b"Fri, 01-Jan-2038 00:00:00 GMT"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (b"Thu, 18 Nov 2010 11:27:35 GMT", 1290079655),
            (b"Thursday, 18-Nov-10 11:27:35 GMT", 1290079655),
            (b"Thu Nov 18 11:27:35 2010", 1290079655),
            (b"Thu Nov  8 11:27:35 2010", 1289215655),
            (b"nonsense, 18 Nov 2010 11:27:35 UTC+5", 1290079655),
            (b"Thu, 01-Jan-70 00:00:00 GMT", 0),
            (b"Wed, 31 Dec 1969 23:59:58 GMT", -2),
            (b"Wed, 31 Dec 1969 23:59:59 GMT", None),
            (b"Mon, 29 Feb 2000 00:00:00 GMT", 951782400),
            (b"Mon, 29 Feb 1900 00:00:00 GMT", None),
            (b"Mon, 31 Apr 2010 00:00:00 GMT", None),
            (b"Thu, 18 Nov 2010 24:00:00 GMT", None),
            (b"Thu, 18 Nov 2010 11:60:00 GMT", None),
            (b"Thu, 18 Nov 2010 11.27.35 GMT", None),
            (b"Thu, 18 Xov 2010 11:27:35 GMT", None),
            (b"Thu, 18 Nov-2010 11:27:35 GMT", None),
            (b"Thu, 18 Nov", None),
            (b"abc", None),
            (b"", None),
        ],
    )
    def test_parse(self, lua: Eval, text: bytes, expected: int | None) -> None:
        assert lua("return ngx.parse_http_time(...)", text) == expected

    @given(st.binary(max_size=40))
    def test_parse_takes_any_bytes(self, lua: Eval, text: bytes) -> None:
        assert lua("return ngx.parse_http_time(...)", text) is None

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("http_time('1')", b"test:1: number argument only"),
            ("cookie_time(nil)", b"test:1: number argument only"),
            ("parse_http_time(1)", b"test:1: string argument only"),
        ],
    )
    def test_errors(self, lua: Eval, call: str, message: bytes) -> None:
        code = f"return pcall(function() local x = ngx.{call} end)"
        assert lua(code) == (False, message)
