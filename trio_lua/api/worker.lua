-- ngx.worker: this process among its kin, and what kind of process it is (ngx.process has that). By itself a process is
-- worker 0 of 1; a master's children get their places in rt.export.set_place.

local rt = ...

local ffi = require "ffi"

local ngx, S = rt.ngx, rt.S

-- Under a name of our own, because a user's module may declare getpid, too.
ffi.cdef [[ int trio_lua_getpid(void) __asm__("getpid"); ]]
local getpid = ffi.C.trio_lua_getpid

local id, count, exiting = 0, 1, false

--- The place of this process.
-- kind: "single", "master", "worker" or "privileged agent". number: nil when it is no worker. total: how many workers
-- there are. master: the master's pid, nil without one.
function rt.export.set_place(kind, number, total, master)
    id, count = number, total
    rt.process = { type = kind, master_pid = master }
end

--- Among workers of another VM (a thread's) it has the same place.
function rt.export.set_worker(number, total)
    id, count = number, total
end

--- From now on ngx.worker.exiting() is true.
function rt.export.set_exiting()
    exiting, rt.exiting = true, true
end

--- How many connections a privileged agent may have; nil if init_by_lua wanted none.
function rt.export.privileged_agent()
    return rt.agent_connections
end

local worker = {}
ngx.worker = worker

function worker.id()
    return id
end

function worker.pid()
    return getpid()
end

function worker.count()
    return count
end

function worker.exiting()
    return exiting
end

local INIT_WORKER = 0x100

--- The pids of all workers.
function worker.pids()
    local r = S.r
    if not r or r.phase == INIT_WORKER then
        return nil, "API disabled in the current context"
    end
    if rt.process and rt.process.master_pid then
        return { rt.py.worker_pids() }
    end
    return { getpid() }
end
