-- Subrequests: ngx.location.capture and capture_multi, the extension ngx.location.stream, and the request tables of all of them.
--
-- A subrequest is a request table like any other whose `main` and `parent` are requests. Its line, headers and
-- body come from here, its response goes to a sink that Python registers under the number r.cid
-- (trio_lua.request.sink), and the engine runs it like a request.

local rt = ...

local S, ngx, requests = rt.S, rt.ngx, rt.requests
local type, tostring, error, select, pairs, setmetatable = type, tostring, error, select, pairs, setmetatable
local format, lower = string.format, string.lower
local checker, suspend = rt.checker, rt.suspend
local headers_in = rt.headers_in

-- How deep subrequests may be nested, as in nginx.
local MAX_DEPTH = 51

-- ------------------------------------------------------------------- making one

-- The parent's header lines, with the Content-Length of another body (false for none, nil for the parent's).
local function inherited_headers(parent, length)
    local from = headers_in(parent)
    local h, n = {}, 0
    if length then
        h[1], h[2], n = "Content-Length", format("%d", length), 2
    end
    for i = 1, from.n, 2 do
        if length == nil or lower(from[i]) ~= "content-length" then
            h[n + 1], h[n + 2] = from[i], from[i + 1]
            n = n + 2
        end
    end
    h.n = n
    return h
end

-- A subrequest of `parent`, not yet known to Python.
--   body: a string; else the parent's is inherited if `forward`
--   vars: "new", "copy" or "share"
local function open(parent, uri, args, method, body, forward, vars)
    local id = rt.new_id()
    local r = {
        id = id, cid = -id, phase = 0, method = method, unparsed_uri = parent.unparsed_uri, uri = uri, args = args,
        host = parent.host, minor = parent.minor, keepalive = parent.keepalive, raw = parent.raw,
        head_len = parent.head_len, clen = 0, start = rt.now(), status = 0, header_sent = false, internal = true,
        loc = parent.loc, main = parent.main or parent, parent = parent, depth = (parent.depth or 0) + 1,
        body_read = true,
    }
    if body then
        r.hin = inherited_headers(parent, #body)
        r.clen = #body
        r.body = body ~= "" and body or nil
    else
        local length = rt.header_in(parent, "content-length")
        local chunked = not length and parent.clen < 0
        if chunked and parent.body then
            length = #parent.body
        end
        length = tonumber(length) or 0
        if length > 0 and not forward then
            r.hin = inherited_headers(parent, false)
        else
            r.hin = inherited_headers(parent, chunked and parent.body and length or nil)
            r.clen = length
            r.body, r.body_file, r.body_file_kept = parent.body, parent.body_file, true
        end
    end
    if vars == "share" then
        parent.vars = parent.vars or {}
        r.vars = parent.vars
    elseif vars == "copy" and parent.vars then
        local copy = {}
        for name, value in pairs(parent.vars) do
            copy[name] = value
        end
        r.vars = copy
    end
    return r
end

local function release_unfinished(parent)
    for id in pairs(parent.unfinished) do
        rt.export.release(id)
    end
end

-- Let Python know a request. It may end without having run: its thread can be killed before the operation begins.
local function register(parent, r)
    -- what log lines say is done (" while sending to client") was another request's
    (parent.main or parent).doing = nil
    local unfinished = parent.unfinished
    if not unfinished then
        unfinished = {}
        parent.unfinished = unfinished
        rt.at_release(parent, release_unfinished)
    end
    unfinished[r.id] = true
    requests[r.id] = r
end

-- Whether the parent may have one more level below it; logs when not.
local function deep_enough(parent, uri)
    if (parent.depth or 0) < MAX_DEPTH then
        return true
    end
    rt.raw_log(4, 'lua subrequests cycle while processing "' .. uri .. '"', parent)
    return false
end

-- For Python: the number of a new subrequest, or nil when subrequests are nested too deeply.
function rt.export.open_subrequest(parent_id, uri, args, method, body, forward, vars)
    local parent = requests[parent_id]
    if not deep_enough(parent, uri) then
        return nil
    end
    local r = open(parent, uri, args, method, body, forward, vars)
    requests[r.id] = r
    return r.id
end

-- Make a subrequest whose response becomes part of r's at this place: r's head and what it has printed go first, what
-- it prints from now on comes after. Arguments as for `open`. Returns a number for rt.run_subrequests; nil and an
-- error when subrequests are nested too deeply or the client is gone.
function rt.open_subrequest(r, uri, args, method, body, forward, vars)
    if not deep_enough(r, uri) then
        return nil, "subrequests cycle"
    end
    if not rt.send_header(r) then
        return nil, "nginx output filter error"
    end
    rt.push(r)
    if r.broken then
        return nil, "nginx output filter error"
    end
    local sub = open(r, uri, args, method or "GET", body, forward, vars or "share")
    requests[sub.id] = sub
    suspend(rt.ops.place_subrequest, sub.id)
    return sub.id
end

-- Run what rt.open_subrequest has made, several at the same time, until all have ended. Each must be run.
function rt.run_subrequests(...)
    return suspend(rt.ops.run_subrequests, ...)
end

-- Start what rt.open_subrequest has made, beside what follows; rt.wait_subrequests must come before the
-- handler's end.
function rt.start_subrequests(...)
    return suspend(rt.ops.start_subrequests, ...)
end

function rt.wait_subrequests(...)
    return suspend(rt.ops.wait_subrequests, ...)
end

-- A piece of a subrequest's body in the form it has in the response of its parent.
function rt.export.frame_piece(id, data)
    local r = requests[id]
    if r.header_only or r.broken then
        return ""
    end
    r.body_bytes = (r.body_bytes or 0) + #data
    if r.chunked then
        return format("%x\r\n", #data) .. data .. "\r\n"
    end
    return data
end

-- The end of a captured subrequest that has no response but a status: nginx makes no page for it, and error_page
-- does not apply. Returns what its handler had produced.
function rt.export.fail_subrequest(id, code)
    local r = requests[id]
    S.r, S.th, S.now = r, nil, nil
    if r.status == 0 or (r.headers_started and not r.header_sent) then
        r.status = code > 0 and code or 500
    end
    local status = r.status
    if not r.header_sent then
        r.cl = nil
        rt.default_type(r)
        r.conditional_done = true
        rt.send_header(r)
        r.pending_special = nil
    end
    r.status, r.header_sent = status, true
    S.r = nil
    local out = r.out
    return out and #out > 0 and out:get() or ""
end

-- --------------------------------------------------------------------- options

local BODY_METHODS = { [8] = true, [16] = true } -- POST, PUT

local function args_option(value)
    local kind = type(value)
    if value == nil then
        return nil
    elseif kind == "table" then
        local text, err = rt.encode_args(value)
        if not text then
            error(err, 0)
        end
        return text
    elseif kind == "string" or kind == "number" then
        return tostring(value)
    end
    error("Bad args option value", 0)
end

local function check_vars(vars)
    if vars == nil then
        return nil
    end
    if type(vars) ~= "table" then
        error("Bad vars option value", 0)
    end
    for key, value in pairs(vars) do
        if type(key) ~= "string" then
            error('attempt to use a non-string key in the "vars" option table', 0)
        end
        if type(value) ~= "string" and type(value) ~= "number" then
            error("attempt to use bad variable value type " .. type(value), 0)
        end
    end
    return vars
end

local function boolean_option(opts, name)
    local value = opts[name]
    if value ~= nil and type(value) ~= "boolean" then
        error("Bad " .. name .. " option value", 0)
    end
    return value
end

-- Assign opts.vars, as nginx does for changeable variables.
local function assign(r, vars)
    for key, value in pairs(vars) do
        local name = lower(key)
        local setter = rt.variable_setters[name]
        if rt.declared[name] then
            r.vars = r.vars or {}
            r.vars[name] = tostring(value)
        elseif setter then
            setter(r, tostring(value))
        elseif rt.variable_known(name) then
            rt.raw_log(4, 'variable "' .. key .. '" not changeable', r.parent)
            error("failed to adjust the subrequest: 500", 0)
        else
            rt.raw_log(4, 'variable "' .. key
                .. '" cannot be assigned a value (maybe you forgot to define it first?) ', r.parent)
            error("failed to adjust the subrequest: -1", 0)
        end
    end
end

local NO_OPTIONS = {}

-- The subrequest that the arguments of ngx.location.capture describe.
local function prepare(parent, uri, opts)
    opts = opts or NO_OPTIONS
    local extra = args_option(opts.args)
    local vars = check_vars(opts.vars)
    local share = boolean_option(opts, "share_all_vars")
    local copy = boolean_option(opts, "copy_all_vars")
    local method = opts.method
    if method == nil then
        method = 2
    elseif type(method) ~= "number" then
        error("Bad http request method", 0)
    end
    local ctx = opts.ctx
    if ctx ~= nil and type(ctx) ~= "table" then
        error("Bad ctx option value type " .. type(ctx) .. ", expected a Lua table", 0)
    end
    local body = opts.body
    if body ~= nil then
        if type(body) ~= "string" and type(body) ~= "number" then
            error("Bad http request body", 0)
        end
        body = tostring(body)
    end
    if type(uri) == "number" then
        uri = tostring(uri)
    elseif type(uri) ~= "string" then
        error("bad argument #1 to 'capture' (string expected, got " .. (uri == nil and "nil" or type(uri)) .. ")", 0)
    end
    local path, args = rt.py.parse_unsafe_uri(uri)
    if not path then
        error("unsafe uri in argument #1: " .. uri, 0)
    end
    if not args or args == "" then
        args = extra
    elseif extra and extra ~= "" then
        args = args .. "&" .. extra
    end
    if not deep_enough(parent, path) then
        error("failed to issue subrequest: -1", 0)
    end
    local name = rt.method_names[method]
    if not name then
        rt.raw_log(4, "unsupported HTTP method: " .. method, parent)
        error("failed to adjust the subrequest: -1", 0)
    end
    local r = open(parent, path, args, name, body, opts.always_forward_body or BODY_METHODS[method],
        share and "share" or copy and "copy" or "new")
    r.captured = true
    r.ctx = ctx
    if vars then
        assign(r, vars)
    end
    return r
end

-- ---------------------------------------------------------------------- results

-- Response headers by name as they were written; repeated ones are lists.
local function header_table(r)
    local out = {}
    local h = r.hout
    if h then
        for i = 1, #h, 2 do
            local key, value = h[i], h[i + 1]
            local old = out[key]
            if old == nil then
                out[key] = value
            elseif type(old) == "table" then
                old[#old + 1] = value
            else
                out[key] = { old, value }
            end
        end
    end
    if r.ct and r.ct ~= "" then
        out["Content-Type"] = r.ct
    end
    if r.cl then
        out[r.cl_name or "Content-Length"] = format("%d", r.cl)
    end
    return out
end

-- Whether the end of the body has not been seen; a response to HEAD has none.
local function truncated(r)
    return not r.complete or r.endless or r.method == "HEAD"
end

local function result(r, body)
    return {
        status = r.status, header = header_table(r), body = body,
        truncated = truncated(r),
    }
end

-- results for list[i..n] from the bodies that the operation gave
local function results(list, n, i, body, ...)
    local r = result(list[i], body)
    if i == n then
        return r
    end
    return r, results(list, n, i + 1, ...)
end

-- While one runs, its parent must not end (ngx.exit and its like ask r.subrequests).
local function run_all(parent, list, n, ids)
    local th = S.th
    for i = 1, n do
        register(parent, list[i])
    end
    parent.subrequests = (parent.subrequests or 0) + 1
    th.subrequests = true
    return parent, th, suspend(rt.ops.capture, unpack(ids, 1, n))
end

local function finish(list, n, parent, th, ...)
    parent.subrequests = parent.subrequests - 1
    for i = 1, n do
        parent.unfinished[list[i].id] = nil
    end
    if parent.subrequests == 0 then
        parent.subrequests = nil
    end
    th.subrequests = nil
    return results(list, n, 1, ...)
end

local function run(parent, list, n)
    local ids = {}
    for i = 1, n do
        ids[i] = list[i].id
    end
    return finish(list, n, run_all(parent, list, n, ids))
end

ngx.location = {}

local capture_check = checker("ngx.location.capture")

-- Errors name the caller's line, as those of a C function do.
local function checked(ok, ...)
    if not ok then
        error((...), 3)
    end
    return ...
end

function ngx.location.capture(...)
    local n = select("#", ...)
    if n ~= 1 and n ~= 2 then
        error("expecting one or two arguments", 2)
    end
    local uri, opts = ...
    local parent = capture_check()
    if n == 2 and opts ~= nil and type(opts) ~= "table" then
        error("expecting table as the 2nd argument for subrequest 0, but got " .. type(opts), 2)
    end
    local r = checked(pcall(prepare, parent, uri, opts))
    return run(parent, { r }, 1)
end

local multi_check = checker("ngx.location.capture_multi")

local function prepare_all(parent, queries)
    local list, n = {}, #queries
    for i = 1, n do
        local query = queries[i]
        if query == nil then
            error("only array-like tables are allowed", 0)
        elseif type(query) ~= "table" then
            error("the query argument " .. i - 1 .. " is not a table, but a " .. type(query), 0)
        end
        local size = #query
        if size ~= 1 and size ~= 2 then
            error("query argument " .. i - 1 .. " expecting one or two arguments", 0)
        end
        if size == 2 and type(query[2]) ~= "table" then
            error("expecting table as the 2nd argument for subrequest " .. i - 1 .. ", but got " .. type(query[2]), 0)
        end
        list[i] = prepare(parent, query[1], query[2])
    end
    return list, n
end

function ngx.location.capture_multi(...)
    local n = select("#", ...)
    if n ~= 1 then
        error("only one argument is expected, but got " .. n, 2)
    end
    local queries = ...
    if type(queries) ~= "table" then
        rt.type_error(1, "capture_multi", "table", queries == nil and "nil" or type(queries))
    end
    if #queries == 0 then
        error("at least one subrequest should be specified", 2)
    end
    local parent = multi_check()
    local list, count = checked(pcall(prepare_all, parent, queries))
    return run(parent, list, count)
end

-- ---------------------------------------------------------------------- streams

local stream_methods = {}
local STREAM = { __index = stream_methods }

-- The next piece of the body; nil at its end, when res.truncated is known.
function stream_methods:read()
    local r = self._request
    if not r then
        return nil
    end
    local data = suspend(rt.ops.stream_read, r.id)
    if data == "" then
        self._request = nil
        self.truncated = truncated(r)
        return nil
    end
    return data
end

-- for piece in res:pieces() do ... end
function stream_methods:pieces()
    return stream_methods.read, self
end

-- End the subrequest now.
function stream_methods:close()
    local r = self._request
    if r then
        self._request = nil
        self.truncated = true
        rt.py.stream_close(r.id)
    end
end

-- An extension: as capture, but returns when the subrequest has its head, and the body is read in pieces while
-- the subrequest goes on. It waits when about a megabyte is unread, and ends at the latest with the handler
-- that began it.
function rt.capture_stream(uri, opts)
    local parent = capture_check()
    if opts ~= nil and type(opts) ~= "table" then
        rt.type_error(2, "capture", "table", type(opts))
    end
    local r = checked(pcall(prepare, parent, uri, opts))
    register(parent, r)
    suspend(rt.ops.stream_open, r.id)
    return setmetatable({ status = r.status, header = header_table(r), _request = r }, STREAM)
end
