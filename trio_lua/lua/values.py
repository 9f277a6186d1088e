"""Plain data between Lua and Python, by value: what one side gets, it can change without the other noticing.

=========================  ======================================================================
Lua                        Python
=========================  ======================================================================
nil, ``ngx.null``          None; inside a list or mapping None is ``ngx.null``
boolean                    bool
number                     int where it is whole, else float; integers beyond 2^53 are refused
string                     bytes, or str by UTF-8
table with keys 1 to n     list (from Python also tuple)
any other table            dict (from Python any mapping), also the empty one
=========================  ======================================================================

Nothing else crosses, so that no object of one side ever lives on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trio_lua.lua.vm import VM, is_table

__all__ = ["MAX_DEPTH", "from_lua", "to_lua"]

#: Values as deep as this are taken for endless.
MAX_DEPTH = 100

#: From here on not every integer is a Lua number.
_MAX_INTEGER = 2**53


def from_lua(vm: VM, value: Any, *, text: bool = False, depth: int = 0) -> Any:
    """What Lua has passed, as Python data.

    Args:
        vm: Where it comes from.
        value: As it came from Lua.
        text: Whether strings become str.
        depth: How many tables are around it.

    Raises:
        TypeError: It is a function, a coroutine or the like, or a table that contains itself.
        UnicodeDecodeError: A string is not UTF-8.
    """
    if value.__class__ is bytes:
        return value.decode() if text else value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if not is_table(value):
        if vm.is_null(value):
            return None
        raise TypeError("only nil, booleans, numbers, strings and tables of them can be passed")
    if depth == MAX_DEPTH:
        raise TypeError("a table contains itself, or is nested too deeply")
    items = {
        from_lua(vm, key, text=text, depth=depth + 1): from_lua(
            vm, item, text=text, depth=depth + 1
        )
        for key, item in value.items()
    }
    if items and all(key.__class__ is int and 1 <= key <= len(items) for key in items):
        return [items[index] for index in range(1, len(items) + 1)]
    return items


def to_lua(vm: VM, value: Any, *, depth: int = 0) -> Any:
    """Python data as what can be passed to Lua.

    Args:
        vm: Where its tables are made.
        value: The data.
        depth: How many lists and mappings are around it.

    Raises:
        TypeError: It has something in it that is no plain data.
        ValueError: A number or a text that Lua cannot have.
    """
    kind = value.__class__
    if kind is bytes or kind is bool or kind is float:
        return value
    if value is None:
        return vm.null if depth else None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        if not -_MAX_INTEGER <= value <= _MAX_INTEGER:
            raise ValueError(f"the integer {value} is no Lua number")
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if depth == MAX_DEPTH:
        raise TypeError("a value contains itself, or is nested too deeply")
    if isinstance(value, (list, tuple)):
        return vm.table(enumerate([to_lua(vm, item, depth=depth + 1) for item in value], 1))
    if isinstance(value, Mapping):
        return vm.table(
            [(_key(vm, key), to_lua(vm, item, depth=depth + 1)) for key, item in value.items()]
        )
    raise TypeError(f"{_name(kind)} cannot be passed to Lua")


def _key(vm: VM, key: Any) -> Any:
    if not isinstance(key, (str, bytes, int, float)) or key != key:
        raise TypeError(f"{key!r:.50} cannot be a key of a Lua table")
    return to_lua(vm, key)


def _name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
