-- Requests need a session, which redis knows: "session:TOKEN" is the user's name. What it said counts for ten seconds.

local redis = require "tiny_redis"

local sessions = ngx.shared.sessions

local CACHED, NOBODY = 10, ""

local _M = {}

-- The user of a token, "" for nobody; nil and an error when redis cannot be asked.
local function user_of(token, host, port)
    local user = sessions:get(token)
    if user then
        return user
    end
    local err
    user, err = redis.get(host, port, "session:" .. token)
    if err then
        return nil, err
    end
    user = user or NOBODY
    sessions:set(token, user, CACHED)
    return user
end

-- Let the request pass with ngx.ctx.user if the redis there says so, or answer 401 or 503.
function _M.check(host, port)
    local token = ngx.var.cookie_session
    if not token then
        return ngx.exit(401)
    end
    local user, err = user_of(token, host, port)
    if err then
        ngx.log(ngx.ERR, "no sessions: ", err)
        ngx.header["Retry-After"] = 1
        return ngx.exit(503)
    end
    if user == NOBODY then
        return ngx.exit(401)
    end
    ngx.ctx.user = user
end

return _M
