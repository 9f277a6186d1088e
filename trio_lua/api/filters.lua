-- What becomes of a response on its way out: the filters of its head and of each piece of its body.
--
-- Header filters run once, when the head is frozen: conditional requests, header_filter_by_lua,
-- add_header and others of the configuration. Each piece of the body passes body_filter_by_lua, the filters of modules, a coder
-- (gzip and the like) and then the framing. The bytes collect in r.out (trio_lua/api/output.lua).

local rt = ...

local ngx, py = rt.ngx, rt.py
local format, lower = string.format, string.lower
local closure = rt.closure
local run_filter = rt.run_filter or rt.run_sync
local response_head = rt.response_head
local buffer = require "string.buffer"
local new_table = require "table.new"

local HEADER_FILTER, BODY_FILTER = 0x20, 0x40

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
rt.free_buffer = free_buffer

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

-- Chunk size lines by size, as far as they were needed.
local MOST_LINES = 4096
local size_lines = new_table(MOST_LINES, 0)

local function size_line(n)
    local line = format("%x\r\n", n)
    if n <= MOST_LINES then
        size_lines[n] = line
    end
    return line
end

local function frame(r, data, last)
    local out = out_buffer(r)
    local n = #data
    if n > 0 and not r.header_only then
        if r.chunked then
            local size = size_lines[n] or size_line(n)
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
rt.write_body = write
