-- Adding response headers, a status with its own words, and nginx's If-* checks.

local rt = require "trio_lua.rt"
local core_response = require "resty.core.response"
local base = require "resty.core.base"

local set_resp_header, request = core_response.set_resp_header, rt.request
local escape_value = rt.escape_header_value
local error, tonumber, tostring, type = error, tonumber, tostring, type

local _M = { version = base.version, bypass_if_checks = core_response.bypass_if_checks }

--- Add a response header; those of the same name stay, unless there can be one only.
function _M.add_header(name, value)
    return set_resp_header(nil, name, value, true)
end

--- Set the status and, with `reason`, the words behind it in the status line.
function _M.set_status(status, reason)
    local r = request()
    local code = tonumber(status)
    if not code then
        error("number expected, got " .. type(status), 2)
    end
    -- As ngx.status does it, with its log line for a head that is out.
    ngx.status = code
    if reason ~= nil and not r.header_sent then
        r.status_line = code .. " " .. escape_value(tostring(reason))
    end
end

return _M
