-- Responses of an origin, kept as long as they say (max-age), then asked for again with their ETag. Many requests for
-- the same thing lead to one fetch. What is stale is better than nothing when the origin is down.

local cjson = require "cjson"
local origin = require "origin"

local responses, locks = ngx.shared.responses, ngx.shared.locks

local KEPT = 86400 -- how long something stale is kept

local _M = {}

local function answer(res, how)
    ngx.status = res.status
    ngx.header["Content-Type"] = res.type
    ngx.header["ETag"] = res.etag
    ngx.header["X-Cache"] = how
    ngx.header["Content-Length"] = #res.body
    ngx.print(res.body)
end

local function load(key)
    local text = responses:get(key)
    return text and cjson.decode(text)
end

local function fetch(key, host, port, known)
    local res, err = origin.get(host, port, key, known and known.etag)
    if not res then
        return nil, err
    end
    local fresh = known
    if res.status ~= 304 then
        fresh = {
            status = res.status, body = res.body, etag = res.headers["etag"],
            type = res.headers["content-type"] or "application/octet-stream",
        }
    end
    local age = tonumber((res.headers["cache-control"] or ""):match("max%-age=(%d+)"))
    if age and fresh.status == 200 then
        fresh.until_ = ngx.now() + age
        responses:set(key, cjson.encode(fresh), age + KEPT)
    end
    return fresh, res.status == 304 and "REVALIDATED" or "MISS"
end

-- Wait for whoever fetches it already; whether this request has to do it.
local function lock(key)
    for _ = 1, 100 do
        if locks:add(key, true, 5) then
            return true
        end
        ngx.sleep(0.02)
        local known = load(key)
        if known and known.until_ > ngx.now() then
            return false
        end
    end
    return true
end

function _M.serve(host, port)
    local key = ngx.var.request_uri
    local known = load(key)
    if known and known.until_ > ngx.now() then
        return answer(known, "HIT")
    end
    if not lock(key) then
        return answer(load(key), "HIT")
    end
    local res, how = fetch(key, host, port, known)
    locks:delete(key)
    if res then
        return answer(res, how)
    elseif known then
        ngx.log(ngx.WARN, "origin: ", how)
        return answer(known, "STALE")
    end
    ngx.log(ngx.ERR, "origin: ", how)
    return ngx.exit(502)
end

return _M
