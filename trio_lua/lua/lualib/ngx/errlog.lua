-- The error log from Lua: lines without a prefix, its level, and reading captured lines.

local rt = require "trio_lua.rt"
local base = require "resty.core.base"

local S, py = rt.S, rt.py
local raw_log = rt.raw_log
local error, floor, type = error, math.floor, type

local _M = { version = base.version }

local NO_CAPTURE = 'directive "lua_capture_error_log" is not set'

--- The least serious level to capture, as a number such as ngx.ERR.
function _M.set_filter_level(level)
    if not level then
        return nil, 'missing "level" argument'
    end
    local set = py.capture_level
    if not set then
        return nil, NO_CAPTURE
    end
    if level > ngx.DEBUG or level < ngx.STDERR then
        return nil, "bad log level: " .. floor(level)
    end
    set(level)
    return true
end

--- Take up to `max` captured lines (10): level, time and text of each, one after the other, in `logs` or a new table.
function _M.get_logs(max, logs)
    local take = py.captured
    if not take then
        return nil, NO_CAPTURE
    end
    logs = logs or {}
    local n = 0
    for _ = 1, max or 10 do
        local level, time, text = take()
        if not level then
            break
        end
        logs[n + 1], logs[n + 2], logs[n + 3] = level, time, text
        n = n + 3
    end
    logs[n + 1] = nil
    return logs
end

--- The level of error_log, as a number such as ngx.ERR.
function _M.get_sys_filter_level()
    local r = S.r
    local loc = r and r.loc
    return loc and loc.log_level or rt.log_level or ngx.ERR
end

--- Write a line as it is, without the place in the code that ngx.log puts before it.
function _M.raw_log(level, message)
    if type(level) ~= "number" then
        error("bad argument #1 to 'raw_log' (must be a number)", 2)
    end
    if type(message) ~= "string" then
        error("bad argument #2 to 'raw_log' (must be a string)", 2)
    end
    level = floor(level)
    if level < ngx.STDERR or level > ngx.DEBUG then
        error("bad log level", 2)
    end
    raw_log(level, message, S.r)
end

return _M
