-- The cached clock and nginx's date formats.
--
-- S.now holds the time of the current turn; the scheduler sets it to nil when a new turn begins.
-- Texts that change once a second are made once a second: the Date header of every response is
-- one of them.
--
-- For the other families: rt.now, rt.http_time, rt.parse_http_time.

local rt = ...

local ffi = require "ffi"

local ngx, py, S = rt.ngx, rt.py, rt.S
local error, type, tonumber = error, type, tonumber
local date = os.date
local byte, format = string.byte, string.format
local floor = math.floor

local WEEK = { [0] = "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local MONTHS = {
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
}

-- 9999-12-31: four digits are all that the formats have room for.
local LAST_DAY = 2932896

local function now()
    local t = S.now
    if not t then
        t = py.now()
        S.now = t
    end
    return t
end

rt.now = now

function ngx.update_time()
    local t = py.now()
    -- no new slice for the guard, which may look between two lines
    S.now, S.mark = t, S.now == S.mark and S.mark ~= nil and t or S.mark
end

function ngx.time()
    return floor(now())
end

-- The small term keeps a time such as 1.234, which has no exact binary form, at 234 ms.
function ngx.now()
    local t = now()
    local seconds = floor(t)
    return seconds + floor((t - seconds) * 1000 + 0.0005) / 1000
end

-- Civil date of a day number since 1970-01-01. Counted in years that begin in March, so that
-- the leap day is the last one of its year.
local function civil(days)
    local shifted = days + 719468
    local era = floor(shifted / 146097)
    local day = shifted - era * 146097
    local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
    day = day - (365 * year + floor(year / 4) - floor(year / 100))
    local month = floor((5 * day + 2) / 153)
    day = day - floor((153 * month + 2) / 5) + 1
    year = year + era * 400
    if month < 10 then
        return year, month + 3, day
    end
    return year + 1, month - 9, day
end

local function split(seconds)
    local days = floor(seconds / 86400)
    local rest = seconds - days * 86400
    if days > LAST_DAY then
        days, rest = LAST_DAY, 86399
    end
    local year, month, day = civil(days)
    local hour = floor(rest / 3600)
    local minute = floor(rest / 60) % 60
    return year, month, day, hour, minute, rest % 60, WEEK[(days + 4) % 7]
end

-- What is left of a Lua number that was converted to C's long and read by nginx, for which there
-- is nothing before 1970; out of range of a long is the most negative one.
local function whole(seconds)
    if seconds >= 0 and seconds < 2 ^ 63 then
        return floor(seconds)
    end
    return 0
end

local function http_time(seconds)
    local year, month, day, hour, minute, second, week = split(seconds)
    return format("%s, %02d %s %4d %02d:%02d:%02d GMT", week, day, MONTHS[month], year, hour,
        minute, second)
end

local http_second, http_text

--- The Date header's format; made once for the current second.
function rt.http_time(seconds)
    seconds = whole(seconds)
    if seconds ~= http_second then
        http_second, http_text = seconds, http_time(seconds)
    end
    return http_text
end

function ngx.http_time(seconds)
    if type(seconds) ~= "number" then
        error("number argument only", 2)
    end
    return (http_time(whole(seconds)))
end

function ngx.cookie_time(seconds)
    if type(seconds) ~= "number" then
        error("number argument only", 2)
    end
    local year, month, day, hour, minute, second, week = split(whole(seconds))
    if year <= 2037 then
        year = year % 100
    end
    return format("%s, %02d-%s-%02d %02d:%02d:%02d GMT", week, day, MONTHS[month], year, hour,
        minute, second)
end

local local_second, local_text, utc_second, utc_text

local function localtime()
    local seconds = floor(now())
    if seconds ~= local_second then
        local_second, local_text = seconds, date("%Y-%m-%d %H:%M:%S", seconds)
    end
    return local_text
end

function ngx.localtime()
    return (localtime())
end

function ngx.today()
    return localtime():sub(1, 10)
end

function ngx.utctime()
    local seconds = floor(now())
    if seconds ~= utc_second then
        utc_second, utc_text = seconds, date("!%Y-%m-%d %H:%M:%S", seconds)
    end
    return utc_text
end

-- Reading dates -------------------------------------------------------------------------
--
-- As lenient as nginx: the name of the day is not looked at, a month is told by the letters that
-- tell it apart, and what stands behind the seconds (or the year, in asctime's format) is free.

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function digits(s, at, count)
    local value = 0
    for i = at, at + count - 1 do
        local c = byte(s, i)
        if not c or c < 48 or c > 57 then
            return nil
        end
        value = value * 10 + (c - 48)
    end
    return value
end

local function month_at(s, at)
    local first, second, third = byte(s, at, at + 2)
    if first == 74 then -- J
        return second == 97 and 1 or third == 110 and 6 or 7
    elseif first == 70 then
        return 2
    elseif first == 77 then -- M
        return third == 114 and 3 or 5
    elseif first == 65 then -- A
        return second == 112 and 4 or 8
    elseif first == 83 then
        return 9
    elseif first == 79 then
        return 10
    elseif first == 78 then
        return 11
    elseif first == 68 then
        return 12
    end
end

-- In C's unsigned 64-bit arithmetic, because the year 0 wraps round in it.
local u64 = ffi.typeof("uint64_t")

local function epoch(year, month, day, seconds)
    year = u64(year)
    month = month - 2
    if month <= 0 then
        month = month + 12
        year = year - 1
    end
    local days = 365 * year + year / 4 - year / 100 + year / 400
        + (floor(367 * month / 12) - 30 + day - 1 - 719527 + 31 + 28)
    return tonumber(ffi.cast("int64_t", days * 86400 + seconds))
end

local function parse_http_time(s)
    local size = #s
    local asctime = false
    local at = 1
    while at <= size do
        local c = byte(s, at)
        if c == 44 then
            break
        elseif c == 32 then
            asctime = true
            break
        end
        at = at + 1
    end
    at = at + 1
    while byte(s, at) == 32 do
        at = at + 1
    end
    if size - at + 1 < 18 then
        return nil
    end

    local year, month, day
    if asctime then
        month = month_at(s, at)
        at = at + 4
        if byte(s, at) == 32 then
            at = at + 1
        end
        day = digits(s, at, 1)
        at = at + 1
        if day and byte(s, at) ~= 32 then
            local low = digits(s, at, 1)
            day = low and day * 10 + low
            at = at + 1
        end
        if not month or not day or size - at + 1 < 14 then
            return nil
        end
    else
        day = digits(s, at, 2)
        local separator = byte(s, at + 2)
        if not day or (separator ~= 32 and separator ~= 45) then
            return nil
        end
        month = month_at(s, at + 3)
        if not month or byte(s, at + 6) ~= separator then
            return nil
        end
        at = at + 7
        if separator == 32 then
            year = digits(s, at, 4)
            at = at + 4
        else
            year = digits(s, at, 2)
            year = year and (year < 70 and year + 2000 or year + 1900)
            at = at + 2
        end
        if not year then
            return nil
        end
    end

    local hour, minute, second = digits(s, at + 1, 2), digits(s, at + 4, 2), digits(s, at + 7, 2)
    if byte(s, at) ~= 32 or byte(s, at + 3) ~= 58 or byte(s, at + 6) ~= 58
        or not hour or not minute or not second
        or hour > 23 or minute > 59 or second > 59
    then
        return nil
    end
    if asctime then
        year = digits(s, at + 10, 4)
        if not year or byte(s, at + 9) ~= 32 then
            return nil
        end
    end

    if day == 29 and month == 2 then
        if year % 4 ~= 0 or (year % 100 == 0 and year % 400 ~= 0) then
            return nil
        end
    elseif day > DAYS[month] then
        return nil
    end
    local t = epoch(year, month, day, hour * 3600 + minute * 60 + second)
    -- nginx's word for "cannot be read", and so unusable for one second of 1969.
    if t == -1 then
        return nil
    end
    return t
end

rt.parse_http_time = parse_http_time

function ngx.parse_http_time(s)
    if type(s) ~= "string" then
        error("string argument only", 2)
    end
    return (parse_http_time(s))
end
