-- So many requests in a window of time for each client.

local requests = ngx.shared.requests

local _M = {}

-- Let the request pass, or answer 429. Windows begin with a client's first request.
function _M.check(limit, seconds)
    local key = ngx.var.binary_remote_addr
    local count, err = requests:incr(key, 1, 0, seconds)
    if not count then
        -- better too many requests than none
        ngx.log(ngx.ERR, "cannot count: ", err)
        return
    end
    ngx.header["X-RateLimit-Limit"] = limit
    ngx.header["X-RateLimit-Remaining"] = math.max(limit - count, 0)
    if count > limit then
        ngx.header["Retry-After"] = math.ceil(requests:ttl(key) or seconds)
        return ngx.exit(429)
    end
end

return _M
