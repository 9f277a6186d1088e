"""Processes that use one dictionary at the same time, and are killed meanwhile; run by test_shared_dict.py.

    python dictionary_processes.py share SEED STEPS    four processes against a model each, and what they share
    python dictionary_processes.py kill SEED KILLS     SIGKILL at random moments

The exit status is 0 when everything was in order; what happened is printed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import Any

from trio_lua.lua.vm import VM
from trio_lua.shm.zone import FILES, Zone

PROCESSES = 4
NOW = 1_700_000_000_000

LUA = b"""
local rt = ...
local dict, export = rt.dict, rt.export
local z = dict.open("zone", rt.address)

function export.recoveries()
    return dict.recoveries(z)
end

function export.sound()
    return dict.sound(z)
end

function export.get(key)
    local kind, value = dict.get(z, rt.now, key, #key, false)
    return value
end

function export.set(key, value, lifetime)
    local text = type(value) == "string" and value or nil
    return dict.store(z, rt.now, 0, key, #key, text and dict.STRING or dict.NUMERIC, text and 0 or value, text, lifetime, 0)
end

function export.delete(key)
    return dict.store(z, rt.now, 0, key, #key, nil, 0, nil, 0, 0)
end

function export.incr(key, step)
    return dict.incr(z, rt.now, key, #key, step, 0, 0)
end

function export.push(key, value, left)
    local text = type(value) == "string" and value or nil
    return dict.push(z, rt.now, key, #key, text and 0 or value, text, left)
end

function export.pop(key, left)
    return (dict.pop(z, rt.now, key, #key, left))
end

-- For ever: all operations over few keys, in a dictionary that is full.
function export.work(seed)
    local random, get, now = math.random, dict.get, rt.now
    math.randomseed(seed)
    local text = string.rep("x", 9000)
    while true do
        local key = "key" .. random(200)
        local what = random(8)
        if what == 1 then
            get(z, now, key, #key, false)
        elseif what <= 4 then
            dict.store(z, now, 0, key, #key, dict.STRING, 0, text:sub(1, random(random(9000))), random(3) - 1, random(9))
        elseif what == 5 then
            dict.store(z, now, 0, key, #key, nil, 0, nil, 0, 0)
        elseif what == 6 then
            dict.incr(z, now, key, #key, 1, 0, random(3) - 1)
        elseif what == 7 then
            dict.push(z, now, "list" .. random(5), 5, random(), random(2) == 1 and text:sub(1, random(500)) or nil, random(2) == 1)
        else
            dict.pop(z, now, "list" .. random(5), 5, random(2) == 1)
        end
        now = now + 0.01
    end
end
"""


def open_vm(zone: Zone) -> VM:
    vm = VM(values={"address": zone.address, "now": NOW}, files=FILES)
    vm.run(LUA, "=t")
    return vm


def share(seed: int, steps: int) -> None:
    zone = Zone("zone", 4 << 20)
    vm = open_vm(zone)
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if not child:
            try:
                use(vm, random.Random(seed * 100 + number), b"%d:" % number, steps)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    status = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert status == [0] * PROCESSES, status
    export = vm.export
    assert export("sound")()
    assert export("get")(b"count") == PROCESSES * steps
    left = 0
    while export("pop")(b"queue", False) is not None:
        left += 1
    taken = export("get")(b"taken") or 0
    assert taken + left == export("get")(b"put"), (taken, left)
    print(PROCESSES * steps, "steps")


def use(vm: VM, chance: random.Random, prefix: bytes, steps: int) -> None:
    """Operations on keys of one's own, which a plain dict follows, and on those of everybody."""
    names = ("get", "set", "delete", "incr", "push", "pop")
    get, put, delete, incr, push, pop = (vm.export(name) for name in names)
    model: dict[bytes, Any] = {}
    lists: dict[bytes, list[Any]] = {}
    for step in range(steps):
        incr(b"count", 1)
        if step % 3 == 0:
            push(b"queue", step, chance.random() < 0.5)
            incr(b"put", 1)
        elif step % 3 == 1 and pop(b"queue", True) is not None:
            incr(b"taken", 1)
        key = prefix + b"%d" % chance.randrange(50)
        what = chance.randrange(6)
        if what == 0:
            model[key] = chance.randbytes(chance.randrange(3000))
            put(key, model[key], 0)
        elif what == 1:
            model[key] = chance.randrange(1000)
            put(key, model[key], 0)
        elif what == 2:
            model.pop(key, None)
            delete(key)
        elif what == 3 and not isinstance(model.get(key), bytes):
            model[key] = model.get(key, 0) + 1
            incr(key, 1)
        elif what == 4:
            own = lists.setdefault(b"l" + key, [])
            own.append(step)
            assert push(b"l" + key, step, False) == len(own)
        else:
            own = lists.get(b"l" + key) or [None]
            assert pop(b"l" + key, True) == own.pop(0)
        key = prefix + b"%d" % chance.randrange(50)
        assert get(key) == model.get(key), key


def kill(seed: int, kills: int) -> None:
    chance = random.Random(seed)
    zone = Zone("zone", 200 << 10)
    vm = open_vm(zone)
    names = ("sound", "recoveries", "set", "get")
    sound, recoveries, put, get = (vm.export(name) for name in names)
    work = vm.export("work")

    def start() -> int:
        child = os.fork()
        if not child:
            signal.alarm(300)
            work(chance.randrange(1 << 30))
        return child

    children = [start() for _ in range(2)]
    try:
        for number in range(kills):
            until = time.perf_counter() + chance.random() * 0.003
            while time.perf_counter() < until:
                pass
            index = chance.randrange(2)
            os.kill(children[index], signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(children[index], 0)[1]) == -signal.SIGKILL
            # no deadlock: this thread gets its turn, and finds what it has set
            key = b"mine%d" % number
            problem = put(key, number, 0)
            assert problem in (False, (None, False), (None, True)), problem
            assert sound()
            children[index] = start()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert sound()
    put(b"last", 1, 0)
    assert get(b"last") == 1
    recovered, emptied = recoveries()
    print(f"{kills} kills, {recovered} in an operation, {emptied} with damage")


def main() -> None:
    # a deadlock ends here
    signal.alarm(100)
    what, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    {"share": share, "kill": kill}[what](seed, count)


if __name__ == "__main__":
    main()
