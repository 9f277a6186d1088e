-- ngx.on_abort, and what the client's leaving means for a request.

local rt = ...

local S, ngx, requests = rt.S, rt.ngx, rt.requests
local type, error, select = type, error, select
local checker, spawn, rest, rouse, threads = rt.checker, rt.spawn, rt.rest, rt.rouse, rt.threads

local function callback(r, f)
    r.on_abort = S.th
    rest()
    return f()
end

local abort_check = checker("ngx.on_abort", true)

function ngx.on_abort(...)
    local f = ...
    if select("#", ...) ~= 1 or not rt.is_lua_function(f) then
        error("bad argument #1 to 'on_abort' (Lua function expected)", 2)
    end
    local r = abort_check()
    local th = r.on_abort
    if th and threads[th.id] == th then
        return nil, "duplicate call"
    elseif not rt.socket.settings(r).check_client_abort then
        return nil, "lua_check_client_abort is off"
    end
    spawn(callback, r, f)
    return 1
end

-- The client has closed the connection while its request was served. Returns whether a callback takes care of that.
function rt.export.client_gone(id)
    local r = requests[id]
    if rouse(r.on_abort) then
        return true
    end
    r.broken = true
    if r.status == 0 then
        r.status = 499
    end
    return false
end
