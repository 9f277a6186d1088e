-- Answers in JSON, for every handler of the example.

local cjson = require "cjson"

local _M = {}

-- Sends `value` as the whole response.
function _M.send(status, value)
    ngx.status = status
    ngx.header.content_type = "application/json"
    ngx.say(cjson.encode(value))
end

-- The JSON body of the request; nil and a message when there is none.
function _M.read()
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if not body then
        return nil, "the request has no body"
    end
    local ok, value = pcall(cjson.decode, body)
    if not ok then
        return nil, "the body is not JSON"
    end
    return value
end

return _M
