"""The rule that all operations on a dictionary follow: nothing is allocated while the mutex is held."""

from __future__ import annotations

import sys

import pytest

from trio_lua.lua.vm import VM
from trio_lua.shm.zone import FILES, Zone

SETUP = b"""
local rt = ...
local dict, export = rt.dict, rt.export
local z = dict.open("zone", rt.address)
local w, count, sethook = z.w, collectgarbage, debug.sethook
jit.off()

-- The third word of glibc's mutex is the thread that holds it.
local held, before, grown, steps = false, 0, 0, 0
local function step()
    local now = count("count")
    if w[2] ~= 0 then
        steps = steps + 1
        if held then
            grown = grown + (now - before)
        end
        held = true
    else
        held = false
    end
    before = now
end

local operations = {
    function(key, now) return dict.get(z, now, key, #key, false) end,
    function(key, now) return dict.get(z, now, key, #key, true) end,
    function(key, now, text) return dict.store(z, now, 0, key, #key, dict.STRING, 0, text, 5, 1) end,
    function(key, now) return dict.store(z, now, 0, key, #key, dict.NUMERIC, 1.5, nil, 0, 0) end,
    function(key, now) return dict.store(z, now, 0, key, #key, nil, 0, nil, 0, 0) end,
    function(key, now) return dict.incr(z, now, key, #key, 1, 0, 5) end,
    function(key, now, text) return dict.push(z, now, key, #key, 0, text, true) end,
    function(key, now) return dict.push(z, now, key, #key, 2.5, nil, false) end,
    function(key, now) return dict.pop(z, now, key, #key, true) end,
    function(key, now) return dict.length(z, now, key, #key) end,
    function(key, now) return dict.expires(z, key, #key) end,
    function(key, now) return dict.set_expires(z, now, key, #key, 3) end,
    function(key, now) return dict.flush_expired(z, now, 1) end,
    function(key, now) return dict.keys(z, now, 0) end,
    function(key, now) return dict.free_bytes(z) end,
    function(key, now) return dict.sound(z) end,
}

function export.watch(seed, rounds)
    math.randomseed(seed)
    count("stop")
    for now = 1, rounds do
        local key, text = "key" .. math.random(30), string.rep("x", math.random(6000))
        local operation = operations[math.random(#operations)]
        if math.random(10) == 1 then
            -- found unfinished, by one that has no key to hash before
            rt.slab.lock(z)
            operation = operations[math.random(13, #operations)]
        end
        held = false
        sethook(step, "", 1)
        operation(key, now, text)
        sethook()
    end
    count("restart")
    return grown * 1024, steps
end
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into glibc's mutex")
def test_nothing_is_allocated_under_the_mutex() -> None:
    zone = Zone("zone", 60 << 10)
    vm = VM(values={"address": zone.address}, files=FILES)
    vm.run(SETUP, "=t")
    grown, steps = vm.export("watch")(1, 1500)
    assert steps > 50_000
    assert grown == 0
    vm.close()
