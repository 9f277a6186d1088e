-- What kind of process this is: rt.process, which a master sets (rt.export.set_place), has its type and master_pid.

local rt = require "trio_lua.rt"
local base = require "resty.core.base"

local error, type = error, type

local _M = { version = base.version }

local ALONE = { type = "single" }

--- "single", "master", "worker", "signaller", "helper" or "privileged agent".
function _M.type()
    return (rt.process or ALONE).type
end

--- The master's pid; a single process is its own.
function _M.get_master_pid()
    return (rt.process or ALONE).master_pid or ngx.worker.pid()
end

--- Start a process without listeners beside the workers: in init_by_lua only.
function _M.enable_privileged_agent(connections)
    if ngx.get_phase() ~= "init" then
        return nil, "API disabled in the current context"
    end
    connections = connections or 512
    if type(connections) ~= "number" or connections < 0 then
        return nil, "bad 'connections' argument: number expected and greater than 0"
    end
    if _M.type() ~= "master" then
        return nil, "a privileged agent needs a master process"
    end
    rt.agent_connections = connections
    return true
end

--- Finish the requests that run, then end the process.
function _M.signal_graceful_exit()
    local exit = rt.py.graceful_exit
    if not exit then
        error("this process cannot be told to exit", 2)
    end
    exit()
end

return _M
