-- Setting a request header with and without replacing the old ones.

local rt = require "trio_lua.rt"
local base = require "resty.core.base"

local request, set_header, add_header = rt.request, ngx.req.set_header, rt.add_request_header
local error, tostring, type = error, tostring, type

local _M = { version = base.version }

--- Replace (`override`) or add. Called as a tail call, its errors point at the caller of the caller.
function _M.set_req_header(name, value, override)
    request()
    if name == nil then
        error("bad 'name' argument: string expected, got nil", 2)
    end
    if type(name) ~= "string" then
        name = tostring(name)
    end
    if override then
        return set_header(name, value)
    end
    if value == nil then
        error("bad 'value' argument: string or table expected, got nil", 2)
    end
    if type(value) == "table" and #value == 0 then
        error("bad 'value' argument: non-empty table expected", 2)
    end
    return add_header(name, value)
end

return _M
