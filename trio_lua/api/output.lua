-- Output: ngx.say, print, flush, eof, send_headers, and the filters every response passes.
--
-- Bytes collect in r.out and leave for the connection when postpone_output is reached, at a flush or
-- at the end. Header filters run once, when the head is frozen: conditional requests,
-- header_filter_by_lua, add_header. Each piece of the body passes body_filter_by_lua and then the framing.

local rt = ...

local S, ngx, py, requests = rt.S, rt.ngx, rt.py, rt.requests
local type, tostring, select, error, pairs, floor = type, tostring, select, error, pairs, math.floor
local format, concat, find, lower = string.format, table.concat, string.find, string.lower
local checker, closure, suspend = rt.checker, rt.closure, rt.suspend
local run_filter = rt.run_filter or rt.run_sync
local response_head = rt.response_head
local buffer = require "string.buffer"

local HEADER_FILTER, BODY_FILTER = 0x20, 0x40
local HIGH_WATER = 1024 * 1024

local free, n_free = {}, 0

local function out_buffer(r)
    local out = r.out
    if not out then
        if n_free > 0 then
            out = free[n_free]
            n_free = n_free - 1
        else
            out = buffer.new(512)
        end
        r.out = out
    end
    return out
end

local function free_buffer(r)
    local out = r.out
    if out then
        r.out = nil
        if n_free < 256 then
            out:reset()
            n_free = n_free + 1
            free[n_free] = out
        end
    end
end

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

-- --------------------------------------------------------------- header filters

-- The filters of a location behind header_filter_by_lua (trio_lua.phases.filters), by name: functions of the
-- request and its status. One that changes the body leaves a function (request, data, last) in r.coder, which
-- returns other bytes, or nil when the response has to be broken off.
rt.header_filters = {}

-- Statuses of responses that headers of the configuration belong to even without "always".
local SAFE = {
    [200] = true, [201] = true, [204] = true, [206] = true, [301] = true, [302] = true, [303] = true, [304] = true,
    [307] = true, [308] = true,
}
rt.safe_statuses = SAFE

function rt.header_filters.add_headers(r, status)
    local list = r.loc.add_headers
    local plain = SAFE[status]
    for i = 1, #list do
        local h = list[i]
        if plain or h.always then
            local value = rt.eval(r, h.value)
            if value ~= "" then
                local name = lower(h.name)
                if name == "last-modified" then
                    rt.set_response_header(r, h.name, value, true)
                else
                    rt.append_header(r, h.name, value)
                end
            end
        end
    end
end

-- If-Modified-Since and friends for whatever set Last-Modified or ETag.
local function not_modified(r)
    local mode = r.loc.if_modified_since
    if r.conditional_done or r.status ~= 200 or (r.main and true) then
        return
    end
    local header_in = rt.header_in
    local lm = r.last_modified
    if not lm and not rt.find_header(r, "etag") then
        return
    end
    local since = header_in(r, "if-unmodified-since")
    if since and lm then
        local t = ngx.parse_http_time(since)
        if not t or t < lm then
            r.status = 412
            return 412
        end
    end
    local match = header_in(r, "if-match")
    local etag = rt.get_response_header(r, "etag")
    local function matches(list, weak)
        if list == "*" then
            return true
        end
        if not etag then
            return false
        end
        local tag = etag
        if weak then
            tag = tag:gsub("^W/", "")
        end
        for item in list:gmatch("[^,%s]+") do
            if weak then
                item = item:gsub("^W/", "")
            end
            if item == tag then
                return true
            end
        end
        return false
    end
    if match and not matches(match, false) then
        r.status = 412
        return 412
    end
    local none = header_in(r, "if-none-match")
    local modified = header_in(r, "if-modified-since")
    if not none and not modified then
        return
    end
    if modified then
        if mode == "off" or not lm then
            return
        end
        local t = ngx.parse_http_time(modified)
        if t ~= lm and (mode == "exact" or not t or t < lm) then
            return
        end
    end
    if none and not matches(none, true) then
        return
    end
    r.status = 304
    r.ct, r.cl = nil, nil
    rt.remove_header(r, "content-encoding")
    rt.remove_header(r, "accept-ranges")
end

-- The filters of modules, and header_filter_by_lua (handler 0: there is none). true, or false and an error.
local function run_header_filters(r, loc, handler)
    local filters = loc.header_filters
    if filters then
        for i = 1, #filters, 2 do
            local ok, err = run_filter(r, HEADER_FILTER, filters[i], r, filters[i + 1])
            if not ok then
                return false, "failed to run the header filter of a module: " .. err
            end
        end
    end
    if handler == 0 then
        return true
    end
    local fn, err = closure(r, handler, loc.header_filter_path and rt.eval(r, loc.header_filter_path))
    if not fn then
        return false, err
    end
    local ok
    ok, err = run_filter(r, HEADER_FILTER, fn)
    if not ok then
        return false, "failed to run header_filter_by_lua*: " .. err
    end
    return true
end

-- Freeze status and headers. Returns false when the connection must be closed instead.
local function send_header(r)
    if r.header_sent then
        return true
    end
    local loc = r.loc
    r.header_sent = true
    if r.status == 0 then
        r.status = 200
    end
    if r.err_status then
        r.status = r.err_status
        r.err_status = nil
    end
    if (r.last_modified or r.hout) and loc.if_modified_since then
        if not_modified(r) == 412 and not r.special then
            r.pending_special = 412
            return false
        end
    end
    local handler = loc.header_filter
    if handler then
        r.header_sent = false
        if r.filtering then
            rt.wait_for_filter(r)
            return send_header(r)
        end
        local ok, err = run_header_filters(r, loc, handler)
        r.header_sent = true
        if not ok then
            rt.raw_log(4, err, r)
            r.broken, r.keepalive = true, false
            py.abort(r.cid)
            return false
        end
        local code = r.filter_exit
        if code then
            r.filter_exit = nil
            if code < 0 then
                r.broken, r.keepalive = true, false
                py.abort(r.cid)
                return false
            elseif code >= 300 and code ~= 444 then
                if code ~= r.filter_exited then
                    r.filter_exited = code
                    r.pending_special = code
                    return false
                end
                -- the page that this exit asked for
            elseif code >= 200 then
                r.status = code
                r.body_dropped = true
                r.ct, r.cl, r.hout, r.early = nil, 0, nil, nil
            end
        end
    end
    if r.main then
        -- no head on the wire: it stays here, for who made the subrequest
        out_buffer(r)
        r.header_only = r.captured and r.method == "HEAD"
        return true
    end
    local status = r.status
    local filters = loc.filters
    if filters then
        for i = 1, #filters do
            filters[i](r, status)
        end
    end
    local head = r.method == "HEAD"
    if status < 200 then
        -- what follows is no HTTP any more
        r.keepalive = false
    elseif status == 204 or status == 304 then
        r.header_only = true
        if status == 204 then
            r.ct, r.cl = nil, nil
        end
        if status == 304 then
            r.ct = nil
        end
    elseif head then
        r.header_only = true
    elseif not r.cl then
        if r.minor == 1 and loc.chunked ~= false then
            r.chunked = true
        else
            r.keepalive = false
        end
    end
    if r.minor < 0 then
        r.chunked = false
        return true
    end
    out_buffer(r):put(response_head(r, status))
    r.bytes_head = #r.out
    return true
end
rt.send_header = send_header

-- ----------------------------------------------------------------- body filters

-- ngx.arg of body_filter_by_lua, while it runs
rt.filter_arg = { "", false }

local function run_body_filter(r, data, last)
    local loc = r.loc
    local arg = rt.filter_arg
    local fn, err = closure(r, loc.body_filter, loc.body_filter_path and rt.eval(r, loc.body_filter_path))
    local ok, result
    if fn then
        local old1, old2 = arg[1], arg[2]
        arg[1], arg[2] = data, last
        ok, result = run_filter(r, BODY_FILTER, fn)
        data, last = arg[1], arg[2]
        arg[1], arg[2] = old1, old2
        err = result
    end
    if not ok or result == -1 then
        if not ok then
            rt.raw_log(4, (fn and "failed to run body_filter_by_lua*: " or "") .. err, r)
        end
        r.broken, r.keepalive = true, false
        py.abort(r.cid)
        return nil
    end
    return data or "", last
end

-- Chunk size lines by size.
local size_lines = {}
for n = 1, 4096 do
    size_lines[n] = format("%x\r\n", n)
end

local function frame(r, data, last)
    local out = out_buffer(r)
    local n = #data
    if n > 0 and not r.header_only then
        if r.chunked then
            local size = size_lines[n] or format("%x\r\n", n)
            out:put(size, data, "\r\n")
            n = n + #size + 2
        else
            out:put(data)
        end
        r.body_bytes = (r.body_bytes or 0) + n
    end
    if last then
        if r.chunked and not r.header_only then
            out:put("0\r\n\r\n")
            r.body_bytes = (r.body_bytes or 0) + 5
        end
        r.complete = true
    end
end

-- Returns what body_filter_by_lua and the filters of modules make of a piece; nil when one of them failed.
local function filter_body(r, data, last)
    local loc = r.loc
    if r.filtering then
        rt.wait_for_filter(r)
        if r.broken or r.complete then
            return nil
        end
    end
    if loc.body_filter ~= 0 and not (r.filter_eof and not last) then
        if r.filter_eof then
            data = ""
        end
        if not r.filter_done then
            local eof
            data, eof = run_body_filter(r, data, last)
            if not data then
                return nil
            end
            if eof and not last then
                r.filter_eof = true
                r.filter_done = true
                last = true
            elseif last and not eof then
                -- the filter keeps the end to itself: the response stays unfinished
                r.filter_done, r.endless, r.keepalive = true, true, false
                last = false
            end
        end
    end
    local filters = loc.body_filters
    if filters and not r.header_only and not (last and r.filtered_last) then
        r.filtered_last = last
        for i = 1, #filters, 2 do
            local ok, result = run_filter(r, BODY_FILTER, filters[i], r, filters[i + 1], data, last)
            if not ok then
                rt.raw_log(4, "failed to run the body filter of a module: " .. result, r)
                r.broken, r.keepalive = true, false
                py.abort(r.cid)
                return nil
            end
            data = result
        end
    end
    return data, last
end

-- Pass a piece of the body on; the head must have been sent.
local function write(r, data, last)
    if r.complete or r.broken then
        return
    end
    if r.loc.body_filter then
        data, last = filter_body(r, data, last)
        if not data then
            return
        end
        if r.endless then
            last = false
        end
    end
    if r.body_dropped then
        data = ""
    end
    local coder = r.coder
    if coder and not r.header_only then
        data = coder(r, data, last)
        if not data then
            r.broken, r.keepalive = true, false
            py.abort(r.cid)
            return
        end
    end
    frame(r, data, last)
end

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
    if r.broken or r.pending_special then
        return nil, "nginx output filter error"
    end
    push(r)
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
