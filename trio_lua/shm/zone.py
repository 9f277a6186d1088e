"""The memory of a ``lua_shared_dict``: made by the process, mapped by all its workers.

A zone is one shared mapping without a name in the file system. Processes that are forked later have it at the same
address, but nothing in it depends on that: places in it are counted from its beginning. It is freed when
the last process, and in that the last cycle or worker, lets go of it.

All that is written here is what does not change: the mutex, the geometry, and the secret keys of the hash
function. The Lua side puts the empty dictionary into it (``slab.lua``, ``dict.lua``, which name the same words).

A zone has as many pages for entries as nginx gets out of the same size, and entries take as much of them as
there, so that what a configuration was sized for fits. The books about the pages, and the hash table in the place of nginx's
tree, lie before them and are not counted in the size: 5 to 8 percent of it more.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from trio_lua.errors import TrioLuaError

__all__ = ["FILES", "Zone", "open_zones"]

_HERE = Path(__file__).parent

#: The Lua files, in loading order.
FILES = (_HERE / "slab.lua", _HERE / "dict.lua")

_PAGE = 4096
_WORD = 4

# In words of 4 bytes; see slab.lua.
_MUTEX_WORDS = 16
_SECRETS = 32
_SECRET_KEYS = 20
_HEADER_WORDS = 128
_DESCRIPTOR_WORDS = 8
_SENTINELS = 8

# What nginx keeps of a zone for itself: the head of the pool, and a descriptor of each page.
_NGINX_HEAD = 704
_NGINX_DESCRIPTOR = 24


class Zone:
    """A shared mapping.

    Args:
        name: Of the dictionary.
        size: Bytes, as the configuration has it.

    Attributes:
        pages: Pages for entries, and for the dictionary's own two records.
        address: Where it is mapped in this process.

    Raises:
        TrioLuaError: There is not so much memory.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.pages = _pages(size)
        index = _HEADER_WORDS + (_SENTINELS + self.pages + 1) * _DESCRIPTOR_WORDS
        buckets = 64
        while buckets < self.pages * 32:
            buckets *= 2
        page_words = _PAGE // _WORD
        data = -(-(index + buckets) // page_words) * page_words
        self._memory = _map(name, data * _WORD + self.pages * _PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        _init_mutex(self.address)
        struct.pack_into(
            "=iiiiiid",
            self._memory,
            (_MUTEX_WORDS + 1) * _WORD + 4,
            self.pages,
            _HEADER_WORDS,
            index,
            buckets,
            data,
            0,
            float(size),
        )
        self._memory[_SECRETS * _WORD : (_SECRETS + 2 * _SECRET_KEYS) * _WORD] = os.urandom(
            _SECRET_KEYS * 8
        )

    def __repr__(self) -> str:
        return f"Zone({self.name!r}, {self.size})"


def _pages(size: int) -> int:
    pages = (size - _NGINX_HEAD) // (_PAGE + _NGINX_DESCRIPTOR)
    start = -(-(_NGINX_HEAD + pages * _NGINX_DESCRIPTOR) // _PAGE) * _PAGE
    # two are the least that the dictionary's own records need
    return max(min(pages, (size - start) // _PAGE), 2)


def _map(name: str, length: int) -> mmap.mmap:
    try:
        if hasattr(os, "memfd_create"):
            # the name is for who looks at a process's mappings
            descriptor = os.memfd_create(f"lua_shared_dict:{name}"[:200])
            try:
                os.ftruncate(descriptor, length)
                return mmap.mmap(descriptor, length)
            finally:
                os.close(descriptor)
        return mmap.mmap(-1, length)
    except (OSError, ValueError) as error:
        raise TrioLuaError(f'cannot make the zone of lua_shared_dict "{name}": {error}') from error


@lru_cache(maxsize=1)
def _libc() -> Any:
    return ctypes.CDLL(None)


def _init_mutex(address: int) -> None:
    """A mutex that several processes use, that a dead owner does not keep, and that knows its owner."""
    libc = _libc()
    process_shared, robust = 1, 1
    error_check = 1 if sys.platform == "darwin" else 2
    attributes = ctypes.create_string_buffer(64)
    calls = [
        libc.pthread_mutexattr_init(attributes),
        libc.pthread_mutexattr_setpshared(attributes, process_shared),
        libc.pthread_mutexattr_settype(attributes, error_check),
    ]
    with contextlib.suppress(AttributeError):  # not on macOS
        calls.append(libc.pthread_mutexattr_setrobust(attributes, robust))
    calls.append(libc.pthread_mutex_init(ctypes.c_void_p(address), attributes))
    for status in calls:
        if status:
            raise TrioLuaError(f"cannot make a mutex: {os.strerror(status)}")


def open_zones(
    declared: Iterable[tuple[str, int]], previous: Mapping[str, Zone] | None = None
) -> dict[str, Zone]:
    """The zones of a configuration: those of the previous one where name and size stay, new ones otherwise.

    Raises:
        TrioLuaError: There is not enough memory.
    """
    zones = {}
    for name, size in declared:
        zone = (previous or {}).get(name)
        zones[name] = zone if zone is not None and zone.size == size else Zone(name, size)
    return zones
