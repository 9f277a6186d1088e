-- gzip and gunzip: a coder behind the body filters, when the client wants (or cannot take) gzip.
--
-- The bytes go through zlib in Python, one stream per request.

local rt = ...

local ngx, py, requests = rt.ngx, rt.py, rt.requests
local find, sub, match, lower, gmatch, format, byte =
    string.find, string.sub, string.match, string.lower, string.gmatch, string.format, string.byte
local tonumber, floor = tonumber, math.floor
local header_in, find_header = rt.header_in, rt.find_header
local matches = ngx.re.find

local NO_FLUSH, SYNC, FINISH = 0, 1, 2

-- What follows "gzip" in Accept-Encoding must not say q=0.
local function is_wanted(rest)
    if find(rest, "^ *$") or find(rest, "^ *,") or find(rest, "^ *; *$") then
        return true
    end
    local q, after = match(rest, "^ *; *q=([01]%.?%d*)(.?)")
    if not q or not find(after, "^[, ]?$") then
        return false
    end
    local n = tonumber(q)
    return n > 0 and n <= 1 and #q <= 5
end

local function accepts(value)
    value = lower(value)
    local at, stop = find(value, "gzip", 1, true)
    while at do
        if at == 1 or find(sub(value, at - 1, at - 1), "[ ,]") then
            return is_wanted(sub(value, stop + 1))
        end
        at, stop = find(value, "gzip", stop + 1, true)
    end
    return false
end

-- The first of the wanted directives in Cache-Control.
local function cache_control(r, wanted)
    local h = r.hout
    for i = 1, #h, 2 do
        if lower(h[i]) == "cache-control" then
            for item in gmatch(h[i + 1], "[^,;]+") do
                local directive = match(lower(item), "^%s*([^%s=]+)%s*$")
                if wanted[directive] then
                    return true
                end
            end
        end
    end
    return false
end

-- A response to a proxy (which sends Via): only those that gzip_proxied names.
local function for_proxy(r, wanted)
    if wanted.off then
        return false
    elseif wanted.any or (wanted.auth and header_in(r, "authorization")) then
        return true
    end
    local at = find_header(r, "expires")
    if at then
        local expires = ngx.parse_http_time(r.hout[at + 1])
        return wanted.expired and expires ~= nil and expires < rt.now() or false
    end
    if find_header(r, "cache-control") then
        return cache_control(r, wanted)
    end
    return not (wanted.no_last_modified and find_header(r, "last-modified"))
        and not (wanted.no_etag and find_header(r, "etag"))
end

local function takes_gzip(r)
    local value = header_in(r, "accept-encoding")
    if not value or not accepts(value) then
        return false
    end
    local rules = r.loc.gzip_rules
    if r.minor < rules.minor then
        return false
    end
    if header_in(r, "via") and not for_proxy(r, rules.proxied) then
        return false
    end
    local agent = rules.disable and header_in(r, "user-agent")
    return not (agent and matches(agent, rules.disable, "ijo"))
end

-- The body becomes another one: what depends on its bytes goes.
local function recode(r, coder)
    r.cl = nil
    r.coder = coder
    rt.remove_header(r, "accept-ranges")
    local at = find_header(r, "etag")
    if at then
        local etag = r.hout[at + 1]
        if byte(etag) == 34 then
            r.hout[at + 1] = "W/" .. etag
        elseif sub(etag, 1, 2) ~= "W/" then
            rt.remove_header(r, "etag")
        end
    end
end

local function vary(r)
    if r.loc.gzip_rules.vary and not r.varied then
        r.varied = true
        rt.append_header(r, "Vary", "Accept-Encoding")
    end
end

-- ---------------------------------------------------------------- gzip

local function deflate(r, data, last)
    local flush = last and FINISH or r.flushing and SYNC or NO_FLUSH
    if data == "" and flush == NO_FLUSH then
        return ""
    end
    local out = py.deflate(r.cid, r.loc.gzip.level, data, flush)
    r.gzip_in, r.gzip_out = r.gzip_in + #data, r.gzip_out + #out
    return out
end

-- Whether the location compresses such a response for those who take it.
local function fits(gzip, ct, length)
    if not ct or (length and length < gzip.min_length) then
        return false
    end
    local types = gzip.types
    return types["*"] or types[lower(match(ct, "^[^;]*"))] or false
end

-- A compressed response has no ranges, so files have to know before they look at them.
function rt.export.compresses(id, ct, length)
    local r = requests[id]
    return fits(r.loc.gzip, ct, length) and takes_gzip(r)
end

function rt.header_filters.gzip(r, status)
    if (status ~= 200 and status ~= 403 and status ~= 404) or r.body_dropped then
        return
    end
    local at = find_header(r, "content-encoding")
    if (at and r.hout[at + 1] ~= "") or not fits(r.loc.gzip, r.ct, r.cl) then
        return
    end
    vary(r)
    if takes_gzip(r) then
        rt.append_header(r, "Content-Encoding", "gzip")
        r.gzip_in, r.gzip_out = 0, 0
        recode(r, deflate)
    end
end

function rt.variable_getters.gzip_ratio(r)
    local n_out = r.gzip_out
    if not n_out or n_out == 0 then
        return nil
    end
    return format("%.2f", floor(r.gzip_in * 100 / n_out + 0.5) / 100)
end

-- ---------------------------------------------------------------- gunzip

local function inflate(r, data, last)
    if data == "" and not last then
        return ""
    end
    local out, err = py.inflate(r.cid, data, last)
    if not out then
        rt.raw_log(4, "inflate() failed: " .. err, r)
    end
    return out
end

function rt.header_filters.gunzip(r)
    local at = find_header(r, "content-encoding")
    if not at or lower(r.hout[at + 1]) ~= "gzip" or r.body_dropped then
        return
    end
    vary(r)
    if not takes_gzip(r) then
        rt.remove_header(r, "content-encoding")
        recode(r, inflate)
    end
end
