-- ngx.worker: this process among its kin. One process is worker 0 of 1; a master's worker gets its
-- place in rt.export.set_worker.

local rt = ...

local ffi = require "ffi"

local ngx, S = rt.ngx, rt.S

-- Under a name of our own, because a user's module may declare getpid, too.
ffi.cdef [[ int trio_lua_getpid(void) __asm__("getpid"); ]]
local getpid = ffi.C.trio_lua_getpid

local id, count, exiting = 0, 1, false

--- The place of this process: its number (nil when it is no worker) and how many workers there are.
function rt.export.set_worker(number, total)
    id, count = number, total
end

--- From now on ngx.worker.exiting() is true.
function rt.export.set_exiting()
    exiting, rt.exiting = true, true
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
    return { getpid() }
end
