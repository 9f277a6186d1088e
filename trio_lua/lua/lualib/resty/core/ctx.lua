-- ngx.ctx as a function, whose caller may bring the (pre-sized) table to be used.

local rt = require "trio_lua.rt"
local base = require "resty.core.base"

local S = rt.S
local get_ctx, set_ctx = rt.get_ctx, rt.set_ctx

local _M = { _VERSION = base.version }

--- The request's ngx.ctx; `ctx` becomes it when there is none yet.
function _M.get_ctx_table(ctx)
    local r = S.r
    if ctx and r and not r.ctx then
        set_ctx(ctx)
    end
    return get_ctx()
end

return _M
