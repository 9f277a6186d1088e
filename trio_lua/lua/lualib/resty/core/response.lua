-- Setting a response header with and without replacing the old ones, and nginx's If-* checks.

local rt = require "trio_lua.rt"
local base = require "resty.core.base"

local request, add_header = rt.request, rt.add_response_header
local error, type = error, type

local _M = { version = base.version }

--- What ngx.header[key] = value does; with `no_override` the value comes on top of those there are.
function _M.set_resp_header(_, key, value, no_override)
    if not no_override then
        ngx.header[key] = value
        return
    end
    request()
    if value == nil then
        error("invalid header value", 2)
    end
    if type(value) == "table" and #value == 0 then
        return
    end
    return add_header(key, value)
end

--- Send this response whole, whatever If-Modified-Since, If-None-Match and their kin say.
function _M.bypass_if_checks()
    request().conditional_done = true
end

return _M
