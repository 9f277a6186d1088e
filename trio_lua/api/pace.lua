-- limit_rate and $limit_rate: how fast a response may go.
--
-- The variable limits from where it is assigned to; otherwise the location decides, when the response begins.

local rt = ...

local py = rt.py
local type = type

local function size(r, value)
    if type(value) ~= "number" then
        local text = rt.eval(r, value[1])
        value = py.parse_size(text)
        if not value then
            rt.raw_log(4, 'invalid size "' .. text .. '"', r)
        end
    end
    return value or 0
end

local function pace(r)
    local loc = r.loc
    py.pace(r.cid, r.limit_rate, loc.limit_rate_after and size(r, loc.limit_rate_after) or 0)
end

function rt.header_filters.limit_rate(r)
    if not r.limit_rate then
        r.limit_rate = size(r, r.loc.limit_rate)
    end
    if r.limit_rate > 0 then
        pace(r)
    end
end

function rt.variable_getters.limit_rate(r)
    return ("%d"):format(r.limit_rate or 0)
end

function rt.variable_setters.limit_rate(r, value)
    local rate = value and py.parse_size(value)
    if not rate then
        rt.raw_log(4, 'invalid $limit_rate "' .. (value or "") .. '"', r)
        return
    end
    r.limit_rate = rate
    pace(r)
end
