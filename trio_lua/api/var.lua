-- Variables: ngx.var, and the templates ("$uri?x=$arg_x") of the configuration.
--
-- What can be known from the request is computed here; what only the engine knows (files, sizes,
-- times of the connection) comes from Python through rt.py.variable. Names declared by `set` live in r.vars.

local rt = ...

local S, ngx, py, requests = rt.S, rt.ngx, rt.py, rt.requests
local type, tostring, tonumber, error, setmetatable = type, tostring, tonumber, error, setmetatable
local lower, sub, find, gsub, byte, match, format, gmatch =
    string.lower, string.sub, string.find, string.gsub, string.byte, string.match, string.format, string.gmatch
local concat, floor = table.concat, math.floor
local request = rt.request
local header_in = rt.header_in

local declared = {} -- names of `set`
rt.declared = declared

function rt.export.declare_variable(name)
    -- `set $args` declares nothing: it assigns to what is there
    if not rt.variable_setters[name] then
        declared[name] = true
    end
end

-- Address of the peer and of the listening socket, asked for once per request.
local function connection(r)
    local addr = r.remote_addr
    if not addr then
        r.remote_addr, r.remote_port, r.server_addr, r.server_port, r.connection, r.connection_requests, r.scheme =
            py.connection(r.cid)
        addr = r.remote_addr
    end
    return addr
end
rt.connection = connection

local function field(name)
    return function(r)
        connection(r)
        return tostring(r[name])
    end
end

local function request_line(r)
    return match(r.raw, "^[^\r\n]*")
end

local function query_arg(args, name)
    -- as nginx: the first name=value pair, case-insensitive
    if not args then
        return nil
    end
    local low, wanted = lower(args), lower(name) .. "="
    local from = 1
    while true do
        local at, stop = find(low, wanted, from, true)
        if not at then
            return nil
        end
        if at == 1 or byte(args, at - 1) == 38 then
            local amp = find(args, "&", stop + 1, true)
            return sub(args, stop + 1, amp and amp - 1 or -1)
        end
        from = stop
    end
end

local function cookie(r, name)
    local text = rt.header_joined(r, "cookie", "; ")
    if not text then
        return nil
    end
    local low, wanted = lower(text), lower(name) .. "="
    local from = 1
    while true do
        local at, stop = find(low, wanted, from, true)
        if not at then
            return nil
        end
        if at == 1 or find(sub(text, at - 1, at - 1), "[; ,]") then
            local semi = find(text, ";", stop + 1, true)
            return sub(text, stop + 1, semi and semi - 1 or -1)
        end
        from = stop
    end
end

local function host(r)
    local h = r.host
    if h and h ~= "" then
        return h
    end
    local srv = r.loc.server
    return srv and srv.name or ""
end

local function content_type(r)
    return header_in(r, "content-type")
end

local function args_of(r)
    return r.args
end

local function sent_status(r)
    local status = r.err_status or r.status
    if status == 0 then
        return "000"
    end
    return format("%03d", status)
end

local function keep(r, name, value)
    local vars = r.vars
    if not vars then
        vars = {}
        r.vars = vars
    end
    vars[name] = value or false
end

local getters
getters = {
    uri = function(r) return r.uri end,
    document_uri = function(r) return r.uri end,
    request_uri = function(r) return r.unparsed_uri end,
    args = args_of,
    query_string = args_of,
    is_args = function(r) return r.args and r.args ~= "" and "?" or "" end,
    host = host,
    server_name = function(r) return r.loc.server and r.loc.server.name or "" end,
    hostname = function() return rt.hostname or "" end,
    remote_addr = field("remote_addr"), remote_port = field("remote_port"),
    server_addr = field("server_addr"), server_port = field("server_port"),
    connection = field("connection"), connection_requests = field("connection_requests"),
    scheme = field("scheme"),
    https = function(r) connection(r) return r.scheme == "https" and "on" or "" end,
    http2 = function() return "" end,
    binary_remote_addr = function(r) return py.variable(r.cid, r.id, "binary_remote_addr") end,
    realip_remote_addr = field("remote_addr"), realip_remote_port = field("remote_port"),
    request = request_line,
    request_method = function(r) return r.main and r.main.method or r.method end,
    server_protocol = function(r)
        return r.minor == 1 and "HTTP/1.1" or r.minor == 0 and "HTTP/1.0" or "HTTP/0.9"
    end,
    request_length = function(r)
        local body = r.body
        local length = body and #body or r.body_file and r.clen > 0 and r.clen or 0
        return format("%d", r.head_len + length)
    end,
    request_body = function(r) return r.body end,
    request_body_file = function(r) return r.body_file end,
    request_completion = function(r) return r.complete and "OK" or "" end,
    request_time = function(r) return format("%.3f", floor((rt.now() - r.start) * 1000 + 0.5) / 1000) end,
    request_id = function(r)
        local id = r.request_id
        if not id then
            id = py.random_hex(16)
            r.request_id = id
        end
        return id
    end,
    status = sent_status,
    bytes_sent = function(r) return format("%d", (r.bytes_head or 0) + (r.body_bytes or 0)) end,
    body_bytes_sent = function(r) return format("%d", r.body_bytes or 0) end,
    msec = function() return format("%.3f", ngx.now()) end,
    time_local = function() return py.time_local() end,
    time_iso8601 = function() return py.time_iso8601() end,
    content_type = content_type,
    content_length = function(r)
        return header_in(r, "content-length")
    end,
    remote_user = function(r) return py.remote_user(header_in(r, "authorization") or "") end,
    pid = function() return tostring(py.pid()) end,
    nginx_version = function() return rt.nginx_version end,
    pipe = function(r) return r.pipelined and "p" or "." end,
    document_root = function(r) return py.variable(r.cid, r.id, "document_root") end,
    realpath_root = function(r) return py.variable(r.cid, r.id, "realpath_root") end,
    request_filename = function(r) return py.variable(r.cid, r.id, "request_filename") end,
    invalid_referer = function(r) return py.variable(r.cid, r.id, "invalid_referer") end,
    proxy_add_x_forwarded_for = function(r)
        local xff = rt.header_joined(r, "x-forwarded-for", ", ")
        local addr = connection(r)
        return xff and xff .. ", " .. addr or addr
    end,
}
rt.variable_getters = getters

local setters = {
    args = function(r, value) r.args = value end,
}
rt.variable_setters = setters

-- A setter for a variable whose values lie where those of `set` do.
function rt.keeper(name)
    return function(r, value)
        keep(r, name, value)
    end
end

-- A named group of a regular expression has no value before a match.
function rt.export.declare_group(name)
    if not getters[name] then
        getters[name], setters[name] = function() end, rt.keeper(name)
    end
end

-- Request headers that nginx keeps apart.
local OWN = { ["host"] = true, ["user-agent"] = true, ["referer"] = true, ["via"] = true }

-- Response headers whose variable shows all values.
local JOINED = { ["cache-control"] = true, ["link"] = true }

local function sent_header(r, name)
    name = gsub(name, "_", "-")
    if name == "content-type" then
        return r.ct ~= "" and r.ct or nil
    elseif name == "content-length" then
        return r.cl and format("%d", r.cl)
    elseif name == "transfer-encoding" then
        return r.chunked and "chunked" or nil
    elseif name == "connection" then
        return r.keepalive and "keep-alive" or "close"
    elseif name == "keep-alive" then
        return r.loc.keepalive_header and "timeout=" .. r.loc.keepalive_header or nil
    elseif name == "last-modified" or name == "location" then
        -- the core's own variables
        local value = rt.get_response_header(r, name)
        return type(value) == "table" and value[#value] or value
    end
    local value = rt.get_response_header(r, name)
    if type(value) == "table" then
        return JOINED[name] and concat(value, ", ") or value[1]
    end
    return value
end

-- Value of a variable, nil when it is not found. Names are lower-case. One that was never set is warned of once.
local function get(r, name)
    local vars = r.vars
    if vars then
        local value = vars[name]
        if value ~= nil then
            return value or nil
        end
    end
    if declared[name] then
        if r.loc.uninitialized_variable_warn ~= false then
            rt.raw_log(5, 'using uninitialized "' .. name .. '" variable', r)
        end
        keep(r, name, "")
        return ""
    end
    local getter = getters[name]
    if getter then
        return getter(r)
    end
    local prefix, rest = match(name, "^([a-z]+)_(.+)$")
    if prefix == "arg" then
        return query_arg(r.args, rest)
    elseif prefix == "http" then
        rest = gsub(rest, "_", "-")
        if rest == "cookie" then
            return rt.header_joined(r, "cookie", "; ")
        elseif rest == "x-forwarded-for" then
            return rt.header_joined(r, rest, ", ")
        end
        -- "_" of a variable's name stands for "-" as well as for itself
        return header_in(r, rest) or not OWN[rest] and header_in(r, sub(name, 6)) or nil
    elseif prefix == "cookie" then
        return cookie(r, rest)
    elseif prefix == "sent" and sub(rest, 1, 5) == "http_" then
        return sent_header(r, sub(rest, 6))
    elseif prefix == "ssl" then
        return py.variable(r.cid, r.id, name)
    elseif prefix == "upstream" then
        return r.upstream and r.upstream[name]
    end
    local n = tonumber(name)
    if n then
        local captures = r.captures
        return captures and captures[n + 1] or nil
    end
    return nil
end
rt.get_variable = get

-- Tables of variables that come from blocks such as map: name -> function(r)
function rt.define_variable(name, getter)
    getters[name] = getter
end

-- Members of families that are variables of their own: only they are known to exist.
local BUILTIN = {}
for name in gmatch("host user_agent referer via x_forwarded_for cookie", "%S+") do
    BUILTIN["http_" .. name] = true
end
for name in gmatch("content_type content_length location last_modified connection keep_alive transfer_encoding "
    .. "cache_control link", "%S+") do
    BUILTIN["sent_http_" .. name] = true
end

local function known(name)
    return declared[name] or getters[name] or BUILTIN[name] or find(name, "^upstream_")
end
rt.variable_known = known

ngx.var = setmetatable({}, {
    __index = function(_, key)
        local r = request()
        if type(key) == "number" then
            local captures = r.captures
            return captures and key > 0 and captures[key + 1] or nil
        end
        if type(key) ~= "string" then
            error("bad variable name", 2)
        end
        return get(r, lower(key))
    end,
    __newindex = function(_, key, value)
        local r = request()
        if type(key) ~= "string" then
            error("bad variable name", 2)
        end
        local name = lower(key)
        if value ~= nil then
            value = tostring(value)
        end
        if declared[name] then
            return keep(r, name, value)
        end
        local setter = setters[name]
        if setter then
            return setter(r, value)
        end
        if known(name) then
            error('variable "' .. key .. '" not changeable', 2)
        end
        error('variable "' .. key .. '" not found for writing; maybe it is a built-in variable that is not changeable '
            .. 'or you forgot to use "set $' .. key .. ' \'\';" in the config file to define it first', 2)
    end,
})

-- --------------------------------------------------------------------- templates

local templates = {} -- id -> flat { is_variable, text, ... }

function rt.export.define_template(id, ...)
    templates[id] = { n = select("#", ...), ... }
end

local function eval(r, id)
    local t = templates[id]
    local parts = {}
    local n = 0
    for i = 1, t.n, 2 do
        n = n + 1
        local text = t[i + 1]
        if t[i] then
            local value = get(r, text)
            parts[n] = value or ""
        else
            parts[n] = text
        end
    end
    return concat(parts, "", 1, n)
end
rt.eval = eval

function rt.export.eval(id, template)
    return eval(requests[id], template)
end

-- For log_format: each variable escaped by a Python function is too slow; values come as a flat tuple.
function rt.export.eval_parts(id, template)
    local r, t = requests[id], templates[template]
    local out = {}
    for i = 1, t.n, 2 do
        if t[i] then
            out[(i + 1) / 2] = get(r, t[i + 1]) or false
        else
            out[(i + 1) / 2] = t[i + 1]
        end
    end
    return unpack(out, 1, t.n / 2)
end

function rt.export.get_variable(id, name)
    return get(requests[id], name)
end

function rt.export.set_variable(id, name, value)
    local r = requests[id]
    local setter = setters[name]
    if setter then
        return setter(r, value)
    end
    keep(r, name, value)
end

function rt.export.set_captures(id, ...)
    requests[id].captures = { ... }
end
