"""``ngx.shared``: what its methods return and throw, against a plain model, and its memory against nginx's."""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from thoroughness import examples

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import Config, Http
from trio_lua.log.error_log import NullErrorLog
from trio_lua.shm.zone import Zone


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Shared:
    """The Lua side of a worker with shared dictionaries."""

    def __init__(self, **sizes: int) -> None:
        self.clock = Clock()
        dicts = tuple(sizes.items()) or (("dogs", 1 << 20), ("cats", 1 << 20))
        self.runtime = Runtime(
            Config(http=Http(shared_dicts=dicts)),
            clock=self.clock,
            sinks=[NullErrorLog()],
            product="",
        )
        self.runtime.vm.run(
            b"""
            local rt = ...
            local S, dict, slab = rt.S, rt.dict, rt.slab
            function rt.export.evaluate(code)
                S.now = nil
                return assert(loadstring(code))()
            end
            local zones = {}
            function rt.export.sound(name)
                zones[name] = zones[name] or dict.open(name, rt.zones[name])
                return dict.sound(zones[name])
            end
            """,
            "=t",
        )
        self.call = self.runtime.vm.export("shared_call")
        self._evaluate = self.runtime.vm.export("evaluate")
        self._sound = self.runtime.vm.export("sound")

    def eval(self, code: str) -> Any:
        return self._evaluate(code.encode())

    def dogs(self, method: str, *args: Any) -> Any:
        return self.call(b"dogs", method.encode(), *args)

    def sound(self, name: str = "dogs") -> bool:
        return self._sound(name.encode())  # type: ignore[no-any-return]

    def close(self) -> None:
        self.runtime.vm.close()


@pytest.fixture
def shared() -> Iterator[Shared]:
    shared = Shared()
    yield shared
    shared.close()


@pytest.fixture
def small() -> Iterator[Shared]:
    shared = Shared(dogs=100 * 1024, tiny=20 * 1024)
    yield shared
    shared.close()


# ------------------------------------------------------------------------ the table


def test_the_table(shared: Shared) -> None:
    assert shared.eval("return ngx.shared.none") is None
    assert shared.eval(
        """
        local names = {}
        for name, d in pairs(ngx.shared) do names[#names + 1] = name .. type(d) .. type(d[1]) end
        table.sort(names)
        return table.concat(names, " ")
        """
    ) == (b"catstableuserdata dogstableuserdata")
    # with its own __index, as in OpenResty
    assert (
        shared.eval("local n = 0 for _ in pairs(ngx.shared.dogs.__index) do n = n + 1 end return n")
        == 22
    )


def test_dictionaries_are_apart(shared: Shared) -> None:
    shared.dogs("set", b"a", 1)
    assert shared.call(b"cats", b"get", b"a") is None
    assert shared.eval("return ngx.shared.cats.get(ngx.shared.dogs, 'a')") == 1


# --------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    "value", [b"", b"x", b"\0" * 9, b"long" * 5000, 0, -1, 2.5, math.inf, True, False]
)
def test_values(shared: Shared, value: Any) -> None:
    assert shared.dogs("set", b"key", value) == (True, None, False)
    found = shared.dogs("get", b"key")
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)


def test_not_a_number(shared: Shared) -> None:
    shared.dogs("set", b"nan", math.nan)
    assert math.isnan(shared.dogs("get", b"nan"))


@pytest.mark.parametrize(
    "size", [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65, 127, 128, 1000, 65535]
)
def test_keys_of_all_lengths(shared: Shared, size: int) -> None:
    keys = [bytes([97 + i]) + b"k" * (size - 1) for i in range(3)]
    keys += [b"k" * (size - 1) + bytes([97 + i]) for i in range(3)] if size > 1 else []
    keys += [b"k" * (size // 2) + b"x" + b"k" * (size // 2)] if size % 2 and size > 1 else []
    for number, key in enumerate(keys):
        shared.dogs("set", key, number)
    assert [shared.dogs("get", key) for key in keys] == list(range(len(keys)))
    assert shared.sound()


def test_keys_that_are_not_strings(shared: Shared) -> None:
    shared.eval("local d = ngx.shared.dogs d:set(1, 'number') d:set(true, 'boolean')")
    assert shared.dogs("get", b"1") == b"number"
    assert shared.dogs("get", b"true") == b"boolean"


@pytest.mark.parametrize(
    ("flags", "given"),
    [(0, None), (1, 1), (2**31 - 1, 2**31 - 1), (2**32 - 1, -1), (1.7, 1), (-1, -1)],
)
def test_flags(shared: Shared, flags: float, given: int | None) -> None:
    shared.dogs("set", b"a", b"x", 0, flags)
    assert shared.dogs("get", b"a") == (b"x" if given is None else (b"x", given))
    assert shared.dogs("get_stale", b"a") == (b"x", given, False)


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "method",
    [
        *("get", "get_stale", "set", "safe_set", "add", "safe_add", "replace", "delete"),
        *("incr", "ttl", "expire", "lpush", "rpush", "lpop", "rpop", "llen"),
    ],
)
def test_bad_keys(shared: Shared, method: str) -> None:
    values = {
        "get": "",
        "get_stale": "",
        "delete": "",
        "ttl": "",
        "lpop": "",
        "rpop": "",
        "llen": "",
    }
    value = values.get(method, ", 1")
    for key, problem in (
        ("nil", b"nil key"),
        ("''", b"empty key"),
        ("string.rep('x', 65536)", b"key too long"),
    ):
        assert shared.eval(f"return ngx.shared.dogs:{method}({key}{value})") == (None, problem)
    for zone in ("nil", "1", "{}", "{ 1 }", "{ newproxy() }"):
        found = shared.eval(f"return pcall(ngx.shared.dogs.{method}, {zone}, 'key'{value})")
        assert found == (False, b'bad "zone" argument')


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("d:set('a', 1, -1)", 'bad "exptime" argument'),
        ("d:expire('a')", 'bad "exptime" argument'),
        ("d:set('a', 1, 0, 'x')", "cannot convert 'string' to 'int'"),
        ("d:incr('a', 'x')", "cannot convert 'nil' to 'double'"),
        ("d:incr('a', 1, {})", "bad init arg: number expected, got table"),
        ("d:incr('a', 1, 'x')", "bad init arg: number expected, got string"),
        ("d:incr('a', 1, 1, 'x')", "bad init_ttl arg: number expected, got string"),
        ("d:incr('a', 1, 1, -1)", 'bad "init_ttl" argument'),
        ("d:incr('a', 1, nil, 1)", 'must provide "init" when providing "init_ttl"'),
        ("d:lpush('a')", "expecting 3 arguments, but only seen 2"),
        ("d:rpop()", "expecting 2 arguments, but only seen 1"),
        ("d:llen('a', 1)", "expecting 2 arguments, but only seen 3"),
        (
            "d:lpush(true, 1)",
            "bad argument #1 to 'lpush' (string expected, got boolean)",
        ),
        ("d:get_keys(1, 2)", "expecting 1 or 2 argument(s), but saw 3"),
        ("d.get_keys()", "expecting 1 or 2 argument(s), but saw 0"),
        ("d.get_keys(1)", "bad argument #1 to 'get_keys' (table expected, got number)"),
        ("d.flush_expired({})", "bad user data for the ngx_shm_zone_t pointer"),
        (
            "d:flush_expired('x')",
            "bad argument #1 to 'flush_expired' (number expected, got string)",
        ),
    ],
)
def test_misuse_is_thrown_at_the_caller(shared: Shared, call: str, problem: str) -> None:
    code = f"local d = ngx.shared.dogs local ok, err = pcall(function() {call} end) return err"
    message = shared.eval(code).decode()
    assert message.endswith(problem)
    assert message.startswith('[string "local d = ')


def test_returned_errors(shared: Shared) -> None:
    dogs = shared.dogs
    assert shared.eval("return ngx.shared.dogs:set('a', {})") == (None, b"bad value type")
    assert shared.eval("return ngx.shared.dogs:lpush('a', true)") == (None, b"bad value type")
    for method in ("add", "safe_add", "replace"):
        assert shared.eval(f"return ngx.shared.dogs:{method}('a', nil)") == (
            False,
            b"attempt to add or replace nil values",
            False,
        )
    assert dogs("replace", b"a", 1) == (False, b"not found", False)
    assert dogs("incr", b"a", 1) == (None, b"not found")
    assert dogs("ttl", b"a") == (None, b"not found")
    assert dogs("expire", b"a", 1) == (None, b"not found")
    assert dogs("delete", b"a") == (True, None, False)
    dogs("set", b"a", b"text")
    assert dogs("add", b"a", 1) == (False, b"exists", False)
    assert dogs("incr", b"a", 1, 0) == (None, b"not a number")
    assert dogs("lpush", b"a", 1) == (None, b"value not a list")
    dogs("rpush", b"list", 1)
    assert dogs("get", b"list") == (None, b"value is a list")
    assert dogs("get_stale", b"list") == (None, b"value is a list")


# ---------------------------------------------------------------------------- memory


def test_as_many_entries_as_in_nginx(small: Shared) -> None:
    """The figures of lua-nginx-module's own tests (100k: 352 entries of this size fit)."""
    code = """
        for i = 1, 1000 do
            local ok, err, forcible = ngx.shared.dogs:set("key_" .. i, string.rep(" hello", 10) .. i)
            if not ok or forcible then return i, ok, forcible end
        end
    """
    assert small.eval(code) == (353, True, True)
    assert small.dogs("get", b"key_1") is None
    assert small.dogs("get", b"key_2") == b" hello" * 10 + b"2"
    assert small.dogs("safe_set", b"other", b" hello" * 10) == (False, b"no memory", False)
    assert small.sound()


def test_entries_of_growing_size(small: Shared) -> None:
    code = """
        for i = 1, 1000 do
            local ok, err, forcible = ngx.shared.dogs:set("key_" .. i, string.rep("hello", i))
            if not ok or forcible then return i, ok, forcible end
        end
    """
    assert small.eval(code) == (140, True, True)


def test_too_large(small: Shared) -> None:
    value = b"helloworld" * 10000
    assert small.dogs("set", b"foo", value) == (False, b"no memory", False)
    small.dogs("set", b"bah", b"hello")
    assert small.dogs("set", b"foo", value) == (False, b"no memory", True)
    assert small.dogs("incr", b"k" * 65535, 1, 0) == (1, None, False)
    assert small.call(b"tiny", b"incr", b"k" * 65535, 1, 0) == (None, b"no memory")


def test_neighbours_are_joined(small: Shared) -> None:
    def tiny(method: str, *args: Any) -> Any:
        return small.call(b"tiny", method.encode(), *args)

    for _ in range(2):
        tiny("set", b"foo", b"a" * 4000)
        tiny("set", b"bar", b"b" * 4001)
        assert tiny("free_space") == 0
        assert tiny("set", b"baz", b"c" * 8102) == (True, None, True)
        assert (tiny("get", b"foo"), tiny("get", b"bar")) == (None, None)
        tiny("delete", b"baz")
        assert tiny("free_space") == 8192
    assert small.sound("tiny")


def test_lists_are_never_made_by_force(small: Shared) -> None:
    value = b"x" * 4000
    assert [small.call(b"tiny", b"rpush", b"l", value) for _ in range(3)] == [
        1,
        2,
        (None, b"no memory"),
    ]
    assert small.call(b"tiny", b"llen", b"l") == 2
    assert small.call(b"tiny", b"lpush", b"k" * 5000, 1) == (False, b"no memory")
    assert small.sound("tiny")
    small.call(b"tiny", b"delete", b"l")
    assert small.call(b"tiny", b"rpush", b"other", b"x" * 9000) == (None, b"no memory")
    assert small.call(b"tiny", b"llen", b"other") == 0
    assert small.sound("tiny")


def test_sizes(shared: Shared) -> None:
    assert shared.dogs("capacity") == 1 << 20
    # 254 pages, two of which have records of the dictionary
    assert shared.dogs("free_space") == 252 * 4096
    smallest = Shared(dogs=8192)
    assert smallest.dogs("free_space") == 0
    assert smallest.dogs("set", b"a", 1) == (True, None, False)
    smallest.close()


def test_all_keys_of_a_large_dictionary(shared: Shared) -> None:
    keys = [b"key-%d" % number for number in range(1500)]
    for key in keys:
        shared.dogs("set", key, 1)
    listed = list(shared.dogs("get_keys", 0).values())
    assert sorted(listed) == sorted(keys)
    assert len(shared.dogs("get_keys")) == 1024
    assert list(shared.dogs("get_keys", 2).values()) == listed[:2] == keys[:2]


# ---------------------------------------------------------------------------- a model

KEYS = [b"a", b"b", b"c", b"key", b"a longer key than the others", b"d" * 70]
VALUES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"8 bytes!", b"x" * 5000]),
    st.integers(-5, 5),
    st.floats(allow_nan=False),
    st.booleans(),
)
STEPS = st.sampled_from([-1, 1, 0.5, 100])
TIMES = st.sampled_from([0, 0.0005, 0.001, 1, 2.5, 10])


@dataclass
class Entry:
    value: Any
    expires: int = 0
    flags: int = 0
    lists: list[Any] = field(default_factory=list)
    is_list: bool = False


def length(value: Any) -> int:
    if isinstance(value, bool):
        return 1
    return len(value) if isinstance(value, bytes) else 8


class Model:
    """A dictionary without end, as nginx keeps it: the first entry is the one that was not used for longest."""

    def __init__(self) -> None:
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.now = 1_700_000_000_000

    def ends(self, exptime: float) -> int:
        lifetime = int(exptime * 1000)
        return self.now + lifetime if lifetime > 0 else 0

    def drop(self) -> None:
        for _ in range(2):
            for key, entry in self.entries.items():
                if entry.expires and entry.expires <= self.now:
                    del self.entries[key]
                    break
                return

    def find(self, key: bytes) -> tuple[Entry | None, bool]:
        entry = self.entries.get(key)
        if entry is None:
            return None, False
        self.entries.move_to_end(key)
        return entry, bool(entry.expires and entry.expires < self.now)

    def get(self, key: bytes, stale: bool) -> Any:
        if not stale:
            self.drop()
        entry, expired = self.find(key)
        if entry is None or (expired and not stale):
            return None
        if entry.is_list:
            return None, b"value is a list"
        if stale:
            return entry.value, entry.flags or None, expired
        return (entry.value, entry.flags) if entry.flags else entry.value

    def store(self, how: str, key: bytes, value: Any, exptime: float, flags: int) -> Any:
        self.drop()
        entry, expired = self.find(key)
        alive = entry is not None and not expired
        if how == "replace" and not alive:
            return False, b"not found", False
        if how in ("add", "safe_add") and alive:
            return False, b"exists", False
        self.entries.pop(key, None)
        self.entries[key] = Entry(value, self.ends(exptime), flags)
        return True, None, False

    def incr(self, key: bytes, step: float, init: float | None, ttl: float) -> Any:
        self.drop()
        entry, expired = self.find(key)
        if entry is not None and not expired:
            if isinstance(entry.value, (bool, bytes)) or entry.is_list:
                return None, b"not a number"
            entry.value += step
            return entry.value if init is None else (entry.value, None, False)
        if init is None:
            return None, b"not found"
        self.entries.pop(key, None)
        self.entries[key] = Entry(init + step, self.ends(ttl))
        return init + step, None, False

    def list(self, key: bytes) -> tuple[Entry | None, Any]:
        self.drop()
        entry, expired = self.find(key)
        if entry is None or expired:
            return None, None
        return entry, None if entry.is_list else (None, b"value not a list")

    def push(self, key: bytes, value: Any, left: bool) -> Any:
        entry, problem = self.list(key)
        if problem:
            return problem
        if entry is None:
            self.entries.pop(key, None)
            entry = self.entries[key] = Entry(None, is_list=True)
        entry.lists.insert(0 if left else len(entry.lists), value)
        return len(entry.lists)

    def pop(self, key: bytes, left: bool) -> Any:
        entry, problem = self.list(key)
        if problem or entry is None:
            return problem
        value = entry.lists.pop(0 if left else -1)
        if not entry.lists:
            del self.entries[key]
        return value

    def keys(self, most: int) -> list[bytes]:
        alive = [k for k, e in self.entries.items() if not e.expires or e.expires > self.now]
        return alive[: most or None]

    def flush_expired(self, most: int) -> int:
        gone = [k for k, e in self.entries.items() if e.expires and e.expires <= self.now]
        gone = gone[: most or None]
        for key in gone:
            del self.entries[key]
        return len(gone)

    def flush_all(self) -> None:
        for entry in self.entries.values():
            entry.expires = 1
        if self.entries:
            self.entries.popitem(last=False)
            self.drop()


def same(found: Any, expected: Any) -> bool:
    """Equal, and of the same type as far as Lua has it."""

    def comparable(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(comparable(part) for part in value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return struct.pack("d", value + 0.0)
        return repr(value)

    return bool(comparable(found) == comparable(expected))


KEY = st.sampled_from(KEYS)


class AgainstModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.shared = Shared()
        self.model = Model()

    def teardown(self) -> None:
        if hasattr(self, "shared"):
            self.shared.close()

    def check(self, expected: Any, method: str, *args: Any) -> None:
        found = self.shared.dogs(method, *args)
        assert same(found, expected), (method, args, found, expected)

    @rule(milliseconds=st.sampled_from([1, 2, 999, 1000, 2500, 60_000]))
    def wait(self, milliseconds: int) -> None:
        self.model.now += milliseconds
        self.shared.clock.now = self.model.now / 1000

    @rule(key=KEY, stale=st.booleans())
    def get(self, key: bytes, stale: bool) -> None:
        self.check(self.model.get(key, stale), "get_stale" if stale else "get", key)

    @rule(
        how=st.sampled_from(["set", "safe_set", "add", "safe_add", "replace"]),
        key=KEY,
        value=VALUES,
        exptime=TIMES,
        flags=st.sampled_from([0, 0, 7]),
    )
    def store(self, how: str, key: bytes, value: Any, exptime: float, flags: int) -> None:
        expected = self.model.store(how, key, value, exptime, flags)
        self.check(expected, how, key, value, exptime, flags)

    @rule(key=KEY)
    def delete(self, key: bytes) -> None:
        self.model.drop()
        self.model.entries.pop(key, None)
        self.check((True, None, False), "delete", key)

    @rule(key=KEY, step=STEPS, init=st.sampled_from([None, 0, 10]), ttl=TIMES)
    def incr(self, key: bytes, step: float, init: float | None, ttl: float) -> None:
        if init is None:
            self.check(self.model.incr(key, step, None, 0), "incr", key, step)
        else:
            self.check(self.model.incr(key, step, init, ttl), "incr", key, step, init, ttl)

    @rule(key=KEY, value=st.one_of(st.binary(max_size=50), st.integers(-9, 9)), left=st.booleans())
    def push(self, key: bytes, value: Any, left: bool) -> None:
        self.check(self.model.push(key, value, left), "lpush" if left else "rpush", key, value)

    @rule(key=KEY, left=st.booleans())
    def pop(self, key: bytes, left: bool) -> None:
        self.check(self.model.pop(key, left), "lpop" if left else "rpop", key)

    @rule(key=KEY)
    def length(self, key: bytes) -> None:
        entry, problem = self.model.list(key)
        self.check(problem or (len(entry.lists) if entry else 0), "llen", key)

    @rule(key=KEY)
    def ttl(self, key: bytes) -> None:
        entry = self.model.entries.get(key)
        if entry is None:
            self.check((None, b"not found"), "ttl", key)
        else:
            left = (entry.expires - self.model.now) / 1000 if entry.expires else 0
            self.check(left, "ttl", key)

    @rule(key=KEY, exptime=TIMES)
    def expire(self, key: bytes, exptime: float) -> None:
        entry = self.model.entries.get(key)
        if entry is None:
            self.check((None, b"not found"), "expire", key, exptime)
        else:
            entry.expires = self.model.ends(exptime)
            self.check(True, "expire", key, exptime)

    @rule()
    def flush_all(self) -> None:
        self.model.flush_all()
        self.check(None, "flush_all")

    @rule(most=st.integers(0, 2))
    def flush_expired(self, most: int) -> None:
        self.check(self.model.flush_expired(most), "flush_expired", most)

    @rule(most=st.integers(0, 3))
    def keys(self, most: int) -> None:
        found = list(self.shared.dogs("get_keys", most).values())
        assert found == self.model.keys(most)

    @precondition(lambda self: hasattr(self, "shared"))
    @invariant()
    def sound(self) -> None:
        assert self.shared.sound()


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=examples(60), stateful_step_count=40)


class FullDictionary(RuleBasedStateMachine):
    """One that is always full: what is found was stored, and the memory stays in order."""

    @initialize()
    def begin(self) -> None:
        self.shared = Shared(dogs=30 * 1024)
        self.stored: dict[bytes, bytes] = {}
        self.lists: dict[bytes, list[bytes]] = {}

    def teardown(self) -> None:
        if hasattr(self, "shared"):
            self.shared.close()

    @rule(number=st.integers(0, 99), size=st.integers(0, 9000))
    def store(self, number: int, size: int) -> None:
        key, value = b"%d" % number, bytes([number]) * size
        done = self.shared.dogs("set", key, value)
        if done[0]:
            self.stored[key] = value
        else:
            assert done[1] == b"no memory"
            self.stored.pop(key, None)

    @rule(start=st.integers(0, 90), size=st.integers(0, 1000))
    def store_some(self, start: int, size: int) -> None:
        for number in range(start, start + 10):
            self.store(number, size)

    @rule(number=st.integers(0, 99), size=st.integers(0, 3000), left=st.booleans())
    def push(self, number: int, size: int, left: bool) -> None:
        key, value = b"l%d" % number, bytes([number]) * size
        found = self.shared.dogs("lpush" if left else "rpush", key, value)
        if isinstance(found, int):
            values = self.lists.setdefault(key, [])
            if found == 1:
                values.clear()
            values.insert(0 if left else len(values), value)
            assert found == len(values)

    @rule(number=st.integers(0, 99), left=st.booleans())
    def pop(self, number: int, left: bool) -> None:
        key = b"l%d" % number
        value = self.shared.dogs("lpop" if left else "rpop", key)
        if value is not None:
            assert value == self.lists[key].pop(0 if left else -1)

    @rule(number=st.integers(0, 99))
    def delete(self, number: int) -> None:
        self.shared.dogs("delete", b"%d" % number)
        self.stored.pop(b"%d" % number, None)

    @rule()
    def look(self) -> None:
        for key, value in self.stored.items():
            assert self.shared.dogs("get", key) in (None, value)

    @rule()
    def empty(self) -> None:
        self.shared.dogs("flush_all")
        self.shared.dogs("flush_expired")
        self.stored.clear()
        # 6 pages, but for the two that have records of the dictionary
        assert self.shared.dogs("free_space") == 4 * 4096

    @precondition(lambda self: hasattr(self, "shared"))
    @invariant()
    def sound(self) -> None:
        assert self.shared.sound()


TestFullDictionary = FullDictionary.TestCase
TestFullDictionary.settings = settings(max_examples=examples(40), stateful_step_count=40)


# -------------------------------------------------------------------------- recovery


def test_what_an_error_left_is_repaired() -> None:
    """An operation that ended in the middle is the end of what it damaged, and of nothing else."""
    shared = Shared()
    shared.dogs("set", b"a", 1)
    lock = """
        local rt = ...
        local z = rt.slab.open("dogs", rt.zones.dogs)
        rt.slab.lock(z)
    """
    shared.runtime.vm.run(lock.encode(), "=t")
    assert shared.dogs("get", b"a") == 1
    # the page list of a class leads nowhere
    shared.runtime.vm.run(lock.encode() + b"z.w[z.lists + 3 * 8 + 5] = 77", "=t")
    assert shared.dogs("get", b"a") is None
    assert shared.dogs("set", b"a", 2) == (True, None, False)
    assert shared.sound()
    shared.close()


@pytest.mark.parametrize("seed", range(40))
def test_every_damage_is_found(seed: int) -> None:
    """One wrong word anywhere in the books of a zone: found by the check, or without consequence."""
    import random

    random_ = random.Random(seed)
    shared = Shared(dogs=20 * 1024)
    for number in range(30):
        shared.dogs("set", b"%d" % number, b"x" * random_.randrange(100))
        shared.dogs("rpush", b"list", number)
    code = f"""
        local rt = ...
        local z = rt.slab.open("dogs", rt.zones.dogs)
        rt.slab.lock(z)
        z.w[{random_.randrange(128, 1024)} + 0] = {random_.randrange(2000)}
        for page = 0, 3 do
            z.w[z.data + page * 1024 + {random_.randrange(1024)}] = {random_.randrange(5000)}
        end
    """
    shared.runtime.vm.run(code.encode(), "=t")
    shared.dogs("get", b"1")
    assert shared.sound()
    for number in range(30):
        shared.dogs("set", b"%d" % number, b"y" * random_.randrange(1000))
    assert shared.sound()
    shared.close()


def test_zones_are_kept_while_a_runtime_has_them() -> None:
    zone = Zone("dogs", 1 << 20)
    config = Config(http=Http(shared_dicts=(("dogs", 1 << 20),)))
    first, second = (
        Runtime(config, clock=Clock(), sinks=[NullErrorLog()], product="", zones={"dogs": zone})
        for _ in range(2)
    )
    del zone
    first.shared["dogs"]["a"] = 1
    first.vm.close()
    del first
    assert second.shared["dogs"]["a"] == 1
    second.vm.close()
