-- The request: created from a parsed head, read and changed by ngx.req.* (line, headers, arguments).
--
-- A request is one Lua table. Headers stay in the raw head until somebody asks for one.

local rt = ...

local S, ngx, requests = rt.S, rt.ngx, rt.requests
local type, tostring, tonumber, error, select = type, tostring, tonumber, error, select
local setmetatable, rawget = setmetatable, rawget
local lower, upper, find, sub, gsub, byte, match, format =
    string.lower, string.upper, string.find, string.sub, string.gsub, string.byte, string.match, string.format
local concat, remove = table.concat, table.remove
local band = require("bit").band
local request = rt.request
local checker = rt.checker

ngx.req = {}
local req = ngx.req

local last_id = 0
local NO_LOCATION = {}

local function new_request(cid, method, target, uri, args, host, minor, keepalive, raw, head_len, clen, now)
    local id = last_id + 1
    last_id = id
    local r = {
        id = id, cid = cid, phase = 0, method = method, unparsed_uri = target, uri = uri, args = args,
        host = host, minor = minor, keepalive = keepalive, raw = raw, head_len = head_len, clen = clen,
        start = now, status = 0, header_sent = false, internal = false, loc = NO_LOCATION, main = false,
    }
    requests[id] = r
    return id, r
end
rt.new_request = new_request

-- The number of a request that is not a client's (a subrequest).
function rt.new_id()
    last_id = last_id + 1
    return last_id
end

-- A head that h11 read.
function rt.export.begin(cid, method, target, uri, args, host, minor, keepalive, raw, clen, now)
    return (new_request(cid, method, target, uri, args, host, minor, keepalive, raw, #raw, clen, now))
end

function rt.export.target(id)
    return requests[id].unparsed_uri
end

function rt.export.set_target(id, uri, args, host)
    local r = requests[id]
    r.uri, r.args = uri, args
    if host then
        r.host = host
    end
end

-- A location's constants, by the engine's number for it.
local locations = {}
rt.locations = locations

function rt.export.define_location(number, loc)
    local filters = loc.filters
    if filters then
        for i = 1, #filters do
            filters[i] = rt.header_filters[filters[i]]
        end
    end
    loc.number = number
    locations[number] = loc
end

-- The request that runs now: its number, host and location.
function rt.export.current()
    local r = S.r
    return r.id, r.host, r.loc.number
end

function rt.export.enter(id, number)
    requests[id].loc = locations[number]
end

-- An internal redirect: location search begins again, ctx is gone.
function rt.export.restart(id)
    local r = requests[id]
    r.internal, r.ctx, r.captures_kept, r.http10 = true, nil, nil, nil
end

-- Call f(r) when request r has ended.
function rt.at_release(r, f)
    local cleanup = r.cleanup
    if cleanup then
        cleanup[#cleanup + 1] = f
    else
        r.cleanup = { f }
    end
end

local function clean_up(r)
    local cleanup = r.cleanup
    r.cleanup = nil
    for i = 1, #cleanup do
        cleanup[i](r)
    end
end
rt.clean_up = clean_up

function rt.export.release(id)
    local r = requests[id]
    if r then
        requests[id] = nil
        r.released = true
        if r.cleanup then
            clean_up(r)
        end
    end
end

function rt.export.get(id, field)
    return requests[id][field]
end

function rt.export.put(id, field, value)
    requests[id][field] = value
end

-- --------------------------------------------------------------- request headers

local parse_headers = rt.parse_headers

-- Flat array {name, value, ...}; with n as its length.
local function headers_in(r)
    local h = r.hin
    if h then
        return h
    end
    local srv = r.loc.server or NO_LOCATION
    local n
    n, h = parse_headers(r.raw, r.head_len, srv.underscores_in_headers, srv.ignore_invalid_headers == false)
    h.n = n * 2
    r.hin = h
    return h
end
rt.headers_in = headers_in

-- lower-case name -> first value; made on demand, dropped when a header changes
local function index_of(r)
    local index = r.hin_index
    if index then
        return index
    end
    local h = headers_in(r)
    index = {}
    for i = h.n - 1, 1, -2 do
        index[lower(h[i])] = h[i + 1]
    end
    r.hin_index = index
    return index
end

local function header_in(r, name)
    return index_of(r)[name]
end
rt.header_in = header_in

function rt.export.header(id, name)
    return header_in(requests[id], name)
end

-- All values of a header, joined.
local function header_joined(r, name, separator)
    if not header_in(r, name) then
        return nil
    end
    local h, out, n = headers_in(r), {}, 0
    for i = 1, h.n, 2 do
        if lower(h[i]) == name then
            n = n + 1
            out[n] = h[i + 1]
        end
    end
    return concat(out, separator)
end
rt.header_joined = header_joined

local CASELESS = {
    __index = function(t, key)
        local kind = type(key)
        if kind ~= "string" and kind ~= "number" then
            return nil
        end
        return rawget(t, (gsub(lower(key), "_", "-")))
    end,
}

-- The table that get_headers returns, from a flat array: repeated names become arrays.
local function headers_table(flat, n, max, raw)
    local out, count, err = {}, 0, nil
    if max and max > 0 and n > max * 2 then
        n, err = max * 2, "truncated"
    end
    for i = 1, n, 2 do
        local key, value = flat[i], flat[i + 1]
        if not raw then
            key = lower(key)
        end
        local old = out[key]
        if old == nil then
            out[key] = value
        elseif type(old) == "table" then
            old[#old + 1] = value
        else
            out[key] = { old, value }
        end
    end
    if not raw then
        setmetatable(out, CASELESS)
    end
    return out, err
end
rt.headers_table = headers_table

function req.get_headers(max, raw)
    local r = request()
    local h = headers_in(r)
    max = max == nil and 100 or tonumber(max)
    if max < 0 then
        max = 100
    end
    return headers_table(h, h.n, max, raw)
end

local escape_name, escape_value
do
    local function percent(c)
        return format("%%%02X", byte(c))
    end
    escape_name = function(s)
        if find(s, '[%z\1-\32\127-\255"(),/:;<=>?@%[\\%]{}]') then
            s = gsub(s, '[%z\1-\32\127-\255"(),/:;<=>?@%[\\%]{}]', percent)
        end
        return s
    end
    escape_value = function(s)
        if find(s, "[%z\1-\8\10-\31\127]") then
            s = gsub(s, "[%z\1-\8\10-\31\127]", percent)
        end
        return s
    end
end
rt.escape_header_name, rt.escape_header_value = escape_name, escape_value

local function strip_host(value)
    value = lower(value)
    return match(value, "^(%[.-%])") or match(value, "^[^:]*")
end

local function remove_header(r, name)
    local h = headers_in(r)
    local m = 0
    for i = 1, h.n, 2 do
        if lower(h[i]) ~= name then
            h[m + 1], h[m + 2] = h[i], h[i + 1]
            m = m + 2
        end
    end
    for i = m + 1, h.n do
        h[i] = nil
    end
    h.n = m
    r.hin_index = nil
end

local function changed(r, name, value)
    r.hin_index = nil
    if name == "host" then
        r.host = value and strip_host(value) or nil
    elseif name == "content-length" then
        r.clen_in = value
    end
end

local function append_header(r, key, value)
    local h = headers_in(r)
    local n = h.n
    h[n + 1], h[n + 2] = key, value
    h.n = n + 2
end

local function set_header(r, key, value, override)
    key = escape_name(tostring(key))
    local name = lower(key)
    if value == nil or (type(value) == "table" and #value == 0) then
        if override then
            remove_header(r, name)
            changed(r, name, nil)
        end
        return
    end
    if type(value) ~= "table" then
        value = escape_value(tostring(value))
        local h = headers_in(r)
        if override then
            -- the first line keeps its place
            local at
            for i = 1, h.n, 2 do
                if lower(h[i]) == name then
                    at = i
                    break
                end
            end
            if at then
                for i = h.n - 1, at + 2, -2 do
                    if lower(h[i]) == name then
                        remove(h, i)
                        remove(h, i)
                        h.n = h.n - 2
                    end
                end
                h[at], h[at + 1] = key, value
                changed(r, name, value)
                return
            end
        end
        append_header(r, key, value)
        changed(r, name, value)
        return
    end
    if override then
        remove_header(r, name)
    end
    for i = 1, #value do
        append_header(r, key, escape_value(tostring(value[i])))
    end
    changed(r, name, tostring(value[1]))
end
rt.set_request_header = set_header

local function check_http_version(r)
    if r.minor < 0 then
        error("unsupported http version", 3)
    end
end

function req.set_header(...)
    local n = select("#", ...)
    local key, value = ...
    if key == nil or (type(key) ~= "string" and type(key) ~= "number") then
        error("bad 'name' argument: string expected, got " .. type(key), 2)
    end
    local r = request()
    if r.minor < 0 then
        return
    end
    set_header(r, key, value, true)
end

function req.clear_header(key)
    if type(key) ~= "string" and type(key) ~= "number" then
        error("bad 'name' argument: string expected, got " .. type(key), 2)
    end
    local r = request()
    if r.minor < 0 then
        return
    end
    set_header(r, key, nil, true)
end

function rt.export.set_request_header(id, key, value)
    set_header(requests[id], key, value, true)
end

function rt.add_request_header(key, value)
    local r = request()
    if r.minor < 0 then
        return
    end
    set_header(r, key, value, false)
end

function req.raw_header(no_request_line)
    local r = request()
    local raw = sub(r.raw, 1, r.head_len)
    if no_request_line then
        local eol = find(raw, "\n", 1, true)
        return eol and sub(raw, eol + 1) or ""
    end
    return raw
end

-- ----------------------------------------------------------------- request line

local VERSIONS = { [-1] = 0.9, [0] = 1.0, [1] = 1.1 }

function req.http_version()
    return VERSIONS[request().minor]
end

function req.start_time()
    local r = S.r
    if not r then
        error("no request found", 2)
    end
    return r.start
end

function req.is_internal()
    return request().internal
end

local METHOD_IDS = {
    HTTP_GET = { 2, "GET" }, HTTP_HEAD = { 4, "HEAD" }, HTTP_POST = { 8, "POST" }, HTTP_PUT = { 16, "PUT" },
    HTTP_DELETE = { 32, "DELETE" }, HTTP_MKCOL = { 64, "MKCOL" }, HTTP_COPY = { 128, "COPY" },
    HTTP_MOVE = { 256, "MOVE" }, HTTP_OPTIONS = { 512, "OPTIONS" }, HTTP_PROPFIND = { 1024, "PROPFIND" },
    HTTP_PROPPATCH = { 2048, "PROPPATCH" }, HTTP_LOCK = { 4096, "LOCK" }, HTTP_UNLOCK = { 8192, "UNLOCK" },
    HTTP_PATCH = { 16384, "PATCH" }, HTTP_TRACE = { 32768, "TRACE" },
}
local METHOD_NAMES = {}
for name, entry in pairs(METHOD_IDS) do
    ngx[name] = entry[1]
    METHOD_NAMES[entry[1]] = entry[2]
end
rt.method_names = METHOD_NAMES

function req.get_method()
    return request().method
end

function req.set_method(id)
    if type(id) ~= "number" then
        error("bad method number", 2)
    end
    local r = request()
    local name = METHOD_NAMES[id]
    if not name then
        error("unsupported HTTP method: " .. id, 2)
    end
    r.method = name
end

function req.get_uri_args(max, tab)
    local r = request()
    local args = r.args
    if not args or args == "" then
        if tab then
            require("table.clear")(tab)
        end
        return tab or {}
    end
    return rt.uri_args(args, max, tab)
end

function req.set_uri_args(args)
    local r = request()
    local kind = type(args)
    if kind == "string" then
        r.args = rt.escape_args(args)
    elseif kind == "number" then
        r.args = tostring(args)
    elseif kind == "table" then
        local text, err = rt.encode_args(args)
        if not text then
            error(err, 2)
        end
        r.args = text
    else
        error("bad argument #1 to 'set_uri_args' (string, number, or table expected, but got "
            .. (args == nil and "nil" or kind) .. ")", 2)
    end
end

local jump_check = checker("jump")

function req.set_uri(...)
    local n = select("#", ...)
    if n < 1 or n > 3 then
        error("expecting 1, 2 or 3 arguments but seen " .. n, 2)
    end
    local uri, jump, binary = ...
    local r = request()
    if type(uri) == "number" then
        uri = tostring(uri)
    elseif type(uri) ~= "string" then
        rt.type_error(1, "set_uri", "string", uri == nil and "nil" or type(uri))
    end
    if uri == "" then
        error("attempt to use zero-length uri", 2)
    end
    if not binary then
        local at = find(uri, "[%z\1-\8\10-\31\127]")
        if at then
            error(format('unsafe byte "0x%02x" in uri "%s" (maybe you want to set the \'binary\' argument?)',
                byte(uri, at), rt.visible(uri)), 2)
        end
    end
    if n >= 2 and type(jump) ~= "boolean" then
        rt.type_error(2, "set_uri", "boolean", jump == nil and "nil" or type(jump))
    end
    if jump then
        jump_check()
        rt.no_pending_subrequests(r)
        r.uri = uri
        return rt.leave(rt.outcome.JUMP)
    end
    r.uri = uri
    r.valid_location = false
end

-- ------------------------------------------------------------------------- ngx.ctx

function rt.get_ctx()
    local r = S.r
    if not r then
        error("no request found", 2)
    end
    local ctx = r.ctx
    if not ctx then
        ctx = {}
        r.ctx = ctx
    end
    return ctx
end

function rt.set_ctx(value)
    local r = S.r
    if not r then
        error("no request found", 2)
    end
    if type(value) ~= "table" then
        error("ctx should be a table while getting a " .. type(value), 3)
    end
    r.ctx = value
end
