"""A shared dictionary as Python sees it: a mapping of bytes.

It goes through the VM of a worker, so that there is one implementation of the dictionary and one clock for its
lifetimes. Threads other than the worker's must not use it, as little as the VM itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Union

from trio_lua.shm.zone import Zone

__all__ = ["SharedDict", "Value"]

#: A Lua string, number or boolean; a whole number arrives as int.
Value = Union[bytes, int, float, bool]


class SharedDict(MutableMapping[bytes, Value]):
    """A dictionary that is shared with Lua, where it is ``ngx.shared.NAME``.

    Keys are bytes, or text that is encoded as UTF-8. What has expired is not there. Lists, which only Lua makes, have a
    key; reading one raises :class:`ValueError`.

    Args:
        zone: Its memory.
        call: Calls a method of one of the VM's dictionaries by names.
    """

    def __init__(self, zone: Zone, call: Callable[..., Any]) -> None:
        self._zone = zone
        self._call = call
        self._name = zone.name.encode()

    def _method(self, name: bytes, *args: object) -> Any:
        return self._call(self._name, name, *args)

    @property
    def name(self) -> str:
        """What Lua finds it by in ``ngx.shared``."""
        return self._zone.name

    @property
    def capacity(self) -> int:
        """Bytes, as the configuration has them."""
        return self._zone.size

    @property
    def free_space(self) -> int:
        """Bytes of the pages that are not used at all (OpenResty: ``free_space``)."""
        return int(self._method(b"free_space"))

    def __getitem__(self, key: bytes | str) -> Value:
        found = self._method(b"get", _bytes(key))
        value, problem = found if isinstance(found, tuple) else (found, None)
        if problem == b"value is a list":
            raise ValueError(f"the value of {key!r} is a list")
        if value is None:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def set(self, key: bytes | str, value: Value | str, ttl: float = 0, flags: int = 0) -> None:
        """Set a value; the entries that were not used for longest go when there is no room.

        Args:
            key: 1 to 65,535 bytes.
            value: Text is encoded as UTF-8.
            ttl: Seconds until it expires; 0 for never.
            flags: A number that ``get`` returns to Lua with the value.

        Raises:
            ValueError: The key is too short or too long, or a value has another type.
            MemoryError: It is too large for the dictionary.
        """
        if not isinstance(value, (bytes, str, int, float)):
            raise ValueError("bad value type")
        data = value.encode() if isinstance(value, str) else value
        if ttl < 0:
            raise ValueError('bad "exptime" argument')
        done = self._method(b"set", _bytes(key), data, ttl, flags)
        if done[0] is not True:
            problem = done[1].decode()
            raise MemoryError(problem) if problem == "no memory" else ValueError(problem)

    def __setitem__(self, key: bytes | str, value: Value | str) -> None:
        self.set(key, value)

    def __delitem__(self, key: bytes | str) -> None:
        if key not in self:
            raise KeyError(key)
        self._method(b"delete", _bytes(key))

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, (bytes, str)):
            return False
        found = self._method(b"ttl", _bytes(key))
        return not isinstance(found, tuple) and found >= 0

    def __iter__(self) -> Iterator[bytes]:
        # a copy: the table is Lua's
        return iter(list(self._method(b"get_keys", 0).values()))

    def __len__(self) -> int:
        return len(self._method(b"get_keys", 0))

    def clear(self) -> None:
        """Remove everything."""
        self._method(b"flush_all")
        self._method(b"flush_expired")

    def __repr__(self) -> str:
        return f"SharedDict({self.name!r}, capacity={self.capacity})"


def _bytes(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else key
