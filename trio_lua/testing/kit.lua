-- What a VM under test has besides the families: running code by hand, and knowing who writes globals.

local rt = ...

local S, py = rt.S, rt.py
local getinfo, rawset, type, tostring, select = debug.getinfo, rawset, type, tostring, select
local loadstring, require = loadstring, require
local find, sub, concat = string.find, string.sub, table.concat
local requests, threads = rt.requests, rt.threads
local start_thread, outcome = rt.start_thread, rt.outcome

local TIMER = 0x80
local G = _G

local OWN = "trio_lua/lua/lualib/"

-- Values for Python: plain ones as they are, tables as JSON.
local function handed_out(...)
    local n = select("#", ...)
    for i = 1, n do
        local value = select(i, ...)
        local kind = type(value)
        if kind == "nil" or kind == "boolean" or kind == "number" or kind == "string" then
            py.kit_value(kind == "string" and "s" or "v", value)
        elseif kind == "table" then
            py.kit_value("j", require("cjson").encode(value))
        else
            py.kit_value("o", tostring(value))
        end
    end
end

-- Run code as a light thread in a timer's context; what it returns goes to py.kit_value. Returns the number
-- of its request, and what starting it returns.
function rt.export.kit_run(code, name)
    local fn, err = loadstring(code, name)
    if not fn then
        return 0, outcome.LOAD_FAILED, err
    end
    local id = rt.new_id()
    local r = { id = id, fake = true, phase = TIMER, loc = {}, start = py.now(), status = 0, origin = "" }
    requests[id] = r
    return id, start_thread(r, function()
        handed_out(fn())
    end)
end

-- Run code at once, outside of everything that may wait: true, or false and the error.
function rt.export.kit_execute(code, name)
    local fn, err = loadstring(code, name)
    if not fn then
        return false, err
    end
    local ok, why = pcall(fn)
    if ok then
        return true
    end
    return false, tostring(why)
end

-- Lua's own clock follows the run's.
local os_time, os_date = os.time, os.date

function os.time(t)
    return t and os_time(t) or math.floor(py.now())
end

function os.date(format, time)
    return os_date(format or "%c", time or math.floor(py.now()))
end

-- ------------------------------------------------------------------ leaks

-- The user's lines that led here, the innermost first, as "FILE:LINE < FILE:LINE".
local function place(level)
    local lines = {}
    level = level + 1
    while #lines < 5 do
        local info = getinfo(level, "Sl")
        if not info then
            break
        end
        if info.currentline > 0 and sub(info.source, 1, 5) ~= "=ngx/" and not find(info.source, OWN, 1, true) then
            local name = sub(info.source, 1, 1) == "@" and sub(info.source, 2) or info.short_src
            lines[#lines + 1] = name .. ":" .. info.currentline
        end
        level = level + 1
    end
    return concat(lines, " < ")
end

local places = setmetatable({}, { __mode = "k" })

-- From now on remember where threads, timers and sockets come from, and report sockets that a request that went well
-- leaves open, with the lines that connected them.
function rt.export.kit_watch()
    rt.note_origin = function(what)
        places[what] = place(3)
    end
    rt.left_open = function(u, r)
        if r.status < 499 then
            py.kit_leak(places[u] or "?")
        end
    end
end

-- Where a thread was spawned, nil for an entry thread.
function rt.export.kit_origin(id)
    local th = threads[id]
    return th and th.co and places[th.co]
end

-- The n-th of the waiting timers that requests have made: seconds until it fires, and the lines that made it.
function rt.export.kit_timer(n)
    local list, count = rt.waiting_timers()
    for i = 1, count do
        local timer = list[i]
        if timer.origin then
            n = n - 1
            if n == 0 then
                return timer.delay / 1000, places[timer] or "?"
            end
        end
    end
end

-- From now on every new global is reported, with the line that wrote it. Handlers have globals of their
-- own, so what comes here is a module's.
function rt.export.kit_watch_globals()
    local meta = getmetatable(G) or {}
    local before = meta.__newindex
    function meta.__newindex(t, name, value)
        py.kit_global(tostring(name), place(2))
        if before then
            return before(t, name, value)
        end
        rawset(t, name, value)
    end
    setmetatable(G, meta)
end
