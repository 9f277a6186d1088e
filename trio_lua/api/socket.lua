-- ngx.socket.tcp: cosockets.
--
-- Python owns the sockets, by number; received bytes that nobody has asked for yet lie here, in u.buf from
-- u.pos on, and are searched here. Each method tries first (rt.py.tcp_*, a plain call) and suspends only when
-- the socket would block. A thread that never blocks gives way after a number of such calls.
--
-- The object that Lua code holds is a table with its state u at index 1, made by connect:
--   u.r the request that connected it, u.id Python's number (nil when it is closed), u.reader, u.writer,
--   u.connecting the ids of the light threads that wait for it, u.fill what receives more bytes.

local rt = ...

local S, ngx, py, ops, threads = rt.S, rt.ngx, rt.py, rt.ops, rt.threads
local type, tonumber, tostring, error, select, setmetatable = type, tonumber, tostring, error, select, setmetatable
local find, sub, byte, gsub, lower = string.find, string.sub, string.byte, string.gsub, string.lower
local concat, floor, min, max = table.concat, math.floor, math.min, math.max
local pairs, getinfo = pairs, debug.getinfo
local checker, suspend, raw_log, number_text = rt.checker, rt.suspend, rt.raw_log, rt.number_text

-- Places in the object; those OpenResty uses, which some libraries know.
local STATE, CONNECT_TIMEOUT, KEY, SEND_TIMEOUT, READ_TIMEOUT, BIND, BIND_PORT = 1, 2, 3, 4, 5, 6, 7

-- Operations of a thread that did not block, before others get their turn.
local MAX_IMMEDIATE = 64
-- Bytes taken from the kernel at once when much is wanted.
local LARGE = 65536
-- A line, or data in front of a pattern, that is longer is refused: it would fill the memory.
local MAX_SEARCH = 64 * 1024 * 1024

-- What the lua_socket_* directives say; for code that runs in no location, those of the http block.
local function settings(r)
    return r.loc.socket or rt.main_location.socket
end
rt.socket_settings = settings

local immediate = 0

local function give_way()
    immediate = immediate + 1
    if immediate > MAX_IMMEDIATE then
        immediate = 0
        rt.sleep(0)
    end
end
rt.give_way = give_way

-- A thread is about to wait, and so the others get their turn.
local function suspended()
    immediate = 0
end
rt.suspended = suspended

-- As luaL_argerror: the object of a method call does not count.
local function arg_error(position, message, level)
    local info = getinfo(level, "n")
    local name = info and info.name or "?"
    if info and info.namewhat == "method" then
        position = position - 1
        if position == 0 then
            error("calling '" .. name .. "' on bad self (" .. message .. ")", level + 1)
        end
    end
    error("bad argument #" .. position .. " to '" .. name .. "' (" .. message .. ")", level + 1)
end
rt.arg_error = arg_error

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
rt.socket_object = object

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
rt.socket_busy = busy

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
rt.own_socket = own

-- A timeout in milliseconds, or the directive's, in seconds.
local function seconds(ms, default)
    if ms and ms > 0 then
        return ms / 1000
    end
    return default
end

-- ------------------------------------------------------------------ receiving

-- A function that gets more bytes with the call and the operation of a name: a string, "" at the end; false, error.
local function filler(name)
    return function(u, size)
        give_way()
        local data, err, line, level = py[name](u.id, size)
        if data then
            return data
        elseif not err then
            suspended()
            u.reader = S.th.id
            data, err, line, level = suspend(ops[name], u.id, size, u.read_timeout)
            u.reader = nil
            if data then
                return data
            end
        end
        log_failure(u.r, line, level)
        return false, err
    end
end
rt.socket_filler = filler

local fill = filler("tcp_receive")

-- Receive more behind what lies in the buffer; false, error.
local function more(u, size)
    if u.eof then
        return false, "closed"
    end
    local data, err = u.fill(u, size)
    if not data then
        return false, err
    end
    if data == "" then
        if u.aborts then
            return false, "client aborted"
        end
        u.eof = true
        return false, "closed"
    end
    if u.pos > #u.buf then
        u.buf = data
    else
        u.buf = sub(u.buf, u.pos) .. data
    end
    u.pos = 1
    return true
end

-- An error of the reading side: only a timeout leaves it open.
local function read_failed(u, err, partial)
    if err ~= "timeout" and err ~= "line too long" then
        u.read_closed, u.buf, u.pos = true, "", 1
        if u.write_closed then
            u.finalize(u)
        end
    end
    return nil, err, partial
end

-- All that lies in the buffer.
local function take_all(u)
    local data = u.pos == 1 and u.buf or sub(u.buf, u.pos)
    u.buf, u.pos = "", 1
    return data
end

local function receive_all(u)
    local parts, n = { take_all(u) }, 1
    while true do
        local ok, err = more(u, LARGE)
        if not ok then
            local data = concat(parts, "", 1, n)
            if u.eof then
                return data
            end
            return read_failed(u, err, data)
        end
        n = n + 1
        parts[n] = take_all(u)
    end
end

local function strip(line)
    if find(line, "\r", 1, true) then
        return (gsub(line, "\r", ""))
    end
    return line
end

local function receive_line(u)
    local parts, n, total
    while true do
        local buf, pos = u.buf, u.pos
        local at = find(buf, "\n", pos, true)
        if at then
            local line = sub(buf, pos, at - 1)
            u.pos = at + 1
            if parts then
                parts[n + 1] = line
                line = concat(parts, "", 1, n + 1)
            end
            return strip(line)
        end
        if pos <= #buf then
            if not parts then
                parts, n, total = {}, 0, 0
            end
            n = n + 1
            parts[n] = take_all(u)
            total = total + #parts[n]
        end
        local ok, err
        if total and total > MAX_SEARCH then
            ok, err = false, "line too long"
        else
            ok, err = more(u, u.buffer_size)
        end
        if not ok then
            return read_failed(u, err, parts and strip(concat(parts, "", 1, n)) or "")
        end
    end
end

local function receive_size(u, size)
    local buf, pos = u.buf, u.pos
    local have = #buf - pos + 1
    if have >= size then
        u.pos = pos + size
        return sub(buf, pos, pos + size - 1)
    end
    local parts, n = { take_all(u) }, 1
    while true do
        local ok, err = more(u, max(u.buffer_size, min(size - have, LARGE)))
        if not ok then
            return read_failed(u, err, concat(parts, "", 1, n))
        end
        n = n + 1
        local data = u.buf
        if have + #data >= size then
            parts[n] = sub(data, 1, size - have)
            u.pos = size - have + 1
            return concat(parts, "", 1, n)
        end
        parts[n] = take_all(u)
        have = have + #data
    end
end

local function receive_any(u, size)
    if u.pos > #u.buf then
        local ok, err = more(u, max(u.buffer_size, min(size, LARGE)))
        if not ok then
            return read_failed(u, err, "")
        end
    end
    local buf, pos = u.buf, u.pos
    if #buf - pos + 1 <= size then
        return take_all(u)
    end
    u.pos = pos + size
    return sub(buf, pos, pos + size - 1)
end

-- The state of a socket that is to be read, or nil and what to return instead.
local function to_read(sock, quiet)
    local u = object(sock, 4)
    local r = current()
    if not u or not u.id or u.read_closed then
        if quiet then
            return nil, "closed"
        end
        return closed(r, "receive")
    end
    if u.r ~= r then
        error("bad request", 3)
    end
    if u.connecting then
        return nil, "socket busy connecting"
    elseif u.reader then
        return nil, "socket busy reading"
    end
    return u
end

local methods = {}

function methods.receive(...)
    local n = select("#", ...)
    expect(n, 1, 2, "expecting 1 or 2 arguments (including the object), but got ")
    local sock, pattern = ...
    local u, err = to_read(sock)
    if not u then
        return nil, err
    end
    if n == 1 then
        return receive_line(u)
    end
    local kind = type(pattern)
    local size = (kind == "number" or kind == "string") and tonumber(pattern)
    if size then
        size = floor(size)
        if size < 0 then
            arg_error(2, "bad pattern argument", 2)
        elseif size == 0 then
            return ""
        end
        return receive_size(u, size)
    elseif kind ~= "string" then
        arg_error(2, "bad pattern argument", 2)
    elseif pattern == "*l" then
        return receive_line(u)
    elseif pattern == "*a" then
        return receive_all(u)
    elseif #pattern == 2 and byte(pattern) == 42 then
        arg_error(2, "bad pattern argument", 2)
    end
    arg_error(2, "bad pattern argument: " .. pattern, 2)
end

function methods.receiveany(...)
    expect(select("#", ...), 2, 2, "expecting 2 arguments (including the object), but got ")
    local sock, limit = ...
    local u, err = to_read(sock)
    if not u then
        return nil, err
    end
    local size = (type(limit) == "number" or type(limit) == "string") and tonumber(limit)
    if not size or size < 1 then
        arg_error(2, "bad max argument", 2)
    end
    return receive_any(u, floor(size))
end

-- ------------------------------------------------------------------ receiveuntil

-- How much of the pattern's beginning is the end of text[pos..]: those bytes stay until more have come.
local function pending(text, pos, pattern)
    for k = min(#pattern - 1, #text - pos + 1), 1, -1 do
        if sub(text, -k) == sub(pattern, 1, k) then
            return k
        end
    end
    return 0
end

-- All data in front of the pattern.
local function read_until(u, pattern, inclusive)
    local parts, n, total
    while true do
        local buf, pos = u.buf, u.pos
        local from, to = find(buf, pattern, pos, true)
        if from then
            local data = sub(buf, pos, inclusive and to or from - 1)
            u.pos = to + 1
            if parts then
                parts[n + 1] = data
                return concat(parts, "", 1, n + 1)
            end
            return data
        end
        local keep = pending(buf, pos, pattern)
        local last = #buf - keep
        if last >= pos then
            if not parts then
                parts, n, total = {}, 0, 0
            end
            n = n + 1
            parts[n] = sub(buf, pos, last)
            total = total + last - pos + 1
            u.pos = last + 1
        end
        local ok, err
        if total and total > MAX_SEARCH then
            ok, err = false, "line too long"
        else
            ok, err = more(u, u.buffer_size)
        end
        if not ok then
            return read_failed(u, err, parts and concat(parts, "", 1, n) or "")
        end
    end
end

-- For each state (bytes of the pattern that have matched), the state after a mismatch: the longest
-- beginning of the pattern that is an end of what has matched (Knuth, Morris, Pratt).
local function fallbacks(pattern)
    local back = { [0] = -1 }
    local k = -1
    for i = 1, #pattern do
        while k >= 0 and byte(pattern, k + 1) ~= byte(pattern, i) do
            k = back[k]
        end
        k = k + 1
        back[i] = k
    end
    return back
end

-- About `size` bytes in front of the pattern: data; with true when the pattern came behind it. As in OpenResty bytes
-- that turn out not to be the pattern go out together, so that it may be a few more than `size`.
local function read_some(u, pattern, back, size, inclusive)
    local parts, n, rest = {}, 0, size
    local length, first = #pattern, sub(pattern, 1, 1)
    while true do
        local buf, pos = u.buf, u.pos
        local i, state, start = pos, 0, pos -- next byte, matched so far, first byte not given away
        local full = false
        while i <= #buf do
            local c = byte(buf, i)
            if c == byte(pattern, state + 1) then
                i, state = i + 1, state + 1
                if state == length then
                    n = n + 1
                    parts[n] = sub(buf, start, inclusive and i - 1 or i - 1 - length)
                    u.pos = i
                    return concat(parts, "", 1, n), true
                end
            elseif state == 0 then
                -- on to where the pattern may begin
                local jump = min(find(buf, first, i + 1, true) or #buf + 1, i + rest)
                rest = rest - (jump - i)
                i = jump
                if rest == 0 then
                    full = true
                    break
                end
            else
                local to = back[state]
                while to > 0 and byte(pattern, to + 1) ~= c do
                    to = back[to]
                end
                -- a shorter match goes on with this byte, or none does and the byte is looked at again
                local gone = to > 0 and state - to or state
                state = to > 0 and to or 0
                if rest <= gone then
                    full = true
                    if state > 0 then
                        i, state = i + 1, state + 1
                    end
                    break
                end
                rest = rest - gone
                if state > 0 then
                    i, state = i + 1, state + 1
                end
            end
        end
        local last = i - 1 - state
        if last >= start then
            n = n + 1
            parts[n] = sub(buf, start, last)
        end
        u.pos = last + 1
        if full then
            return concat(parts, "", 1, n), false
        end
        local ok, err = more(u, u.buffer_size)
        if not ok then
            return read_failed(u, err, concat(parts, "", 1, n))
        end
    end
end

function methods.receiveuntil(...)
    local count = select("#", ...)
    expect(count, 2, 3, "expecting 2 or 3 arguments (including the object), but got ")
    local sock, pattern, options = ...
    local inclusive = false
    if count == 3 then
        if type(options) ~= "table" then
            arg_error(3, "table expected, got " .. kind_of(options), 2)
        end
        inclusive = options.inclusive
        if inclusive ~= nil and type(inclusive) ~= "boolean" then
            error('bad "inclusive" option value type: ' .. type(inclusive), 2)
        end
    end
    current()
    object(sock)
    if type(pattern) == "number" then
        pattern = tostring(pattern)
    elseif type(pattern) ~= "string" then
        arg_error(2, "string expected, got " .. kind_of(pattern), 2)
    end
    if pattern == "" then
        return nil, "pattern is empty"
    end
    local back
    local boundary = false -- the pattern has been read, and the reader is to be told so
    return function(...)
        expect(select("#", ...), 0, 1, "expecting 0 or 1 arguments, but seen ")
        local size = ...
        if select("#", ...) == 1 then
            size = tonumber(size) or arg_error(1, "number expected, got " .. kind_of(size), 2)
            size = floor(size)
        end
        local u, err = to_read(sock, true)
        if not u then
            return nil, err
        end
        if boundary then
            boundary = false
            return nil, nil, nil
        end
        if not size or size <= 0 then
            return read_until(u, pattern, inclusive)
        end
        back = back or fallbacks(pattern)
        local data, over, partial = read_some(u, pattern, back, size, inclusive)
        if not data then
            return nil, over, partial
        end
        boundary = over
        return data
    end
end

-- ------------------------------------------------------------------ sending

-- The texts of a nested array, one after the other.
local flatten
flatten = function(parts, n, t, level)
    local last = 0
    for key in pairs(t) do
        if type(key) ~= "number" or key < 1 or key ~= floor(key) then
            arg_error(2, "non-array table found", level)
        elseif key > last then
            last = key
        end
    end
    for i = 1, last do
        local value = t[i]
        local kind = type(value)
        if kind == "string" then
            n = n + 1
            parts[n] = value
        elseif kind == "number" then
            n = n + 1
            parts[n] = number_text(value)
        elseif kind == "table" then
            n = flatten(parts, n, value, level + 1)
        else
            arg_error(2, "bad data type " .. kind .. " found", level)
        end
    end
    return n
end

-- What is sent for a value.
local function text_of(value)
    local kind = type(value)
    if kind == "string" then
        return value
    elseif kind == "number" then
        return number_text(value)
    elseif value == nil then
        return "nil"
    elseif kind == "boolean" then
        return value and "true" or "false"
    elseif kind == "table" then
        local parts = {}
        return concat(parts, "", 1, flatten(parts, 0, value, 4))
    end
    arg_error(2, "string, number, boolean, nil, or array table expected, got " .. kind, 3)
end
rt.socket_text = text_of

local function write_failed(u, err, line, level)
    log_failure(u.r, line, level)
    u.write_closed = true
    if u.read_closed then
        u.finalize(u)
    end
    return nil, err
end

function methods.send(...)
    expect(select("#", ...), 2, 2, "expecting 2 arguments (including the object), but got ")
    local sock, data = ...
    local u = object(sock)
    local r = current()
    if not u or not u.id or u.write_closed then
        return closed(r, "send")
    end
    if u.r ~= r then
        error("bad request", 2)
    end
    if u.connecting then
        return nil, "socket busy connecting"
    elseif u.writer then
        return nil, "socket busy writing"
    end
    if type(data) ~= "string" then
        data = text_of(data)
    end
    if data == "" then
        return 0
    end
    give_way()
    local done, err, line, level = py[u.py_send](u.id, data)
    if done then
        return #data
    elseif not err then
        suspended()
        u.writer = S.th.id
        done, err, line, level = suspend(ops[u.py_send], u.id, u.send_timeout)
        u.writer = nil
        if done then
            return #data
        end
    end
    return write_failed(u, err, line, level)
end

-- ------------------------------------------------------------------ connecting

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
        u.connecting = S.th.id
        id, reused, line, level = suspend(ops.tcp_connect, id, u.connect_timeout, conf.resolver,
            conf.resolver_timeout)
        u.connecting = nil
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
    if type(address) ~= "string" then
        arg_error(2, "string expected, got " .. kind_of(address), 2)
    end
    if not py.is_address(address) then
        return nil, "bad address"
    end
    sock[BIND], sock[BIND_PORT] = address, tonumber(port)
    return true
end

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
    end
    return py.tcp_set(u.id, option, tonumber(value) or 0)
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
    local ok
    ok, err = py.tcp_rest(u.id, key, floor(size), timeout)
    u.id, u.read_closed, u.write_closed = nil, true, true
    if not ok then
        return nil, err
    end
    return 1
end

-- ------------------------------------------------------------------ ngx.socket

methods.__index = methods
rt.tcp_methods = methods

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
