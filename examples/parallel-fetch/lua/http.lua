-- An HTTP/1.1 client in a hundred lines: GET over pooled connections, several at once.
--
-- lua-resty-http has everything else, and runs here as it is.

local tcp, spawn, wait, kill = ngx.socket.tcp, ngx.thread.spawn, ngx.thread.wait, ngx.thread.kill
local concat, pairs, tonumber = table.concat, pairs, tonumber

local M = {}

local function read_chunks(sock)
    local parts = {}
    while true do
        local line, err = sock:receive()
        local size = line and tonumber(line:match("^%x+"), 16)
        if not size then
            return nil, err or "bad chunk"
        end
        if size > 0 then
            parts[#parts + 1], err = sock:receive(size)
            if err then
                return nil, err
            end
        end
        sock:receive() -- the end of the chunk, or of the body
        if size == 0 then
            return concat(parts)
        end
    end
end

local function read_response(sock)
    local line, err = sock:receive()
    if not line then
        return nil, err
    end
    local status = tonumber(line:match("^HTTP/1%.%d (%d%d%d)"))
    if not status then
        return nil, "no HTTP"
    end
    local headers = {}
    for field in function() return sock:receive() end do
        if field == "" then
            break
        end
        local name, value = field:match("^([^:]+):%s*(.*)$")
        if name then
            headers[name:lower()] = value
        end
    end
    local body
    local length = tonumber(headers["content-length"])
    if headers["transfer-encoding"] == "chunked" then
        body, err = read_chunks(sock)
    elseif length then
        body, err = sock:receive(length)
    else
        body, err = sock:receive("*a")
        headers.connection = "close"
    end
    if not body then
        return nil, err
    end
    return { status = status, headers = headers, body = body }
end

--- Ask for a URL.
-- @param url `http://host[:port]/path`
-- @param seconds How long each step may take.
-- @return status, headers (names in lower case) and body in a table; nil and an error
function M.get(url, seconds)
    local host, port, path = url:match("^http://([^:/]+):?(%d*)(.*)$")
    if not host then
        return nil, "not a URL: " .. url
    end
    local sock = tcp()
    sock:settimeout(seconds * 1000)
    local ok, err = sock:connect(host, tonumber(port) or 80)
    if not ok then
        return nil, err
    end
    ok, err = sock:send {
        "GET ", path == "" and "/" or path, " HTTP/1.1\r\nHost: ", host, "\r\nAccept: */*\r\n\r\n",
    }
    if not ok then
        return nil, err
    end
    local response
    response, err = read_response(sock)
    if not response or (response.headers.connection or ""):lower() == "close" then
        sock:close()
    else
        sock:setkeepalive()
    end
    return response, err
end

local function fetch(url, seconds)
    local response, err = M.get(url, seconds)
    return response or { err = err }
end

--- Ask for several URLs at once.
-- @param urls By name.
-- @return The responses by name; what failed has `err` in place of the rest.
function M.get_all(urls, seconds)
    local threads, answers = {}, {}
    for name, url in pairs(urls) do
        threads[name] = spawn(fetch, url, seconds)
    end
    for name, thread in pairs(threads) do
        local _, answer = wait(thread)
        answers[name] = answer
    end
    return answers
end

--- Ask for several URLs at once, and take the first answer. The other requests are ended.
function M.get_first(urls, seconds)
    local threads = {}
    for i, url in ipairs(urls) do
        threads[i] = spawn(fetch, url, seconds)
    end
    local _, answer = wait(unpack(threads))
    for _, thread in ipairs(threads) do
        kill(thread)
    end
    return answer
end

return M
