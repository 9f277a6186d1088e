-- ngx.timer: functions that run later, each as the handler of a request without a client.
--
-- A timer that waits is a node of the clock. When it fires, its function is started at once, in the turn's order, and
-- Python takes what comes of it like the beginning of any handler. It counts as running until all its threads have ended.

local rt = ...

local S, ngx, requests = rt.S, rt.ngx, rt.requests
local type, tonumber, error, select, unpack, getinfo = type, tonumber, error, select, unpack, debug.getinfo
local floor, format = math.floor, string.format
local band = require("bit").band
local allowed = rt.allowed["timer"]

local TIMER, EXIT_WORKER = 0x80, 0x2000

local pending, running = 0, 0

local fire

local function schedule(timer, ms)
    timer.expire = fire
    pending = pending + 1
    rt.clock_add(timer, ms * 1000)
end

fire = function(timer)
    pending = pending - 1
    local premature = timer.premature
    if timer.interval and not rt.exiting then
        schedule(timer, timer.interval)
    end
    if running >= rt.max_running_timers then
        local info = getinfo(timer.f, "S")
        rt.raw_log(2, format("lua failed to run timer with function defined at %s:%d: "
            .. "%d lua_max_running_timers are not enough", info.source, info.linedefined, rt.max_running_timers))
        return 0
    end
    running = running + 1
    local id = rt.new_id()
    local r = {
        id = id, fake = true, phase = TIMER, loc = timer.loc, start = 0, origin = timer.origin, env = timer.env,
        fresh = timer.fresh, main = false, status = 0, began = rt.py.now(),
    }
    requests[id] = r
    S.now = r.began
    return -id, rt.start_thread(r, timer.f, premature or false, unpack(timer, 1, timer.n))
end

-- A timer's threads have all ended.
function rt.export.end_timer(id)
    running = running - 1
    rt.export.release(id)
end

-- How many wait, and how many run.
function rt.export.timers()
    return pending, running
end

-- The timers that wait, in the order of their times.
local function waiting()
    return rt.clock_nodes(function(node)
        return node.expire == fire
    end)
end

rt.waiting_timers = waiting

-- The worker stops: whatever waits for a time is fired now. What was to run at once is not early.
function rt.export.expire_timers()
    local list, n = waiting()
    for i = 1, n do
        local timer = list[i]
        rt.clock_remove(timer)
        timer.premature = timer.delay > 0
        rt.clock_add(timer, 0)
    end
end

-- Forget what waits.
function rt.export.drop_timers()
    local list, n = waiting()
    for i = 1, n do
        rt.clock_remove(list[i])
    end
    pending = pending - n
end

-- Who a timer's log lines name: the client and the socket of the request that made it.
local function origin(r)
    if r.fake then
        return r.origin
    end
    local client = r.main or r
    return ", client: " .. rt.connection(client) .. ", server: " .. rt.py.listen_address(client.cid)
end

-- Called as a tail, so that errors name the line of who calls ngx.timer.at.
local function timer(name, every, ...)
    local n = select("#", ...)
    if n < 2 then
        error("expecting at least 2 arguments but got " .. n, 2)
    end
    local seconds, f = ...
    local delay = tonumber(seconds)
    if not delay then
        error("bad argument #1 to '" .. name .. "' (number expected, got "
            .. (seconds == nil and "nil" or type(seconds)) .. ")", 2)
    end
    delay = floor(delay * 1000 + 1e-6)
    if every and delay == 0 then
        error("delay cannot be zero", 2)
    elseif delay < 0 then
        error("bad argument #1 to '" .. name .. "' (delay cannot be negative)", 2)
    end
    if not rt.is_lua_function(f) then
        error("bad argument #2 to '" .. name .. "' (Lua function expected)", 2)
    end
    local r = S.r
    if not r then
        error("no request", 2)
    end
    if band(r.phase, allowed) == 0 then
        error("API disabled in the context of " .. (rt.context_names[r.phase] or "unknown"), 2)
    end
    if rt.exiting and delay > 0 then
        return nil, "process exiting"
    end
    if pending >= rt.max_pending_timers then
        return nil, "too many pending timers"
    end
    local new = {
        f = f, delay = delay, interval = every and delay, loc = r.loc, origin = origin(r), env = r.env, fresh = r.fresh,
        n = n - 2, select(3, ...),
    }
    if rt.note_origin then
        rt.note_origin(new)
    end
    schedule(new, delay)
    return 1
end

ngx.timer = {}

function ngx.timer.at(...)
    return timer("at", false, ...)
end

function ngx.timer.every(...)
    return timer("every", true, ...)
end

function ngx.timer.running_count()
    if not S.r then
        error("no request", 2)
    end
    return running
end

function ngx.timer.pending_count()
    if not S.r then
        error("no request", 2)
    end
    return pending
end
