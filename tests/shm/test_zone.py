"""The memory of zones, and what becomes of it on a reload."""

from __future__ import annotations

import pytest

from trio_lua.errors import TrioLuaError
from trio_lua.shm.zone import Zone, open_zones


@pytest.mark.parametrize(
    ("size", "pages"),
    [(8192, 2), (20 << 10, 4), (25 << 10, 5), (100 << 10, 24), (1 << 20, 254)],
)
def test_pages_are_those_of_nginx(size: int, pages: int) -> None:
    zone = Zone("dogs", size)
    assert zone.pages == pages
    assert zone.size == size


def test_kept_when_name_and_size_stay() -> None:
    before = open_zones([("a", 8192), ("b", 8192), ("c", 8192)])
    after = open_zones([("a", 8192), ("b", 16384), ("d", 8192)], before)
    assert list(after) == ["a", "b", "d"]
    assert after["a"] is before["a"]
    assert after["b"] is not before["b"]


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("trio_lua.shm.zone.mmap.mmap", refuse)
    with pytest.raises(TrioLuaError, match=r'lua_shared_dict "dogs": .*Cannot allocate'):
        Zone("dogs", 8192)
