-- A GET to the origin.

local _M = {}

local function read(sock)
    local line, err = sock:receive()
    if not line then
        return nil, err
    end
    local res = { status = tonumber(line:match("^HTTP/1%.%d (%d%d%d)")), headers = {} }
    if not res.status then
        return nil, "no HTTP: " .. line
    end
    while true do
        line, err = sock:receive()
        if not line then
            return nil, err
        elseif line == "" then
            break
        end
        local name, value = line:match("^(%S+):%s*(.-)%s*$")
        if name then
            res.headers[name:lower()] = value
        end
    end
    if res.status == 304 then
        return res
    end
    res.body, err = sock:receive(tonumber(res.headers["content-length"]) or "*a")
    if not res.body then
        return nil, err
    end
    return res
end

-- A response: status, headers (names in lower case), body; nil and an error when there is none.
function _M.get(host, port, path, etag)
    local sock = ngx.socket.tcp()
    sock:settimeouts(500, 500, 2000)
    local ok, err = sock:connect(host, port)
    if not ok then
        return nil, err
    end
    local lines = { "GET ", path, " HTTP/1.1\r\nHost: origin\r\n" }
    if etag then
        lines[#lines + 1] = "If-None-Match: " .. etag .. "\r\n"
    end
    lines[#lines + 1] = "\r\n"
    ok, err = sock:send(lines)
    local res
    if ok then
        res, err = read(sock)
    end
    if res and res.headers["connection"] ~= "close" then
        sock:setkeepalive(30000, 10)
    else
        sock:close()
    end
    return res, err
end

return _M
