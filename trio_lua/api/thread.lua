-- ngx.thread: spawn, wait and kill over the scheduler's user threads, with OpenResty's checks.

local rt = ...

local S, ngx = rt.S, rt.ngx
local type, error, select, unpack, pcall = type, error, select, unpack, pcall
local own_coroutine = rt.own_coroutine
local bytecode = require("jit.util").funcbc
local checker, user_thread, reap = rt.checker, rt.user_thread, rt.reap

local thread = {}
ngx.thread = thread

local spawn_check = checker("ngx.thread")

-- Whether f is a function written in Lua.
local function lua_function(f)
    -- debug.getinfo would make a table each time
    return type(f) == "function" and (pcall(bytecode, f, 0))
end
rt.is_lua_function = lua_function

function thread.spawn(f, ...)
    if not S.r then
        error("no request found", 2)
    end
    if not lua_function(f) then
        error("bad argument #1 to 'spawn' (Lua function expected)", 2)
    end
    spawn_check()
    return rt.spawn(f, ...)
end

function thread.wait(...)
    if not S.r then
        error("no request found", 2)
    end
    spawn_check()
    local n = select("#", ...)
    if n == 0 then
        error("at least one coroutine should be specified", 2)
    end
    local self = own_coroutine()
    local list, n_list -- most threads that are waited for have ended
    for i = 1, n do
        local co = select(i, ...)
        if type(co) ~= "thread" then
            error("bad argument #" .. i .. " to 'wait' (lua thread expected)", 2)
        end
        local th, parent = user_thread(co)
        if th == false then
            error("no co ctx found", 2)
        elseif th == nil then
            error("attempt to wait on a coroutine that is not a user thread", 2)
        elseif parent ~= self then
            error("only the parent coroutine can wait on the thread", 2)
        end
        local state = th.state
        if state == "zombie" then
            local results = reap(th)
            return unpack(results, 1, results.n)
        elseif state == "dead" then
            if i == n then
                return nil, "already waited or killed"
            end
        elseif list then
            n_list = n_list + 1
            list[n_list] = th
        else
            list, n_list = { th }, 1
        end
    end
    return rt.wait_threads(list or {}, n_list or 0)
end

function thread.kill(co)
    if not S.r then
        error("no request found", 2)
    end
    spawn_check()
    if type(co) ~= "thread" then
        error("bad argument #1 to 'kill' (lua thread expected)", 2)
    end
    local th, parent = user_thread(co)
    if th == false then
        error("no co ctx found", 2)
    elseif th == nil then
        return nil, "not user thread"
    elseif parent ~= own_coroutine() then
        return nil, "killer not parent"
    elseif th.subrequests then
        return nil, "pending subrequests"
    elseif th.state == "zombie" then
        reap(th)
        return nil, "already terminated"
    elseif th.state == "dead" then
        return nil, "already waited or killed"
    end
    rt.kill_thread(th)
    local socket = th.connecting
    if socket then
        -- its operation may not have begun, and then nobody else gives back its place in a pool
        socket:finalize()
    end
    return 1
end
