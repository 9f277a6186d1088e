"""The allocator: what it gives out never overlaps, and what is given back can be had again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thoroughness import examples

from trio_lua.lua.vm import VM
from trio_lua.shm.zone import FILES, Zone

SETUP = b"""
local rt = ...
local slab, export = rt.slab, rt.export
local z = slab.open("zone", rt.address)
local held = {}

function export.format()
    held = {}
    slab.format(z)
end

function export.alloc(size)
    local place = slab.alloc(z, size)
    if place ~= 0 then
        held[place] = size
        return (place - z.data) * 4
    end
end

function export.free(offset)
    local place = z.data + offset / 4
    held[place] = nil
    slab.free(z, place)
end

-- Whether the check agrees that these, and only these, are allocated.
function export.sound()
    if not slab.check(z) then return false end
    for place, size in pairs(held) do
        if not slab.holds(z, place, size) then return false end
        slab.check_used(z, place)
    end
    return slab.check_end(z)
end

-- The same with one left out, and with one too many.
function export.sound_but_for_one()
    if not slab.check(z) then return false end
    local skipped
    for place in pairs(held) do
        if not skipped then skipped = place else slab.check_used(z, place) end
    end
    return slab.check_end(z)
end

function export.free_bytes()
    return slab.free_bytes(z)
end
"""

PAGES = 14


class Slab:
    def __init__(self) -> None:
        self.zone = Zone("zone", 60 << 10)
        assert self.zone.pages == PAGES
        self.vm = VM(values={"address": self.zone.address}, files=FILES)
        self.vm.run(SETUP, "=t")
        export = self.vm.export
        self.format: Callable[[], None] = export("format")
        self.alloc: Callable[[int], int | None] = export("alloc")
        self.free: Callable[[int], None] = export("free")
        self.sound: Callable[[], bool] = export("sound")
        self.sound_but_for_one: Callable[[], bool] = export("sound_but_for_one")
        self.free_bytes: Callable[[], int] = export("free_bytes")


@pytest.fixture(scope="module")
def slab() -> Iterator[Slab]:
    slab = Slab()
    yield slab
    slab.vm.close()


SIZES = st.one_of(
    st.integers(1, 300), st.integers(1, 2048), st.integers(2049, 4096 * PAGES), st.just(4096)
)


@settings(max_examples=examples(150))
@given(steps=st.lists(st.one_of(SIZES, st.tuples(st.just("free"), st.integers(0, 1000)))))
def test_pieces_are_apart_and_come_back(slab: Slab, steps: list[Any]) -> None:
    slab.format()
    held: dict[int, int] = {}
    for step in steps:
        if isinstance(step, tuple):
            if held:
                place = list(held)[step[1] % len(held)]
                del held[place]
                slab.free(place)
        else:
            place_or_none = slab.alloc(step)
            if place_or_none is not None:
                held[place_or_none] = step
        places = sorted(held.items())
        for (place, size), (after, _) in pairwise([*places, (4096 * PAGES, 0)]):
            assert place + size <= after
        assert slab.sound()
    if held:
        assert not slab.sound_but_for_one()
    for place in held:
        slab.free(place)
    assert slab.sound()
    # and all in one piece again
    assert slab.free_bytes() == 4096 * PAGES
    assert slab.alloc(4096 * PAGES) == 0


@pytest.mark.parametrize(
    ("size", "count"), [(1, 127), (32, 127), (33, 64), (64, 64), (128, 32), (1025, 2), (2048, 2)]
)
def test_chunks_of_a_page(slab: Slab, size: int, count: int) -> None:
    slab.format()
    pages = {slab.alloc(size) // 4096 for _ in range(count)}  # type: ignore[operator]
    assert pages == {0}
    assert slab.alloc(size) == 4096


def test_first_fit(slab: Slab) -> None:
    slab.format()
    places = [slab.alloc(4096 * 2) for _ in range(7)]
    assert places == [4096 * 2 * i for i in range(7)]
    assert slab.alloc(2049) is None
    assert slab.alloc(1) is None
    slab.free(places[2])  # type: ignore[arg-type]
    slab.free(places[4])  # type: ignore[arg-type]
    assert slab.alloc(4096 * 3) is None
    slab.free(places[3])  # type: ignore[arg-type]
    assert slab.alloc(4096 * 6) == places[2]
