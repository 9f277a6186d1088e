-- ngx.ssl.session: sessions, in ssl_session_fetch_by_lua* and ssl_session_store_by_lua*.
--
-- Python's ssl module neither gives sessions out nor takes them in, so there are only their numbers: clients resume what
-- this process remembers itself.

local rt = require "trio_lua.rt"

local S, py = rt.S, rt.py
local error = error

local _M = { version = require("resty.core.base").version }

local FETCH, STORE = 0x1000, 0x0800
local UNSUPPORTED = "not supported by Python's ssl module"

--- The number of the session, in hexadecimal.
function _M.get_session_id()
    local r = S.r or error("no request found", 2)
    if r.phase ~= FETCH and r.phase ~= STORE then
        error("API disabled in the current context", 2)
    end
    return py.ssl_session(r.cid)
end

--- Not possible here: nil and an error.
function _M.get_serialized_session()
    return nil, UNSUPPORTED
end

--- Not possible here: nil and an error.
function _M.set_serialized_session(_)
    return nil, UNSUPPORTED
end

return _M
