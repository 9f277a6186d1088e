-- Cosockets: what their methods have in common, their options and their end.
--
-- Python owns the sockets, by number; received bytes that nobody has asked for yet lie in u.buf from u.pos on. Each
-- method tries first (rt.py.tcp_*, a plain call) and suspends only when the socket would block. A thread that never
-- blocks gives way after a number of such calls. The other methods are in socket_receive.lua, socket_send.lua and
-- socket_connect.lua.
--
-- The object that Lua code holds is a table with its state u at index 1, made by connect:
--   u.r the request that connected it, u.id Python's number (nil when it is closed), u.reader, u.writer,
--   u.connecting the ids of the light threads that wait for it, u.fill what receives more bytes.

local rt = ...

local S, py, threads = rt.S, rt.py, rt.threads
local type, tonumber, tostring, error, select, pairs = type, tonumber, tostring, error, select, pairs
local floor = math.floor
local raw_log, raise_arg_error = rt.raw_log, rt.arg_error

-- Places in the object; those OpenResty uses, which some libraries know.
local STATE, CONNECT_TIMEOUT, SEND_TIMEOUT, READ_TIMEOUT = 1, 2, 4, 5

-- Operations of a thread that did not block, before others get their turn.
local MAX_IMMEDIATE = 64

-- What the lua_socket_* directives say; for code that runs in no location, those of the http block.
local function settings(r)
    return r.loc.socket or rt.main_location.socket
end

local immediate = 0

local function give_way()
    immediate = immediate + 1
    if immediate > MAX_IMMEDIATE then
        immediate = 0
        rt.sleep(0)
    end
end

-- A thread is about to wait, and so the others get their turn.
local function suspended()
    immediate = 0
end

-- As luaL_argerror; level 2 is the function that calls this one.
local function arg_error(position, message, level)
    -- not a tail call, which would leave no frame to be counted
    raise_arg_error(position, message, level)
end

local function kind_of(value)
    return value == nil and "nil" or type(value)
end

-- A thread that was killed while it waited in a socket has closed it.
local function abandoned(u)
    local reader, writer, connecting = u.reader, u.writer, u.connecting
    if (reader and not threads[reader]) or (writer and not threads[writer])
        or (connecting and not threads[connecting]) then
        u.reader, u.writer, u.connecting = nil, nil, nil
        u.finalize(u)
    end
end

-- The state of a socket, nil when it has never been connected.
local function object(sock, level)
    if type(sock) ~= "table" then
        arg_error(1, "table expected, got " .. kind_of(sock), level or 3)
    end
    local u = sock[STATE]
    if u and (u.reader or u.writer or u.connecting) then
        abandoned(u)
    end
    return u
end

local function expect(n, low, high, words)
    if n < low or n > high then
        error(words .. n, 3)
    end
end

local function current()
    return S.r or error("no request found", 3)
end

-- The log line of a failure, as Python words it.
local function log_failure(r, line, level)
    if line and settings(r).log_errors then
        raw_log(level, line, r)
    end
end

local function closed(r, doing)
    if settings(r).log_errors then
        raw_log(4, "attempt to " .. doing .. " data on a closed socket: u:0000000000000000, "
            .. "c:0000000000000000, ft:0 eof:0", r)
    end
    return nil, "closed"
end

-- What a socket is busy with: a thread waits in it.
local function busy(u)
    if u.connecting then
        return "socket busy connecting"
    elseif u.reader then
        return "socket busy reading"
    elseif u.writer then
        return "socket busy writing"
    end
end

local function finalize(u)
    local id = u.id
    u.id, u.buf, u.pos, u.read_closed, u.write_closed = nil, "", 1, true, true
    if id then
        py.tcp_close(id)
    end
end

-- The end of a request: its sockets end with it.
local function release(r)
    local sockets = r.sockets
    for u in pairs(sockets) do
        if u.id then
            if rt.left_open and u.finalize == finalize and not u.read_closed then
                rt.left_open(u, r)
            end
            u.finalize(u)
        end
        u.r = false
        sockets[u] = nil
    end
end

-- A socket of a subrequest stays until the client's request ends, as in nginx.
local function own(r, u)
    r = r.main or r
    local sockets = r.sockets
    if not sockets then
        sockets = {}
        r.sockets = sockets
        rt.at_release(r, release)
    end
    sockets[u] = true
    if rt.note_origin then
        rt.note_origin(u)
    end
end

-- A timeout in milliseconds, or the directive's, in seconds.
local function seconds(ms, default)
    if ms and ms > 0 then
        return ms / 1000
    end
    return default
end

-- What the files of sockets share.
rt.socket = {
    settings = settings, give_way = give_way, suspended = suspended, arg_error = arg_error, kind_of = kind_of,
    object = object, expect = expect, current = current, log_failure = log_failure, closed = closed, busy = busy,
    finalize = finalize, own = own, seconds = seconds,
}

local methods = {}
methods.__index = methods

--- The methods of TCP sockets.
rt.tcp_methods = methods

-- ------------------------------------------------------------------ timeouts and options

local function milliseconds(value)
    local ms = tonumber(value) or 0
    -- a signed 32-bit number in OpenResty
    if ms < 0 or ms >= 2147483648 then
        error("bad timeout value", 3)
    end
    return floor(ms)
end

local function set_timeouts(sock, connect, send, read)
    sock[CONNECT_TIMEOUT], sock[SEND_TIMEOUT], sock[READ_TIMEOUT] = connect, send, read
    local u = sock[STATE]
    if u and u.r then
        local conf = settings(u.r)
        u.connect_timeout = seconds(connect, conf.connect_timeout)
        u.send_timeout = seconds(send, conf.send_timeout)
        u.read_timeout = seconds(read, conf.read_timeout)
    end
end

function methods.settimeout(...)
    if select("#", ...) ~= 2 then
        error("ngx.socket settimeout: expecting 2 arguments (including the object) but seen " .. select("#", ...), 2)
    end
    local sock, ms = ...
    object(sock)
    ms = milliseconds(ms)
    set_timeouts(sock, ms, ms, ms)
end

function methods.settimeouts(...)
    if select("#", ...) ~= 4 then
        error("ngx.socket settimeout: expecting 4 arguments (including the object) but seen " .. select("#", ...), 2)
    end
    local sock, connect, send, read = ...
    object(sock)
    set_timeouts(sock, milliseconds(connect), milliseconds(send), milliseconds(read))
end

local OPTIONS = { keepalive = true, reuseaddr = true, ["tcp-nodelay"] = true, sndbuf = true, rcvbuf = true }

local function to_option(sock, option)
    local u = type(sock) == "table" and sock[STATE]
    if not u then
        error("socket is never created nor connected", 3)
    end
    if option == nil then
        return nil, 'missing the "option" argument'
    elseif not OPTIONS[option] then
        return nil, "unsupported option " .. tostring(option)
    elseif not u.id then
        return nil, "closed"
    end
    return u
end

function methods.setoption(sock, option, value)
    local u, err = to_option(sock, option)
    if not u then
        return nil, err
    end
    if value == nil then
        return nil, 'missing the "value" argument'
    end
    if type(value) == "boolean" then
        value = value and 1 or 0
    elseif type(value) ~= "number" then
        arg_error(3, "number expected, got " .. type(value), 2)
    end
    return py.tcp_set(u.id, option, value)
end

function methods.getoption(sock, option)
    local u, err = to_option(sock, option)
    if not u then
        return nil, err
    end
    return py.tcp_get(u.id, option)
end

-- ------------------------------------------------------------------ the end

function methods.close(...)
    if select("#", ...) ~= 1 then
        error("expecting 1 argument (including the object) but seen " .. select("#", ...), 2)
    end
    local u = object((...))
    local r = current()
    if not u or not u.id or (u.read_closed and u.write_closed) then
        return nil, "closed"
    end
    if u.r ~= r then
        error("bad request", 2)
    end
    local err = busy(u)
    if err then
        return nil, err
    end
    if u.downstream then
        return nil, "attempt to close a request socket"
    end
    finalize(u)
    return 1
end

function methods.getreusedtimes(...)
    expect(select("#", ...), 1, 1, "expecting 1 argument (including the object), but got ")
    local u = object((...))
    local times = u and u.id and not (u.read_closed and u.write_closed) and py.tcp_reused(u.id)
    if not times then
        return nil, "closed"
    end
    return times
end
