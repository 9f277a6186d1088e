-- expires: the headers Expires and Cache-Control of responses that may be kept.

local rt = ...

local py = rt.py
local floor, date, time = math.floor, os.date, os.time

local SAFE = rt.safe_statuses

-- When it is next that many seconds after midnight, local time.
local function next_time(seconds, now)
    local t = date("*t", now)
    t.hour, t.min, t.sec, t.isdst = 0, 0, seconds, nil
    local at = time(t)
    if at > now then
        return at
    end
    t = date("*t", now)
    t.day, t.hour, t.min, t.sec, t.isdst = t.day + 1, 0, 0, seconds, nil
    return time(t)
end

local function set(r, expires, control)
    rt.set_response_header(r, "Expires", expires, true)
    rt.set_response_header(r, "Cache-Control", control, true)
end

function rt.header_filters.expires(r, status)
    if not SAFE[status] then
        return
    end
    local e = r.loc.expires
    local kind, seconds = e.kind, e.seconds
    if e.time then
        kind, seconds = py.parse_expiry(rt.eval(r, e.time), e.modified)
    end
    if not kind or kind == "off" then
        return
    elseif kind == "epoch" then
        return set(r, "Thu, 01 Jan 1970 00:00:01 GMT", "no-cache")
    elseif kind == "max" then
        return set(r, "Thu, 31 Dec 2037 23:55:55 GMT", "max-age=315360000")
    end
    local now = floor(rt.now())
    local at
    if kind == "daily" then
        at = next_time(seconds, now)
    elseif kind == "modified" and seconds ~= 0 and r.last_modified then
        at = r.last_modified + seconds
    else
        at = now + seconds
    end
    set(r, rt.http_time(at), at < now and "no-cache" or "max-age=" .. at - now)
end
