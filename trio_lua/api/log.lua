-- ngx.log, print, and the error.log lines that the engine writes about a request.
--
-- The level test comes first, so a message below error_log's level costs a comparison.

local rt = ...

local S, ngx, py = rt.S, rt.ngx, rt.py
local type, tostring, select, error, getmetatable = type, tostring, select, error, getmetatable
local getinfo, concat, match, format, sub, find = debug.getinfo, table.concat, string.match, string.format, string.sub, string.find

ngx.STDERR, ngx.EMERG, ngx.ALERT, ngx.CRIT, ngx.ERR = 0, 1, 2, 3, 4
ngx.WARN, ngx.NOTICE, ngx.INFO, ngx.DEBUG = 5, 6, 7, 8

local EXIT_WORKER = 0x2000

-- ", client: A, server: S, request: "...", host: "h"", as nginx ends a line about a request.
local function suffix(r)
    local logging = r.phase == 0x10 and not r.main and " while logging request" or (r.main or r).doing or ""
    if r.fake then
        local name = r.phase ~= EXIT_WORKER and rt.context_names[r.phase]
        return (name and ", context: " .. name or "") .. (r.origin or "")
    end
    local addr = rt.connection(r)
    local text = logging .. ", client: " .. addr
    local srv = r.loc.server
    text = text .. ", server: " .. (srv and srv.name or "")
    if r.raw ~= "" then
        text = text .. ', request: "' .. (match(r.raw, "^[^\r\n]*") or "") .. '"'
    end
    if r.parent then
        text = text .. ', subrequest: "' .. r.uri .. '"'
    end
    local upstream = r.upstream
    if upstream and upstream.url then
        text = text .. ', upstream: "' .. upstream.url .. '"'
    end
    local host = r.raw ~= "" and rt.header_in(r, "host")
    if host then
        text = text .. ', host: "' .. host .. '"'
    end
    return text
end

-- A raw line (no [lua] prefix), with the suffix when there is a request.
local function raw_log(level, message, r)
    r = r or S.r
    local loc = r and r.loc
    if level > ((loc and loc.log_level) or rt.log_level or 4) then
        return
    end
    if r then
        local client = r.main or r
        py.log((loc and loc.log) or 0, level, message, suffix(r), client.cid or 0)
    else
        py.log(0, level, message, "", 0)
    end
end
rt.raw_log = raw_log

function rt.export.log(id, level, message)
    raw_log(level, message, rt.requests[id])
end

local function text_of(value)
    local kind = type(value)
    if kind == "string" then
        return value
    elseif kind == "number" then
        return tostring(value)
    elseif value == nil then
        return "nil"
    elseif kind == "boolean" then
        return value and "true" or "false"
    elseif kind == "userdata" and value == ngx.null then
        return "null"
    elseif kind == "table" then
        local meta = getmetatable(value)
        if not meta or not meta.__tostring then
            return nil, "expected table to have __tostring metamethod"
        end
        return tostring(value)
    end
    return nil, "string, number, boolean, or nil expected, got " .. (kind == "userdata" and "userdata" or kind)
end

-- "file:line: func(): " of the caller; func() is left out at the chunk's own level.
local function where(depth)
    local info = getinfo(depth, "Sln")
    if not info then
        return ""
    end
    local src = info.short_src
    if #info.source > 59 or sub(info.source, 1, 1) == "@" then
        src = match(info.source, "[^/\\]*$") or src
    end
    local text = src .. ":" .. (info.currentline > 0 and info.currentline or 0) .. ": "
    if info.name and info.what ~= "main" then
        text = text .. info.name .. "(): "
    end
    return text
end

-- The level of ngx.log is not counted when an argument is refused.
local function log(level, name, ...)
    local r = S.r
    local loc = r and r.loc
    if level > ((loc and loc.log_level) or rt.log_level or 4) then
        return
    end
    local n = select("#", ...)
    local parts = { "[lua] ", where(4) }
    for i = 1, n do
        local text, err = text_of((select(i, ...)))
        if not text then
            error("bad argument #" .. i .. " to '" .. name .. "' (" .. err .. ")", 3)
        end
        parts[i + 2] = text
    end
    raw_log(level, concat(parts), r)
end

function ngx.log(level, ...)
    if type(level) ~= "number" then
        local n = tonumber(level)
        if not n then
            rt.type_error(1, "log", "number", level == nil and "no value" or type(level))
        end
        level = n
    end
    if level < 0 or level > 8 then
        error("bad argument #1 to 'log' (bad log level: " .. level .. ")", 2)
    end
    log(level, "log", ...)
end

function print(...)
    log(6, "print", ...)
end
