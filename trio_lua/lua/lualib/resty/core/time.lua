-- The cached clock as milliseconds and seconds since an arbitrary moment.

local rt = require "trio_lua.rt"
local base = require "resty.core.base"

local now = rt.now
local floor = math.floor

local _M = { version = base.version }

function _M.monotonic_msec()
    return floor(now() * 1000)
end

function _M.monotonic_time()
    return floor(now() * 1000) / 1000
end

return _M
