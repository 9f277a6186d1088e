-- Cosockets: sending.

local rt = ...

local S, py, ops = rt.S, rt.py, rt.ops
local type, error, select, pairs = type, error, select, pairs
local concat, floor = table.concat, math.floor
local suspend, number_text, methods = rt.suspend, rt.number_text, rt.tcp_methods
local shared = rt.socket
local give_way, suspended, arg_error = shared.give_way, shared.suspended, shared.arg_error
local object, expect, current = shared.object, shared.expect, shared.current
local log_failure, closed = shared.log_failure, shared.closed

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
shared.text = text_of

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
