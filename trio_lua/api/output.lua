-- Output: ngx.say, print, flush, eof, send_headers, and the end of a response.
--
-- Bytes collect in r.out, behind the filters (trio_lua/api/filters.lua), and leave for the connection when
-- postpone_output is reached, at a flush or at the end.

local rt = ...

local S, ngx, py, requests = rt.S, rt.ngx, rt.py, rt.requests
local type, tostring, select, error, pairs, pcall, floor = type, tostring, select, error, pairs, pcall, math.floor
local format, concat = string.format, table.concat
local checker, closure, suspend = rt.checker, rt.closure, rt.suspend
local send_header, write, free_buffer = rt.send_header, rt.write_body, rt.free_buffer

local HIGH_WATER = 1024 * 1024

-- Hand what has collected to the connection; returns the number of bytes the peer has not taken.
local function push(r)
    local out = r.out
    if out and #out > 0 then
        local unsent = py.send(r.cid, out:get())
        if unsent < 0 then
            r.broken = true
            return 0
        end
        return unsent
    end
    return py.send(r.cid, "")
end

rt.push = push

-- ------------------------------------------------------------------ ngx.say etc.

local function number_text(n)
    if n == floor(n) and n < 1e14 and n > -1e14 then
        return format("%d", n)
    end
    return tostring(n)
end
rt.number_text = number_text

local flatten

local function piece(parts, n, value, name, position, in_table)
    local kind = type(value)
    if kind == "string" then
        n = n + 1
        parts[n] = value
    elseif kind == "number" then
        n = n + 1
        parts[n] = number_text(value)
    elseif value == nil then
        n = n + 1
        parts[n] = "nil"
    elseif kind == "boolean" then
        n = n + 1
        parts[n] = value and "true" or "false"
    elseif kind == "table" then
        n = flatten(parts, n, value, name, position)
    elseif kind == "userdata" and value == ngx.null then
        n = n + 1
        parts[n] = "null"
    else
        if in_table then
            error("bad argument #" .. position .. " to '" .. name .. "' (bad data type " .. kind .. " found)", 0)
        end
        error("bad argument #" .. position .. " to '" .. name
            .. "' (string, number, boolean, nil, ngx.null, or array table expected, but got " .. kind .. ")", 0)
    end
    return n
end

flatten = function(parts, n, t, name, position)
    local max = 0
    for key in pairs(t) do
        if type(key) == "number" and key > 0 and key == floor(key) then
            if key > max then
                max = key
            end
        else
            error("bad argument #" .. position .. " to '" .. name .. "' (non-array table found)", 0)
        end
    end
    for i = 1, max do
        n = piece(parts, n, t[i], name, position, true)
    end
    return n
end

local function join(name, newline, ...)
    local parts, n = {}, 0
    for i = 1, select("#", ...) do
        n = piece(parts, n, (select(i, ...)), name, i)
    end
    if newline then
        n = n + 1
        parts[n] = "\n"
    end
    return concat(parts, "", 1, n)
end

rt.join_arguments = join

function rt.join_output(value)
    local parts = {}
    return concat(parts, "", 1, flatten(parts, 0, value, "arg", 1))
end

-- HTTP/1.0: the whole output is kept until the end, to give it a Content-Length.
local function buffers_all(r)
    if r.http10 then
        return true
    end
    if r.minor >= 1 or r.cl or r.loc.http10_buffering == false or r.main or r.method == "HEAD" then
        return false
    end
    return true
end

local function default_type(r)
    if not r.ct_set and r.loc.use_default_type ~= false and r.loc.default_type then
        r.ct = r.loc.default_type
    end
end
rt.default_type = default_type

-- The checks and the head that come before any output. Returns an error string or nil.
local function begin_output(r)
    if r.raw_socket then
        return "raw request socket acquired"
    end
    if r.header_only then
        return "header only"
    end
    if r.eof then
        return "seen eof"
    end
    if not r.header_sent then
        if not r.headers_started then
            r.headers_started = true
            if r.status == 0 then
                r.status = 200
            end
            default_type(r)
            if not r.headers_set then
                r.cl = nil
            end
        end
        if buffers_all(r) then
            r.http10 = r.http10 or {}
            return nil
        end
        if not send_header(r) then
            return "nginx output filter error"
        end
        -- a head beyond postpone_output does not wait for what follows
        local out = r.out
        if out and #out >= (r.loc.postpone_output or 1460) then
            push(r)
        end
    end
    if r.broken or r.pending_special then
        return "nginx output filter error"
    end
    return nil
end

local function emit(r, data)
    local err = begin_output(r)
    if err then
        return nil, err
    end
    local http10 = r.http10
    if http10 then
        http10[#http10 + 1] = data
        return 1
    end
    if r.header_only then
        return 1
    end
    if data ~= "" then
        write(r, data, false)
        if r.broken then
            return nil, "nginx output filter error"
        end
        local limit = r.loc.postpone_output or 1460
        if #r.out >= limit then
            local unsent = push(r)
            if r.broken then
                return nil, "nginx output filter error"
            end
            if unsent > HIGH_WATER and S.th then
                suspend(rt.ops.drain, r.cid)
            end
        end
    end
    return 1
end

rt.emit = emit

local say_check, print_check = checker("ngx.say"), checker("ngx.print")

function ngx.say(...)
    local r = say_check()
    local first = ...
    local data
    if select("#", ...) == 1 and type(first) == "string" then
        data = first .. "\n"
    else
        local ok
        ok, data = pcall(join, "say", true, ...)
        if not ok then
            error(data, 2)
        end
    end
    return emit(r, data)
end

function ngx.print(...)
    local r = print_check()
    local first = ...
    local data
    if select("#", ...) == 1 and type(first) == "string" then
        data = first
    else
        local ok
        ok, data = pcall(join, "print", false, ...)
        if not ok then
            error(data, 2)
        end
    end
    return emit(r, data)
end

local send_headers_check = checker("ngx.send_headers")

function ngx.send_headers()
    local r = send_headers_check()
    if not r.header_sent then
        local err = begin_output(r)
        if err then
            return nil, err
        end
        if not r.http10 and #r.out > 0 then
            push(r)
        end
    end
    return 1
end

local flush_check = checker("ngx.flush")

function ngx.flush(wait)
    local r = flush_check()
    if wait ~= nil and type(wait) ~= "boolean" then
        rt.type_error(1, "flush", "boolean", type(wait))
    end
    if r.raw_socket then
        return nil, "raw request socket acquired"
    end
    if r.http10 then
        return nil, "buffering"
    end
    if r.header_only then
        return nil, "header only"
    end
    if r.eof then
        return nil, "seen eof"
    end
    if not r.header_sent then
        return nil, "nothing to flush"
    end
    if r.pending_special then
        return nil, "nginx output filter error"
    end
    if r.loc.body_filter or r.coder then
        r.flushing = true
        write(r, "", false)
        r.flushing = false
    end
    local unsent = push(r)
    if r.broken then
        return nil, "nginx output filter error"
    end
    if wait and unsent > 0 then
        return suspend(rt.ops.flush, r.cid)
    end
    return 1
end

-- End the response: the rest of the head, the last piece. Bytes stay in r.out.
local function finish(r)
    if r.complete or r.broken or r.pending_special then
        return
    end
    local http10 = r.http10
    if http10 then
        r.http10 = nil
        local data = concat(http10)
        if not r.loc.body_filter then
            r.cl = #data
        end
        if not send_header(r) then
            return
        end
        if not r.header_only then
            if r.loc.body_filter then
                write(r, data, false)
                data = ""
            end
            write(r, data, true)
        else
            r.complete = true
        end
        return
    end
    if not r.header_sent then
        if begin_output(r) then
            return
        end
        if r.http10 then
            return finish(r)
        end
    end
    if not r.eof then
        write(r, "", true)
    end
    r.complete = true
end
rt.finish = finish

local eof_check = checker("ngx.eof")

function ngx.eof()
    local r = eof_check()
    if r.raw_socket then
        return nil, "raw request socket acquired"
    end
    if r.eof then
        return nil, "seen eof"
    end
    finish(r)
    r.eof = true
    if not r.broken and not r.pending_special then
        push(r)
    end
    if r.broken or r.pending_special then
        return nil, "nginx output filter error"
    end
    return 1
end

-- -------------------------------------------------------------------- for Python

-- The status of the response that a filter asked for instead of the one that was begun.
local function replacement(r)
    local code = r.pending_special
    r.pending_special, r.header_sent, r.eof = nil, false, false
    return code
end

-- End the response of a content handler. Returns the bytes still to send, whether the connection
-- stays open, and, when a filter asked for another response, its status.
local function conclude(r)
    finish(r)
    if r.pending_special then
        return "", r.keepalive, replacement(r)
    end
    local out = r.out
    local data = out and #out > 0 and out:get() or ""
    free_buffer(r)
    return data, r.keepalive and not r.broken
end

rt.conclude = conclude

-- What filters a response for Python. Where filters may wait these are the functions of threads (waiting.lua).
rt.response = { conclude = conclude }

function rt.export.conclude(id)
    local r = requests[id]
    S.r, S.th, S.now = r, nil, nil
    local data, keepalive, code = conclude(r)
    S.r = nil
    return data, keepalive, code
end

-- A content handler that ends without suspending is concluded in the same crossing:
-- 7, bytes, keep-alive. Anything else is the outcome of rt.export.run.
local CONCLUDED = 7
rt.outcome.CONCLUDED = CONCLUDED
local start_thread = rt.start_thread

local locations = rt.locations

local function after_content(r, outcome, ...)
    if outcome ~= 0 then
        return outcome, ...
    end
    S.r = r
    local data, keepalive, code = conclude(r)
    S.r = nil
    if code then
        return rt.outcome.EXIT, code
    end
    if r.loc.released_early then
        requests[r.id] = nil
        if r.cleanup then
            rt.clean_up(r)
        end
    end
    return CONCLUDED, data, keepalive
end

rt.after_content = after_content

-- location: enter it first (the engine's short way for locations that have nothing but content).
function rt.export.content(id, handler, phase, path, location)
    local r = requests[id]
    if location then
        r.loc, S.now = locations[location], r.start
    else
        S.now = nil
    end
    local fn, err, missing = closure(r, handler, path)
    if not fn then
        return rt.outcome.LOAD_FAILED, err, missing
    end
    r.phase = phase
    return after_content(r, start_thread(r, fn))
end

local function with_request(r, ...)
    S.r = r
    return ...
end

-- Body bytes of a content handler written in Python. Returns bytes for the connection: none when a header filter
-- asked for another response, which follows when the handler ends.
local function send(r, data, last)
    if not r.header_sent then
        send_header(r)
    end
    if not r.pending_special then
        write(r, data, last)
    end
    local out = r.out
    return out and #out > 0 and out:get() or ""
end
rt.response.send = send

function rt.export.send(id, data, last)
    local r = requests[id]
    local old = S.r
    S.r, S.th, S.now = r, nil, nil
    return with_request(old, send(r, data, last))
end

-- A complete short response made by Python (return, error pages): headers are set already. Returns as above, or
-- nil and the status of the other response.
local function respond(r, status, content_type, body)
    r.status = status
    r.ct, r.ct_set = content_type, true
    r.cl = #body
    r.headers_started = true
    r.special = true
    local data = send(r, body, true)
    if r.pending_special then
        return nil, replacement(r)
    end
    return data
end
rt.response.respond = respond

function rt.export.respond(id, ...)
    local r = requests[id]
    local old = S.r
    S.r, S.th, S.now = r, nil, nil
    return with_request(old, respond(r, ...))
end

-- Forget what a failed handler had prepared, as a special response does.
function rt.export.reset_response(id)
    local r = requests[id]
    r.cl, r.ct, r.last_modified, r.http10 = nil, nil, nil, nil
    rt.remove_header(r, "etag")
    rt.remove_header(r, "accept-ranges")
    rt.remove_header(r, "last-modified")
    rt.remove_header(r, "content-encoding")
    r.header_only = false
    r.header_sent = false
end

-- status, whether the head is out, whether anything at all was produced
function rt.export.response_state(id)
    local r = requests[id]
    return r.status, r.header_sent, r.http10 ~= nil, r.complete or false, r.broken or false
end
