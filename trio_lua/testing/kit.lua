-- What a VM under test has besides the families: running code by hand, and knowing who writes globals.

local rt = ...

local S, py = rt.S, rt.py
local getinfo, rawset, type, tostring, select = debug.getinfo, rawset, type, tostring, select
local loadstring, require = loadstring, require
local start_thread, outcome = rt.start_thread, rt.outcome

local TIMER = 0x80
local G = _G

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

-- Run code as a light thread in a timer's context; what it returns goes to py.kit_value.
function rt.export.kit_run(code, name)
    local fn, err = loadstring(code, name)
    if not fn then
        return outcome.LOAD_FAILED, err
    end
    local owner = { id = 0, fake = true, phase = TIMER, loc = {}, start = py.now() }
    return start_thread(owner, function()
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

-- From now on every new global is reported, with the line that wrote it. Handlers have globals of their
-- own, so what comes here is a module's.
function rt.export.kit_watch_globals()
    local meta = getmetatable(G) or {}
    local before = meta.__newindex
    function meta.__newindex(t, name, value)
        local info = getinfo(2, "Sl")
        py.kit_global(tostring(name), info and info.short_src .. ":" .. info.currentline or "?")
        if before then
            return before(t, name, value)
        end
        rawset(t, name, value)
    end
    setmetatable(G, meta)
end
