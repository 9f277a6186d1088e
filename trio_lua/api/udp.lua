-- ngx.socket.udp: datagram sockets with one peer.

local rt = ...

local S, ngx, py, ops, threads = rt.S, rt.ngx, rt.py, rt.ops, rt.threads
local type, tonumber, tostring, error, select, setmetatable = type, tonumber, tostring, error, select, setmetatable
local floor, min = math.floor, math.min
local checker, suspend, raw_log = rt.checker, rt.suspend, rt.raw_log
local object, arg_error, settings, text_of, own =
    rt.socket.object, rt.socket.arg_error, rt.socket.settings, rt.socket.text, rt.socket.own
local give_way, suspended = rt.socket.give_way, rt.socket.suspended

local MAX_DATAGRAM = 8192

-- Places in the object, as in OpenResty.
local STATE, TIMEOUT, BIND = 1, 2, 3

local function current()
    return S.r or error("no request found", 3)
end

local function closed(r, doing)
    if settings(r).log_errors then
        raw_log(4, "attempt to " .. doing .. " data on a closed socket: u:0000000000000000, c:0000000000000000", r)
    end
    return nil, "closed"
end

local function busy(u)
    return u.waiting and threads[u.waiting]
end

local function finalize(u)
    local id = u.id
    u.id = nil
    if id then
        py.udp_close(id)
    end
end

local function failed(r, err, line, level)
    if line and settings(r).log_errors then
        raw_log(level, line, r)
    end
    return nil, err
end

local function read_timeout(sock, r)
    local ms = sock[TIMEOUT]
    return ms and ms > 0 and ms / 1000 or settings(r).read_timeout
end

local methods = {}

local setpeername_check = checker("ngx.socket")

function methods.setpeername(...)
    local n = select("#", ...)
    if n ~= 2 and n ~= 3 then
        error("ngx.socket.udp setpeername: expecting 2 or 3 arguments (including the object), but seen " .. n, 2)
    end
    local sock, host, port = ...
    local r = setpeername_check()
    local u = object(sock)
    if type(host) == "number" then
        host = tostring(host)
    elseif type(host) ~= "string" then
        arg_error(2, "string expected, got " .. (host == nil and "nil" or type(host)), 2)
    end
    if n == 3 then
        local number = tonumber(port)
        if not number then
            arg_error(3, "number expected, got " .. (port == nil and "nil" or type(port)), 2)
        end
        port = number < 0 and -floor(-number) or floor(number)
        if port < 0 or port > 65535 then
            return nil, "bad port number: " .. port
        end
    end
    if u then
        if u.r and u.r ~= r then
            error("bad request", 2)
        elseif busy(u) then
            return nil, "socket busy"
        end
        finalize(u)
    end
    u = { r = r, finalize = finalize, read_timeout = read_timeout(sock, r) }
    sock[STATE] = u
    local id, done, line, level = py.udp_connect(host, port or 0, sock[BIND])
    if not id then
        return failed(r, done, line, level)
    end
    u.id = id
    own(r, u)
    if not done then
        local conf = settings(r)
        local err
        u.waiting = S.th.id
        suspended()
        done, err, line, level = suspend(ops.udp_connect, id, conf.resolver, conf.resolver_timeout)
        u.waiting = nil
        if not done then
            u.id = nil
            return failed(r, err, line, level)
        end
    end
    return 1
end

-- The state of a socket that has a peer, or nil and what to return instead.
local function ready(sock, doing)
    local u = object(sock, 4)
    local r = current()
    if not u or not u.id then
        return closed(r, doing)
    end
    if u.r ~= r then
        error("bad request", 3)
    elseif busy(u) then
        return nil, "socket busy"
    end
    return u
end

function methods.send(...)
    if select("#", ...) ~= 2 then
        error("expecting 2 arguments (including the object), but got " .. select("#", ...), 2)
    end
    local sock, data = ...
    local u, err = ready(sock, "send")
    if not u then
        return nil, err
    end
    if type(data) ~= "string" then
        data = text_of(data)
    end
    give_way()
    local ok, why, line, level = py.udp_send(u.id, data)
    if not ok then
        return failed(u.r, why, line, level)
    end
    return 1
end

function methods.receive(...)
    local n = select("#", ...)
    if n ~= 1 and n ~= 2 then
        error("expecting 1 or 2 arguments (including the object), but got " .. n, 2)
    end
    local sock, size = ...
    local u, why = ready(sock, "receive")
    if not u then
        return nil, why
    end
    if size ~= nil then
        size = tonumber(size) or arg_error(2, "number expected, got " .. type(size), 2)
        -- OpenResty takes a negative number for a very large one
        size = size < 0 and MAX_DATAGRAM or min(floor(size), MAX_DATAGRAM)
    else
        size = MAX_DATAGRAM
    end
    give_way()
    local data, err, line, level = py.udp_receive(u.id, size)
    if not data and not err then
        u.waiting = S.th.id
        suspended()
        data, err, line, level = suspend(ops.udp_receive, u.id, size, u.read_timeout)
        u.waiting = nil
    end
    if not data then
        return failed(u.r, err, line, level)
    end
    return data
end

function methods.settimeout(...)
    if select("#", ...) ~= 2 then
        error("ngx.socket settimeout: expecting at least 2 arguments (including the object) but seen "
            .. select("#", ...), 2)
    end
    local sock, ms = ...
    local u = object(sock)
    sock[TIMEOUT] = tonumber(ms) or 0
    if u and u.r then
        u.read_timeout = read_timeout(sock, u.r)
    end
end

-- Methods that OpenResty got later, behind those that its metatable has had from the beginning.
local later = {}

function later.bind(...)
    if select("#", ...) ~= 2 then
        error("expecting 2 arguments, but got " .. select("#", ...), 2)
    end
    local sock, address = ...
    current()
    object(sock)
    if type(address) ~= "string" then
        arg_error(2, "string expected, got " .. (address == nil and "nil" or type(address)), 2)
    end
    if not py.is_address(address) then
        return nil, "bad address"
    end
    sock[BIND] = address
    return true
end

function methods.close(...)
    if select("#", ...) ~= 1 then
        error("expecting 1 argument (including the object) but seen " .. select("#", ...), 2)
    end
    local u = object((...))
    local r = current()
    if not u or not u.id then
        return nil, "closed"
    end
    if u.r ~= r then
        error("bad request", 2)
    elseif busy(u) then
        return nil, "socket busy"
    end
    finalize(u)
    return 1
end

methods.__index = methods
setmetatable(methods, { __index = later })

local udp_check = checker("ngx.socket")

function ngx.socket.udp(...)
    if select("#", ...) ~= 0 then
        error("expecting zero arguments, but got " .. select("#", ...), 2)
    end
    udp_check()
    return setmetatable({}, methods)
end
