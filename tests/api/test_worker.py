"""ngx.worker and ngx.process: what a process says of itself, alone and under a master."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import trio
from serving import MemoryLog, code, config, location

from trio_lua.api.place import AGENT, MASTER, WORKER, Place
from trio_lua.config.model import Config
from trio_lua.errors import LuaError
from trio_lua.server.worker import Worker

TELL = """
local process = require "ngx.process"
local pids, why = ngx.worker.pids()
ngx.log(ngx.ERR, table.concat({
    process.type(), tostring(ngx.worker.id()), ngx.worker.count(), tostring(process.get_master_pid()),
    pids and table.concat(pids, ",") or why,
}, " "))
"""


def conf(init: str = "", init_worker: str = "", exit_worker: str = "") -> Config:
    plain = config([location("/", "ngx.say(1)")])
    http = replace(
        plain.http,
        init_by_lua=code(init, "init_by_lua_block") if init else None,
        init_worker_by_lua=code(init_worker, "init_worker_by_lua_block") if init_worker else None,
        exit_worker_by_lua=code(exit_worker, "exit_worker_by_lua_block") if exit_worker else None,
    )
    return replace(plain, http=http)


DISABLED = "API disabled in the current context"


async def run(worker: Worker) -> None:
    """Let it start and stop."""
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run, [])
        worker.quit()


async def test_alone() -> None:
    log = MemoryLog()
    await run(Worker(conf(TELL, TELL, TELL), error_log=log))
    pid = os.getpid()
    [init, init_worker, exit_worker] = [text for _, text in log.lines]
    assert f"single 0 1 {pid} {DISABLED}" in init
    assert f"single 0 1 {pid} {DISABLED}" in init_worker
    assert f"single 0 1 {pid} {pid}" in exit_worker


def test_init_by_lua_runs_in_a_master_without_an_event_loop() -> None:
    log = MemoryLog()
    worker = Worker(conf("assert(ngx.now() > 1e9)" + TELL), error_log=log)
    worker.set_place(Place(MASTER, None, 3, 42))
    worker.init()
    worker.init()
    worker.close()
    [(_, text)] = log.lines
    assert f"master nil 3 42 {DISABLED}" in text


def test_init_by_lua_fails_in_a_master() -> None:
    worker = Worker(conf("error('no')"), error_log=MemoryLog())
    with pytest.raises(LuaError, match=r"init_by_lua error: .*no"):
        worker.init()
    worker.close()


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place(WORKER, 2, 3, 42, lambda: (7, 8, 9)), "worker 2 3 42 7,8,9"),
        (Place(AGENT, None, 3, 42, lambda: (7, 9)), "privileged agent nil 3 42 7,9"),
    ],
)
async def test_a_child_of_a_master(place: Place, expected: str) -> None:
    log = MemoryLog()
    worker = Worker(conf(exit_worker=TELL), error_log=log)
    worker.set_place(Place(MASTER, None, 3, 42))
    worker.init()
    worker.set_place(place)
    await run(worker)
    assert expected in log.lines[-1][1]


@pytest.mark.parametrize(
    ("kind", "call", "expected"),
    [
        (MASTER, "enable_privileged_agent()", "true nil"),
        (MASTER, "enable_privileged_agent(10)", "true nil"),
        (
            MASTER,
            "enable_privileged_agent('x')",
            "nil bad 'connections' argument: number expected and greater than 0",
        ),
        ("single", "enable_privileged_agent()", "nil a privileged agent needs a master process"),
    ],
)
def test_a_privileged_agent(kind: str, call: str, expected: str) -> None:
    log = MemoryLog()
    init = f"local ok, err = require('ngx.process').{call} ngx.log(ngx.ERR, tostring(ok), ' ', tostring(err))"
    worker = Worker(conf(init), error_log=log)
    worker.set_place(Place(kind))
    worker.init()
    wanted = worker.runtime.vm.export("privileged_agent")() is not None
    worker.close()
    assert expected in log.lines[-1][1]
    assert wanted == expected.startswith("true")
