-- Response headers: ngx.header, ngx.resp.get_headers, and the block of bytes they become.
--
-- Content-Type and Content-Length live in r.ct and r.cl, the rest in one flat array r.hout in the order
-- of their first write, which is the order on the wire.

local rt = ...

local S, ngx, requests = rt.S, rt.ngx, rt.requests
local type, tostring, tonumber, error, setmetatable = type, tostring, tonumber, error, setmetatable
local lower, gsub, find, format = string.lower, string.gsub, string.find, string.format
local remove = table.remove
local request = rt.request
local escape_name, escape_value = rt.escape_header_name, rt.escape_header_value

ngx.resp = {}

-- Headers of which a list keeps the last value only.
local SINGLE = {
    ["server"] = true, ["date"] = true, ["content-length"] = true, ["content-type"] = true,
    ["content-encoding"] = true, ["location"] = true, ["refresh"] = true, ["last-modified"] = true,
    ["content-range"] = true, ["accept-ranges"] = true, ["expires"] = true, ["e-tag"] = true, ["etag"] = true,
}

local function find_header(r, name, from)
    local h = r.hout
    if h then
        for i = from or 1, #h, 2 do
            if lower(h[i]) == name then
                return i
            end
        end
    end
end
rt.find_header = find_header

local function remove_header(r, name)
    local at = find_header(r, name)
    while at do
        remove(r.hout, at)
        remove(r.hout, at)
        at = find_header(r, name, at)
    end
end
rt.remove_header = remove_header

local function append_header(r, key, value)
    local h = r.hout
    if not h then
        h = {}
        r.hout = h
    end
    local n = #h
    h[n + 1], h[n + 2] = key, value
end
rt.append_header = append_header

local function replace_header(r, key, name, value)
    local at = find_header(r, name)
    if not at then
        return append_header(r, key, value)
    end
    local h = r.hout
    -- the name stays as it was first written
    h[at + 1] = value
    local again = find_header(r, name, at + 2)
    while again do
        remove(h, again)
        remove(h, again)
        again = find_header(r, name, again)
    end
end

-- Headers that are sent when nobody has set them. Removing one means that it is not sent.
local STANDARD = { server = true, date = true }

local function hide_header(r, name)
    local h = r.hout or {}
    r.hout = h
    h.hidden = h.hidden or {}
    h.hidden[name] = true
end

-- One value of a header that the core keeps apart, or a line of the list.
local function set_one(r, key, name, value, override)
    if name == "content-type" then
        r.ct = value
        r.ct_set = true
    elseif name == "content-length" then
        if value == nil or value == "" then
            r.cl = nil
        elseif find(value, "^%d+$") then
            r.cl, r.cl_name = tonumber(value), key
        else
            error("failed to set header", 4)
        end
    elseif value == nil then
        remove_header(r, name)
        if STANDARD[name] then
            hide_header(r, name)
        end
    elseif override or SINGLE[name] then
        replace_header(r, key, name, value)
    else
        append_header(r, key, value)
    end
    if name == "last-modified" then
        r.last_modified = value and ngx.parse_http_time(value) or nil
    end
end

-- Set (or, with override false, add) a response header; value nil or {} removes.
local function set_header(r, key, value, override)
    key = escape_name(tostring(key))
    local name = lower(key)
    r.headers_set = true
    if value == nil then
        if override then
            set_one(r, key, name, nil, true)
        end
        return
    end
    if type(value) == "table" then
        local n = #value
        if n == 0 then
            if override then
                set_one(r, key, name, nil, true)
            end
            return
        end
        for i = 1, n do
            set_one(r, key, name, escape_value(tostring(value[i])), override and i == 1)
        end
        return
    end
    value = escape_value(tostring(value))
    if value ~= "" then
        set_one(r, key, name, value, override)
    elseif override then
        -- nginx sends no header without a value
        set_one(r, key, name, nil, true)
    end
end
rt.set_response_header = set_header

-- early: nginx writes it before Connection, and what Lua sets behind.
function rt.export.set_header(id, key, value, early)
    local r = requests[id]
    local name = lower(key)
    set_one(r, key, name, value, true)
    if early then
        r.early = r.early or {}
        r.early[name] = true
    end
end

function rt.export.add_header(id, key, value)
    append_header(requests[id], key, value)
end

local function get_header(r, key)
    local name = lower(key)
    if name == "content-type" then
        return r.ct
    elseif name == "content-length" then
        return r.cl and format("%d", r.cl) or nil
    end
    local at = find_header(r, name)
    if not at then
        return nil
    end
    local h = r.hout
    local value = h[at + 1]
    at = find_header(r, name, at + 2)
    if not at then
        return value
    end
    local list, n = { value }, 1
    while at do
        n = n + 1
        list[n] = h[at + 1]
        at = find_header(r, name, at + 2)
    end
    return list
end
rt.get_response_header = get_header

local function key_of(r, key)
    if r.loc.transform_underscores ~= false and find(key, "_", 1, true) then
        key = gsub(key, "_", "-")
    end
    return key
end

ngx.header = setmetatable({}, {
    __index = function(_, key)
        local r = request()
        if type(key) ~= "string" then
            key = tostring(key)
        end
        return get_header(r, key_of(r, key))
    end,
    __newindex = function(_, key, value)
        local r = request()
        if r.header_sent then
            rt.raw_log(4, "attempt to set ngx.header.HEADER after sending out response headers", r)
            return
        end
        if type(key) ~= "string" then
            key = tostring(key)
        end
        set_header(r, key_of(r, key), value, true)
    end,
})

function rt.add_response_header(key, value)
    local r = request()
    if r.header_sent then
        rt.raw_log(4, "attempt to set ngx.header.HEADER after sending out response headers", r)
        return
    end
    set_header(r, key_of(r, key), value, false)
end

function ngx.resp.get_headers(max, raw)
    local r = request()
    local flat, n = {}, 0
    local h = r.hout
    if h then
        for i = 1, #h do
            flat[i] = h[i]
        end
        n = #h
    end
    local function add(key, value)
        flat[n + 1], flat[n + 2] = key, value
        n = n + 2
    end
    if r.ct and r.ct ~= "" then
        add("content-type", r.ct)
    end
    if r.cl then
        add("content-length", format("%d", r.cl))
    end
    add("connection", r.keepalive and "keep-alive" or "close")
    if r.chunked then
        add("transfer-encoding", "chunked")
    end
    max = max == nil and 100 or tonumber(max)
    return rt.headers_table(flat, n, max, raw)
end

-- ------------------------------------------------------------------------ the head

local status_lines = rt.status_lines or {}
local http_time = rt.http_time
local concat = table.concat

local heads, heads_second = {}, nil

-- "HTTP/1.1 200 OK\r\nServer: x\r\nDate: ...\r\n", cached for a second
local function head_start(status, server, now)
    local second = now - now % 1
    if second ~= heads_second then
        heads, heads_second = {}, second
    end
    local by_server = heads[server]
    if not by_server then
        by_server = {}
        heads[server] = by_server
    end
    local text = by_server[status]
    if not text then
        text = "HTTP/1.1 " .. (status_lines[status] or format("%03d ", status)) .. "\r\nServer: " .. server
            .. "\r\nDate: " .. http_time(second) .. "\r\n"
        by_server[status] = text
    end
    return text
end

local make_head

-- The head of most responses of a location says the same for a second: 200, chunked, keep-alive and no
-- header of its own.
function rt.response_head(r, status)
    if status ~= 200 or not r.chunked or not r.keepalive or r.hout or r.cl or r.status_line then
        return make_head(r, status)
    end
    local now, loc, ct = rt.now(), r.loc, r.ct
    local second = now - now % 1
    if loc.head_second ~= second or loc.head_type ~= ct then
        loc.head, loc.head_second, loc.head_type = make_head(r, status), second, ct
    end
    return loc.head
end

-- The whole head. Order as nginx writes it: Server, Date, Content-Type, Content-Length,
-- Last-Modified and Location when they are the core's own, Transfer-Encoding, Connection, Keep-Alive, then the list.
make_head = function(r, status)
    local loc = r.loc
    local h = r.hout
    local server = loc.server_token or "trio_lua"
    local out
    local hidden = h and h.hidden
    if r.status_line or (h and (hidden or find_header(r, "server") or find_header(r, "date"))) then
        out = "HTTP/1.1 " .. (r.status_line or status_lines[status] or format("%03d ", status)) .. "\r\n"
        if not (h and (find_header(r, "server") or hidden and hidden.server)) then
            out = out .. "Server: " .. server .. "\r\n"
        end
        if not (h and (find_header(r, "date") or hidden and hidden.date)) then
            out = out .. "Date: " .. http_time(rt.now()) .. "\r\n"
        end
    else
        out = head_start(status, server, rt.now())
    end
    local ct = r.ct
    if ct and ct ~= "" then
        out = out .. "Content-Type: " .. ct .. "\r\n"
    end
    if r.cl then
        out = out .. "Content-Length: " .. format("%d", r.cl) .. "\r\n"
    end
    local early = r.early
    if early then
        for i = 1, #h, 2 do
            if early[lower(h[i])] then
                out = out .. h[i] .. ": " .. h[i + 1] .. "\r\n"
            end
        end
    end
    if r.chunked then
        out = out .. "Transfer-Encoding: chunked\r\n"
    end
    if status == 101 then
        out = out .. "Connection: upgrade\r\n"
    elseif r.keepalive then
        local ka = loc.keepalive_header
        out = out .. (ka and "Connection: keep-alive\r\nKeep-Alive: timeout=" .. ka .. "\r\n" or "Connection: keep-alive\r\n")
    else
        out = out .. "Connection: close\r\n"
    end
    if h then
        local n = #h
        if n > 0 then
            local parts, m = {}, 0
            for i = 1, n, 2 do
                if not (early and early[lower(h[i])]) then
                    parts[m + 1], parts[m + 2], parts[m + 3], parts[m + 4] = h[i], ": ", h[i + 1], "\r\n"
                    m = m + 4
                end
            end
            out = out .. concat(parts)
        end
    end
    return out .. "\r\n"
end
