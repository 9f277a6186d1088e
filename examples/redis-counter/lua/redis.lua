-- A client for redis: what a cosocket needs to speak a protocol of lines and counted bytes.
--
-- Everything reads like blocking code, and nothing blocks: a handler that waits for redis lets the others run.

local tcp = ngx.socket.tcp
local concat, ipairs, tonumber, tostring = table.concat, ipairs, tonumber, tostring

local Connection = {}
Connection.__index = Connection

-- {"GET", "x"} -> "*2\r\n$3\r\nGET\r\n$1\r\nx\r\n"
local function encode(command)
    local parts = { "*", #command, "\r\n" }
    for _, word in ipairs(command) do
        word = tostring(word)
        parts[#parts + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
    end
    return concat(parts)
end

-- One reply; an error of redis is thrown, as losing the connection is.
local function read(sock)
    local line = assert(sock:receive())
    local kind, rest = line:sub(1, 1), line:sub(2)
    if kind == "+" then
        return rest
    elseif kind == ":" then
        return tonumber(rest)
    elseif kind == "-" then
        error("redis: " .. rest)
    elseif rest == "-1" then
        return nil
    elseif kind == "$" then
        return (assert(sock:receive(tonumber(rest) + 2)):sub(1, -3))
    end
    local list = {}
    for i = 1, tonumber(rest) do
        list[i] = read(sock)
    end
    return list
end

--- Send a command and return its reply.
function Connection:call(...)
    assert(self.sock:send(encode { ... }))
    return read(self.sock)
end

--- Send commands in one go and return the list of their replies.
function Connection:pipeline(commands)
    local requests, replies = {}, {}
    for i, command in ipairs(commands) do
        requests[i] = encode(command)
    end
    assert(self.sock:send(requests))
    for i = 1, #commands do
        replies[i] = read(self.sock)
    end
    return replies
end

--- Wait for the next message of a subscription, however long that takes.
function Connection:wait()
    self.sock:settimeouts(0, 0, 24 * 3600 * 1000)
    return read(self.sock)
end

--- Put the connection into the pool, where another request finds it.
--- What is not released is closed when its request ends, as after an error.
function Connection:release()
    return self.sock:setkeepalive()
end

local M = {}

--- A connection to the redis that the environment names, from the pool if one is there.
function M.connect()
    local address = os.getenv("REDIS") or "127.0.0.1:6379"
    local host, port = address:match("^([^:]+):(%d+)$")
    local sock = tcp()
    local ok, err
    if host then
        ok, err = sock:connect(host, tonumber(port))
    else
        ok, err = sock:connect(address)
    end
    if not ok then
        error("redis at " .. address .. ": " .. err)
    end
    return setmetatable({ sock = sock }, Connection)
end

return M
