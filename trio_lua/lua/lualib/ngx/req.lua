-- Adding request headers.

local core_request = require "resty.core.request"
local base = require "resty.core.base"

local set_req_header = core_request.set_req_header

local _M = { version = base.version }

--- Add a request header; those of the same name stay.
function _M.add_header(name, value)
    return set_req_header(name, value, false)
end

return _M
