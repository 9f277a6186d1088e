-- As much of a redis client as the gateway needs; lua-resty-redis has all of it.

local _M = {}

-- The value of a key, nil without one; nil and an error when redis cannot be asked.
function _M.get(host, port, key)
    local sock = ngx.socket.tcp()
    sock:settimeouts(500, 500, 500)
    local ok, err = sock:connect(host, port)
    if not ok then
        return nil, err
    end
    local command = { "*2\r\n$3\r\nGET\r\n$", #key, "\r\n", key, "\r\n" }
    ok, err = sock:send(command)
    local line = nil
    if ok then
        line, err = sock:receive()
    end
    if not line then
        sock:close()
        return nil, err
    end
    local kind, rest = line:sub(1, 1), line:sub(2)
    if kind ~= "$" then
        sock:close()
        return nil, rest
    end
    local value
    if rest ~= "-1" then
        value, err = sock:receive(tonumber(rest) + 2)
        if not value then
            sock:close()
            return nil, err
        end
        value = value:sub(1, -3)
    end
    sock:setkeepalive(60000, 10)
    return value
end

return _M
