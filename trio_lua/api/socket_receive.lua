-- Cosockets: receiving. Bytes that nobody has asked for yet lie in u.buf from u.pos on, and are searched here.

local rt = ...

local S, py, ops = rt.S, rt.py, rt.ops
local type, tonumber, tostring, error, select = type, tonumber, tostring, error, select
local find, sub, byte, gsub = string.find, string.sub, string.byte, string.gsub
local concat, floor, min, max = table.concat, math.floor, math.min, math.max
local suspend, methods = rt.suspend, rt.tcp_methods
local shared = rt.socket
local give_way, suspended, arg_error, kind_of = shared.give_way, shared.suspended, shared.arg_error, shared.kind_of
local object, expect, current = shared.object, shared.expect, shared.current
local log_failure, closed = shared.log_failure, shared.closed

-- Bytes taken from the kernel at once when much is wanted.
local LARGE = 65536
-- A line, or data in front of a pattern, that is longer is refused: it would fill the memory.
local MAX_SEARCH = 64 * 1024 * 1024

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
shared.filler = filler

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
