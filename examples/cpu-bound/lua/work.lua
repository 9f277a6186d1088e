-- What the handlers share.

local threadpool = require "resty.threadpool"

local work = {}

--- The request's body, which must not be empty.
function work.body()
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if not body then
        ngx.exit(ngx.HTTP_BAD_REQUEST)
    end
    return body
end

--- Run a function in a thread. When too many wait already the client is told to come again.
function work.run(f, ...)
    local ok, result = pcall(threadpool.run, "hashing", f, ...)
    if ok then
        return result
    elseif not tostring(result):find("queue overflow", 1, true) then
        error(result, 0)
    end
    ngx.header["Retry-After"] = 1
    ngx.exit(ngx.HTTP_SERVICE_UNAVAILABLE)
end

return work
