"""The commands of the small redis, each a function of a database and the arguments.

Values: bytes, lists, sets, dicts from bytes to bytes (hashes) and :class:`SortedSet`.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import trio

__all__ = ["COMMANDS", "OK", "Database", "RedisError", "SortedSet", "Status"]

COMMANDS: dict[str, Callable[..., Any]] = {}

_F = TypeVar("_F", bound=Callable[..., Any])


class RedisError(Exception):
    """What a command fails with, such as ``ERR no such thing``."""


class Status(str):
    """A reply that is a status, such as ``OK``."""

    __slots__ = ()


OK = Status("OK")


class SortedSet(dict[bytes, float]):
    """Members and their scores."""

    def ordered(self) -> list[tuple[bytes, float]]:
        """By score, then by member."""
        return sorted(self.items(), key=lambda item: (item[1], item[0]))


class Database:
    """Keys with their values and the times they end.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._values: dict[bytes, Any] = {}
        self._ends: dict[bytes, float] = {}
        self._versions: dict[bytes, int] = {}
        self._change = trio.Event()

    def get(self, key: bytes, kind: type | None = None) -> Any:
        """The value of a key, None without one.

        Raises:
            RedisError: It is of another kind.
        """
        end = self._ends.get(key)
        if end is not None and end <= self._clock():
            self.drop(key)
        value = self._values.get(key)
        if value is not None and kind is not None and type(value) is not kind:
            raise RedisError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def make(self, key: bytes, kind: type) -> Any:
        """The value of a key, which is made if there is none; it is about to be changed."""
        value = self.get(key, kind)
        if value is None:
            value = self._values[key] = kind()
        self.touch(key)
        return value

    def put(self, key: bytes, value: Any, *, keep_end: bool = False) -> None:
        """Set a key; an empty list, set or hash removes it."""
        if not keep_end:
            self._ends.pop(key, None)
        self._values[key] = value
        self.touch(key)

    def touch(self, key: bytes) -> None:
        """A value has changed: those that wait for that, and WATCH, want to know."""
        self._versions[key] = self._versions.get(key, 0) + 1
        self._change.set()
        self._change = trio.Event()

    def tidy(self, key: bytes) -> None:
        """Remove a key whose value has become empty."""
        if not self._values.get(key, True):
            self.drop(key)

    def drop(self, key: bytes) -> bool:
        """Remove a key; whether there was one."""
        self._ends.pop(key, None)
        self.touch(key)
        return self._values.pop(key, None) is not None

    def all_keys(self) -> list[bytes]:
        """The keys that have not expired."""
        return [key for key in list(self._values) if self.get(key) is not None]

    def end_after(self, key: bytes, seconds: float) -> None:
        """Let a key expire."""
        self._ends[key] = self._clock() + seconds

    def keep(self, key: bytes) -> bool:
        """Let a key not expire; whether it would have."""
        return self._ends.pop(key, None) is not None

    def left(self, key: bytes) -> float | None:
        """Seconds until a key expires; None for never."""
        end = self._ends.get(key)
        return None if end is None else end - self._clock()

    def version(self, key: bytes) -> int:
        """A number that changes with a key."""
        self.get(key)
        return self._versions.get(key, 0)

    async def changed(self) -> None:
        """Wait until some key changes."""
        await self._change.wait()


def _command(*names: str) -> Callable[[_F], _F]:
    def register(function: _F) -> _F:
        for name in names:
            COMMANDS[name] = function
        return function

    return register


def _number(value: float) -> bytes:
    return f"{value:.17g}".encode()


# ----------------------------------------------------------------------- server


@_command("PING")
def _ping(_db: Database, message: bytes | None = None) -> Any:
    return Status("PONG") if message is None else message


@_command("ECHO")
def _echo(_db: Database, message: bytes) -> bytes:
    return message


@_command("DBSIZE")
def _dbsize(db: Database) -> int:
    return len(db.all_keys())


@_command("FLUSHDB", "FLUSHALL")
def _flush(db: Database, *_options: bytes) -> Status:
    for key in db.all_keys():
        db.drop(key)
    return OK


@_command("TIME")
def _time(db: Database) -> list[bytes]:
    now = db._clock()
    return [b"%d" % int(now), b"%d" % (now % 1 * 1e6)]


# ------------------------------------------------------------------------- keys


@_command("DEL", "UNLINK")
def _del(db: Database, *keys: bytes) -> int:
    return sum(db.get(key) is not None and db.drop(key) for key in keys)


@_command("EXISTS")
def _exists(db: Database, *keys: bytes) -> int:
    return sum(db.get(key) is not None for key in keys)


@_command("TYPE")
def _type(db: Database, key: bytes) -> Status:
    names: dict[type, str] = {
        bytes: "string",
        list: "list",
        set: "set",
        dict: "hash",
        SortedSet: "zset",
    }
    value = db.get(key)
    return Status("none" if value is None else names[type(value)])


@_command("KEYS")
def _keys(db: Database, pattern: bytes) -> list[bytes]:
    text = pattern.decode("latin-1")
    return [key for key in db.all_keys() if fnmatchcase(key.decode("latin-1"), text)]


@_command("SCAN")
def _scan(db: Database, _cursor: bytes, *options: bytes) -> list[Any]:
    given = {options[i].upper(): options[i + 1] for i in range(0, len(options) - 1, 2)}
    return [b"0", _keys(db, given.get(b"MATCH", b"*"))]


@_command("EXPIRE")
def _expire(db: Database, key: bytes, seconds: bytes) -> int:
    return _expire_after(db, key, int(seconds))


@_command("PEXPIRE")
def _pexpire(db: Database, key: bytes, milliseconds: bytes) -> int:
    return _expire_after(db, key, int(milliseconds) / 1000)


def _expire_after(db: Database, key: bytes, seconds: float) -> int:
    if db.get(key) is None:
        return 0
    db.end_after(key, seconds)
    return 1


@_command("PERSIST")
def _persist(db: Database, key: bytes) -> int:
    return int(db.get(key) is not None and db.keep(key))


@_command("TTL")
def _ttl(db: Database, key: bytes) -> int:
    return _left(db, key, 1)


@_command("PTTL")
def _pttl(db: Database, key: bytes) -> int:
    return _left(db, key, 1000)


def _left(db: Database, key: bytes, unit: int) -> int:
    if db.get(key) is None:
        return -2
    left = db.left(key)
    return -1 if left is None else round(left * unit)


@_command("RENAME")
def _rename(db: Database, key: bytes, name: bytes) -> Status:
    value, left = db.get(key), db.left(key)
    if value is None:
        raise RedisError("ERR no such key")
    db.drop(key)
    db.put(name, value)
    if left is not None:
        db.end_after(name, left)
    return OK


# ---------------------------------------------------------------------- strings


@_command("GET")
def _get(db: Database, key: bytes) -> Any:
    return db.get(key, bytes)


@_command("SET")
def _set(db: Database, key: bytes, value: bytes, *options: bytes) -> Any:
    words = [option.upper() for option in options]
    there = db.get(key)
    old = db.get(key, bytes) if b"GET" in words else None
    if (b"NX" in words and there is not None) or (b"XX" in words and there is None):
        return old
    db.put(key, value, keep_end=b"KEEPTTL" in words)
    for unit, factor in ((b"EX", 1.0), (b"PX", 0.001)):
        if unit in words:
            db.end_after(key, int(options[words.index(unit) + 1]) * factor)
    return old if b"GET" in words else OK


@_command("SETEX")
def _setex(db: Database, key: bytes, seconds: bytes, value: bytes) -> Any:
    return _set(db, key, value, b"EX", seconds)


@_command("PSETEX")
def _psetex(db: Database, key: bytes, milliseconds: bytes, value: bytes) -> Any:
    return _set(db, key, value, b"PX", milliseconds)


@_command("SETNX")
def _setnx(db: Database, key: bytes, value: bytes) -> int:
    return int(_set(db, key, value, b"NX") is not None)


@_command("GETSET")
def _getset(db: Database, key: bytes, value: bytes) -> Any:
    old = db.get(key, bytes)
    db.put(key, value)
    return old


@_command("GETDEL")
def _getdel(db: Database, key: bytes) -> Any:
    old = db.get(key, bytes)
    db.drop(key)
    return old


@_command("MGET")
def _mget(db: Database, *keys: bytes) -> list[Any]:
    values = [db.get(key) for key in keys]
    return [value if isinstance(value, bytes) else None for value in values]


@_command("MSET")
def _mset(db: Database, *pairs: bytes) -> Status:
    for index in range(0, len(pairs), 2):
        db.put(pairs[index], pairs[index + 1])
    return OK


@_command("APPEND")
def _append(db: Database, key: bytes, value: bytes) -> int:
    whole = (db.get(key, bytes) or b"") + value
    db.put(key, whole, keep_end=True)
    return len(whole)


@_command("STRLEN")
def _strlen(db: Database, key: bytes) -> int:
    return len(db.get(key, bytes) or b"")


@_command("INCRBY")
def _incrby(db: Database, key: bytes, amount: bytes) -> int:
    value = int(db.get(key, bytes) or 0) + int(amount)
    db.put(key, b"%d" % value, keep_end=True)
    return value


@_command("INCR")
def _incr(db: Database, key: bytes) -> int:
    return _incrby(db, key, b"1")


@_command("DECR")
def _decr(db: Database, key: bytes) -> int:
    return _incrby(db, key, b"-1")


@_command("DECRBY")
def _decrby(db: Database, key: bytes, amount: bytes) -> int:
    return _incrby(db, key, b"%d" % -int(amount))


@_command("INCRBYFLOAT")
def _incrbyfloat(db: Database, key: bytes, amount: bytes) -> bytes:
    value = _number(float(db.get(key, bytes) or 0) + float(amount))
    db.put(key, value, keep_end=True)
    return value


# ----------------------------------------------------------------------- hashes


@_command("HSET")
def _hset(db: Database, key: bytes, *pairs: bytes) -> int:
    table = db.make(key, dict)
    before = len(table)
    table.update(zip(pairs[::2], pairs[1::2], strict=True))
    return len(table) - before


@_command("HMSET")
def _hmset(db: Database, key: bytes, *pairs: bytes) -> Status:
    _hset(db, key, *pairs)
    return OK


@_command("HSETNX")
def _hsetnx(db: Database, key: bytes, name: bytes, value: bytes) -> int:
    if name in (db.get(key, dict) or {}):
        return 0
    return _hset(db, key, name, value)


@_command("HGET")
def _hget(db: Database, key: bytes, name: bytes) -> Any:
    return (db.get(key, dict) or {}).get(name)


@_command("HMGET")
def _hmget(db: Database, key: bytes, *names: bytes) -> list[Any]:
    table = db.get(key, dict) or {}
    return [table.get(name) for name in names]


@_command("HGETALL")
def _hgetall(db: Database, key: bytes) -> list[bytes]:
    return [part for pair in (db.get(key, dict) or {}).items() for part in pair]


@_command("HKEYS")
def _hkeys(db: Database, key: bytes) -> list[bytes]:
    return list(db.get(key, dict) or {})


@_command("HVALS")
def _hvals(db: Database, key: bytes) -> list[bytes]:
    return list((db.get(key, dict) or {}).values())


@_command("HLEN")
def _hlen(db: Database, key: bytes) -> int:
    return len(db.get(key, dict) or {})


@_command("HEXISTS")
def _hexists(db: Database, key: bytes, name: bytes) -> int:
    return int(name in (db.get(key, dict) or {}))


@_command("HDEL")
def _hdel(db: Database, key: bytes, *names: bytes) -> int:
    table = db.make(key, dict)
    count = sum(table.pop(name, None) is not None for name in names)
    db.tidy(key)
    return count


@_command("HINCRBY")
def _hincrby(db: Database, key: bytes, name: bytes, amount: bytes) -> int:
    table = db.make(key, dict)
    value = int(table.get(name, 0)) + int(amount)
    table[name] = b"%d" % value
    return value


# ------------------------------------------------------------------------ lists


@_command("LPUSH")
def _lpush(db: Database, key: bytes, *values: bytes) -> int:
    items = db.make(key, list)
    items[:0] = reversed(values)
    return len(items)


@_command("RPUSH")
def _rpush(db: Database, key: bytes, *values: bytes) -> int:
    items = db.make(key, list)
    items.extend(values)
    return len(items)


@_command("LPOP")
def _lpop(db: Database, key: bytes) -> Any:
    return _pop(db, key, 0)


@_command("RPOP")
def _rpop(db: Database, key: bytes) -> Any:
    return _pop(db, key, -1)


def _pop(db: Database, key: bytes, index: int) -> Any:
    items = db.get(key, list)
    if not items:
        return None
    value = items.pop(index)
    db.touch(key)
    db.tidy(key)
    return value


@_command("LLEN")
def _llen(db: Database, key: bytes) -> int:
    return len(db.get(key, list) or [])


@_command("LINDEX")
def _lindex(db: Database, key: bytes, index: bytes) -> Any:
    items, number = db.get(key, list) or [], int(index)
    return items[number] if -len(items) <= number < len(items) else None


@_command("LRANGE")
def _lrange(db: Database, key: bytes, first: bytes, last: bytes) -> list[bytes]:
    items = db.get(key, list) or []
    return items[_slice(len(items), first, last)]


@_command("LTRIM")
def _ltrim(db: Database, key: bytes, first: bytes, last: bytes) -> Status:
    items = db.make(key, list)
    items[:] = items[_slice(len(items), first, last)]
    db.tidy(key)
    return OK


@_command("LREM")
def _lrem(db: Database, key: bytes, count: bytes, value: bytes) -> int:
    items, number = db.make(key, list), int(count)
    if number < 0:
        items.reverse()
    removed = 0
    while value in items and (not number or removed < abs(number)):
        items.remove(value)
        removed += 1
    if number < 0:
        items.reverse()
    db.tidy(key)
    return removed


def _slice(length: int, first: bytes, last: bytes) -> slice:
    """The part of a sequence that redis's inclusive indices mean."""
    begin, end = int(first), int(last)
    begin = max(begin + length, 0) if begin < 0 else begin
    end = end + length if end < 0 else end
    return slice(begin, end + 1)


# ------------------------------------------------------------------------- sets


@_command("SADD")
def _sadd(db: Database, key: bytes, *members: bytes) -> int:
    items = db.make(key, set)
    before = len(items)
    items.update(members)
    return len(items) - before


@_command("SREM")
def _srem(db: Database, key: bytes, *members: bytes) -> int:
    items = db.make(key, set)
    before = len(items)
    items.difference_update(members)
    count = before - len(items)
    db.tidy(key)
    return count


@_command("SMEMBERS")
def _smembers(db: Database, key: bytes) -> list[bytes]:
    return sorted(db.get(key, set) or ())


@_command("SISMEMBER")
def _sismember(db: Database, key: bytes, member: bytes) -> int:
    return int(member in (db.get(key, set) or ()))


@_command("SCARD")
def _scard(db: Database, key: bytes) -> int:
    return len(db.get(key, set) or ())


# ------------------------------------------------------------------ sorted sets


@_command("ZADD")
def _zadd(db: Database, key: bytes, *pairs: bytes) -> int:
    items = db.make(key, SortedSet)
    before = len(items)
    for index in range(0, len(pairs), 2):
        items[pairs[index + 1]] = float(pairs[index])
    return len(items) - before


@_command("ZINCRBY")
def _zincrby(db: Database, key: bytes, amount: bytes, member: bytes) -> bytes:
    items = db.make(key, SortedSet)
    items[member] = items.get(member, 0.0) + float(amount)
    return _number(items[member])


@_command("ZSCORE")
def _zscore(db: Database, key: bytes, member: bytes) -> Any:
    score = (db.get(key, SortedSet) or {}).get(member)
    return None if score is None else _number(score)


@_command("ZCARD")
def _zcard(db: Database, key: bytes) -> int:
    return len(db.get(key, SortedSet) or {})


@_command("ZREM")
def _zrem(db: Database, key: bytes, *members: bytes) -> int:
    items = db.make(key, SortedSet)
    count = sum(items.pop(member, None) is not None for member in members)
    db.tidy(key)
    return count


@_command("ZRANGE")
def _zrange(db: Database, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
    items = (db.get(key, SortedSet) or SortedSet()).ordered()
    return _listed(items[_slice(len(items), first, last)], options)


@_command("ZREVRANGE")
def _zrevrange(db: Database, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
    items = (db.get(key, SortedSet) or SortedSet()).ordered()[::-1]
    return _listed(items[_slice(len(items), first, last)], options)


@_command("ZRANGEBYSCORE")
def _zrangebyscore(
    db: Database, key: bytes, low: bytes, high: bytes, *options: bytes
) -> list[bytes]:
    return _listed(_between(db, key, low, high), options)


@_command("ZCOUNT")
def _zcount(db: Database, key: bytes, low: bytes, high: bytes) -> int:
    return len(_between(db, key, low, high))


@_command("ZREMRANGEBYSCORE")
def _zremrangebyscore(db: Database, key: bytes, low: bytes, high: bytes) -> int:
    return _zrem(db, key, *(member for member, _ in _between(db, key, low, high)))


def _between(db: Database, key: bytes, low: bytes, high: bytes) -> list[tuple[bytes, float]]:
    def inside(score: float) -> bool:
        bottom, top = float(low.lstrip(b"(")), float(high.lstrip(b"("))
        above = score > bottom if low.startswith(b"(") else score >= bottom
        return above and (score < top if high.startswith(b"(") else score <= top)

    items = db.get(key, SortedSet) or SortedSet()
    return [(member, score) for member, score in items.ordered() if inside(score)]


def _listed(items: list[tuple[bytes, float]], options: tuple[bytes, ...]) -> list[bytes]:
    if b"WITHSCORES" in [option.upper() for option in options]:
        return [part for member, score in items for part in (member, _number(score))]
    return [member for member, _ in items]
