-- ngx.socket.tcp: making connections, and letting them rest in pools.

local rt = ...

local S, ngx, py, ops = rt.S, rt.ngx, rt.py, rt.ops
local type, tonumber, tostring, error, select, setmetatable = type, tonumber, tostring, error, select, setmetatable
local sub, lower, floor = string.sub, string.lower, math.floor
local checker, suspend, methods = rt.checker, rt.suspend, rt.tcp_methods
local shared = rt.socket
local give_way, suspended, arg_error, kind_of = shared.give_way, shared.suspended, shared.arg_error, shared.kind_of
local object, expect, current, settings = shared.object, shared.expect, shared.current, shared.settings
local log_failure, busy, finalize, own, seconds =
    shared.log_failure, shared.busy, shared.finalize, shared.own, shared.seconds

-- Places in the object; those OpenResty uses, which some libraries know.
local STATE, CONNECT_TIMEOUT, KEY, SEND_TIMEOUT, READ_TIMEOUT, BIND, BIND_PORT = 1, 2, 3, 4, 5, 6, 7

local fill = shared.filler("tcp_receive")

-- The options table: pool_size, backlog, pool.
local function options_of(options, position, conf)
    local size, backlog, pool = options.pool_size, options.backlog, options.pool
    local n = tonumber(size)
    if n then
        n = floor(n)
        if n <= 0 then
            arg_error(position, 'bad "pool_size" option value: ' .. n, 3)
        end
    elseif size ~= nil then
        arg_error(position, 'bad "pool_size" option type: ' .. type(size), 3)
    end
    backlog = tonumber(backlog)
    if backlog then
        backlog = floor(backlog)
        if backlog < 0 then
            arg_error(position, 'bad "backlog" option value: ' .. backlog, 3)
        end
        n = n or conf.pool_size
    end
    if type(pool) == "number" then
        pool = tostring(pool)
    elseif pool ~= nil and type(pool) ~= "string" then
        arg_error(position, 'bad "pool" option type: ' .. type(pool), 3)
    end
    return n, backlog, pool
end

local connect_check = checker("ngx.socket")

function methods.connect(...)
    local n = select("#", ...)
    if n < 2 or n > 4 then
        error("ngx.socket connect: expecting 2, 3, or 4 arguments (including the object), but seen " .. n, 2)
    end
    local sock, host, port = ...
    local r = connect_check()
    local u = object(sock)
    if type(host) == "number" then
        host = tostring(host)
    elseif type(host) ~= "string" then
        arg_error(2, "string expected, got " .. kind_of(host), 2)
    end
    local conf = settings(r)
    local pool_size, backlog, key
    local last = select(n, ...)
    if type(last) == "table" then
        pool_size, backlog, key = options_of(last, n, conf)
        n = n - 1
    end
    port = n >= 3 and (type(port) == "number" or type(port) == "string") and tonumber(port) or nil
    if port then
        port = port < 0 and -floor(-port) or floor(port)
        if port < 0 or port > 65535 then
            return nil, "bad port number: " .. port
        end
        key = key or host .. ":" .. port
    elseif lower(sub(host, 1, 5)) ~= "unix:" then
        return nil, "missing the port number"
    end
    key = key or host
    if u then
        if u.r and u.r ~= r then
            error("bad request", 2)
        end
        local err = busy(u)
        if err then
            return nil, err
        end
        if u.id then
            finalize(u)
        end
    end
    u = {
        r = r, buf = "", pos = 1, buffer_size = conf.buffer_size,
        connect_timeout = seconds(sock[CONNECT_TIMEOUT], conf.connect_timeout),
        send_timeout = seconds(sock[SEND_TIMEOUT], conf.send_timeout),
        read_timeout = seconds(sock[READ_TIMEOUT], conf.read_timeout),
        fill = fill, finalize = finalize, py_send = "tcp_send",
    }
    sock[STATE], sock[KEY] = u, key
    give_way()
    local id, reused, line, level = py.tcp_connect(host, port or 0, key, pool_size or 0, backlog, sock[BIND],
        sock[BIND_PORT] or 0)
    if id then
        u.id = id
        own(r, u)
        if reused >= 0 then
            return 1
        end
        suspended()
        local th = S.th
        -- whoever kills the thread closes the socket
        u.connecting, th.connecting = th.id, u
        id, reused, line, level = suspend(ops.tcp_connect, id, u.connect_timeout, conf.resolver,
            conf.resolver_timeout)
        u.connecting, th.connecting = nil, nil
        if id then
            return 1
        end
        u.id = nil
    end
    log_failure(r, line, level)
    return nil, reused
end

function methods.bind(...)
    local n = select("#", ...)
    if n ~= 2 and n ~= 3 then
        error("expecting 2 or 3 arguments, but got " .. n, 2)
    end
    local sock, address, port = ...
    current()
    object(sock)
    if type(address) == "number" then
        address = tostring(address)
    elseif type(address) ~= "string" then
        arg_error(2, "string expected, got " .. kind_of(address), 2)
    end
    if not py.is_address(address) then
        return nil, "bad address"
    end
    sock[BIND], sock[BIND_PORT] = address, tonumber(port)
    return true
end

-- ------------------------------------------------------------------ pools

function methods.setkeepalive(...)
    local n = select("#", ...)
    expect(n, 1, 3, "expecting 1 to 3 arguments (including the object), but got ")
    local sock, timeout, size = ...
    local u = object(sock)
    if not u or not u.id or u.read_closed or u.write_closed or u.eof then
        return nil, "closed"
    end
    local r = current()
    if u.r ~= r then
        error("bad request", 2)
    end
    local err = busy(u)
    if err then
        return nil, err
    end
    if u.pos <= #u.buf then
        return nil, "unread data in buffer"
    end
    if rt.exiting then
        finalize(u)
        return 1
    end
    local key = sock[KEY]
    if not key then
        return nil, "key not found"
    end
    local conf = settings(r)
    if size ~= nil then
        size = tonumber(size) or arg_error(3, "number expected, got " .. type(size), 2)
    else
        size = conf.pool_size
    end
    if size <= 0 then
        arg_error(n, 'bad "pool_size" option value: ' .. size, 2)
    end
    if timeout ~= nil then
        timeout = (tonumber(timeout) or arg_error(2, "number expected, got " .. type(timeout), 2)) / 1000
    else
        timeout = conf.keepalive_timeout
    end
    local new
    new, err = py.tcp_rest(u.id, key, floor(size), timeout)
    u.id, u.read_closed, u.write_closed = nil, true, true
    if new == nil then
        return nil, err
    elseif new then
        rt.raw_log(8, 'lua tcp socket keepalive create connection pool for key "' .. key .. '"', r)
    end
    return 1
end

-- ------------------------------------------------------------------ ngx.socket

local tcp_check = checker("ngx.socket")

local socket = {}
ngx.socket = socket

function socket.tcp(...)
    local n = select("#", ...)
    if n ~= 0 then
        error("expecting zero arguments, but got " .. n, 2)
    end
    tcp_check()
    return setmetatable({}, methods)
end

socket.stream = socket.tcp

function socket.connect(...)
    tcp_check()
    local sock = setmetatable({}, methods)
    local ok, err = methods.connect(sock, ...)
    if not ok then
        return nil, err
    end
    return sock
end
