-- The error log from Lua: lines without a prefix, its level, and reading captured lines.

local rt = require "trio_lua.rt"
local base = require "resty.core.base"

local S = rt.S
local raw_log = rt.raw_log
local error, floor, type = error, math.floor, type

local _M = { version = base.version }

local NO_CAPTURE = "missing the capture error log patch for nginx"

--- Which lines to capture: not without lua_capture_error_log.
function _M.set_filter_level(level)
    if not level then
        return nil, 'missing "level" argument'
    end
    return nil, NO_CAPTURE
end

--- The captured lines: not without lua_capture_error_log.
function _M.get_logs()
    return nil, NO_CAPTURE
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
