-- ngx.shared.NAME: arguments and results of its methods. The dictionary itself is trio_lua/shm/dict.lua.
--
-- What is returned, what is thrown and in which words is as in lua-resty-core and, for the lists, flush_expired and get_keys, as
-- in the Lua module.

local rt = ...

local bit = require "bit"

local dict, now, S = rt.dict, rt.now, rt.S
local get, store, incr, push, pop = dict.get, dict.store, dict.incr, dict.push, dict.pop
local BOOLEAN, NUMERIC, STRING = dict.BOOLEAN, dict.NUMERIC, dict.STRING
local ADD, REPLACE, SAFE = dict.ADD, dict.REPLACE, dict.SAFE
local error, type, tostring, tonumber, select, setmetatable = error, type, tostring, tonumber, select, setmetatable
local floor, ceil, tobit = math.floor, math.ceil, bit.tobit

local LONGEST_KEY = 65535
local DEFAULT_KEYS = 1024

local zones = {}
local methods = {}
methods.__index = methods

-- The small term keeps a time such as 1.234, which has no exact binary form, at 1234 ms.
local function milliseconds()
    return floor(now() * 1000 + 0.0005)
end

local function zone_of(object)
    return type(object) == "table" and zones[object[1]] or error('bad "zone" argument', 3)
end

-- A key as a string and its length; or nil and an error.
local function checked(key)
    if type(key) ~= "string" then
        if key == nil then
            return nil, "nil key"
        end
        key = tostring(key)
    end
    local size = #key
    if size == 0 then
        return nil, "empty key"
    elseif size > LONGEST_KEY then
        return nil, "key too long"
    end
    return key, size
end

-- A number as C's int; nil when it is none.
local function whole(number)
    if type(number) == "number" then
        return tobit(number < 0 and ceil(number) or floor(number))
    end
end

local function value_of(kind, value, flags)
    if kind == BOOLEAN then
        value = value ~= 0
    elseif kind ~= STRING and kind ~= NUMERIC then
        return nil, "value is a list"
    end
    if flags ~= 0 then
        return value, flags
    end
    return value
end

function methods.get(self, key)
    local z = zones[self] or zone_of(self)
    local size
    key, size = checked(key)
    if not key then
        return nil, size
    end
    local kind, value, flags = get(z, milliseconds(), key, size, false)
    if not kind then
        return nil
    end
    return value_of(kind, value, flags)
end

function methods.get_stale(self, key)
    local z = zones[self] or zone_of(self)
    local size
    key, size = checked(key)
    if not key then
        return nil, size
    end
    local kind, value, flags, expired = get(z, milliseconds(), key, size, true)
    if not kind then
        return nil
    end
    value, flags = value_of(kind, value, flags)
    if value == nil then
        return nil, flags
    end
    return value, flags, expired
end

local function set(op)
    return function(self, key, value, exptime, flags)
        local z = zones[self] or zone_of(self)
        if not exptime then
            exptime = 0
        elseif exptime < 0 then
            error('bad "exptime" argument', 2)
        end
        if not flags then
            flags = 0
        elseif flags ~= 0 then
            flags = whole(flags) or error("cannot convert '" .. type(flags) .. "' to 'int'", 2)
        end
        local size
        key, size = checked(key)
        if not key then
            return nil, size
        end
        local kind, number, text = type(value), 0, nil
        if kind == "string" then
            kind, text = STRING, value
        elseif kind == "number" then
            kind, number = NUMERIC, value
        elseif kind == "boolean" then
            kind, number = BOOLEAN, value and 1 or 0
        elseif value == nil then
            if op == ADD or op == REPLACE or op == ADD + SAFE then
                return false, "attempt to add or replace nil values", false
            end
            kind = nil
        else
            return nil, "bad value type"
        end
        local problem, forcible = store(z, milliseconds(), op, key, size, kind, number, text,
            floor(exptime * 1000), flags)
        if problem then
            return false, problem, forcible
        end
        return true, nil, forcible
    end
end

methods.set = set(0)
methods.safe_set = set(SAFE)
methods.add = set(ADD)
methods.safe_add = set(ADD + SAFE)
methods.replace = set(REPLACE)

local plain_set = methods.set
function methods.delete(self, key)
    return plain_set(self, key, nil)
end

function methods.incr(self, key, value, init, init_ttl)
    local z = zones[self] or zone_of(self)
    local size
    key, size = checked(key)
    if not key then
        return nil, size
    end
    if type(value) ~= "number" then
        value = tonumber(value)
        if not value then
            error("cannot convert 'nil' to 'double'", 2)
        end
    end
    if init then
        local kind = type(init)
        if kind ~= "number" then
            init = tonumber(init)
            if not init then
                error("bad init arg: number expected, got " .. kind, 2)
            end
        end
    end
    if init_ttl ~= nil then
        local kind = type(init_ttl)
        if kind ~= "number" then
            init_ttl = tonumber(init_ttl)
            if not init_ttl then
                error("bad init_ttl arg: number expected, got " .. kind, 2)
            end
        end
        if init_ttl < 0 then
            error('bad "init_ttl" argument', 2)
        end
        if not init then
            error('must provide "init" when providing "init_ttl"', 2)
        end
    else
        init_ttl = 0
    end
    local sum, problem, forcible = incr(z, milliseconds(), key, size, value, init or nil, floor(init_ttl * 1000))
    if problem then
        return nil, problem
    end
    if init then
        return sum, nil, forcible
    end
    return sum
end

function methods.ttl(self, key)
    local z = zones[self] or zone_of(self)
    local size
    key, size = checked(key)
    if not key then
        return nil, size
    end
    local expires = dict.expires(z, key, size)
    if not expires then
        return nil, "not found"
    elseif expires == 0 then
        return 0
    end
    return (expires - milliseconds()) / 1000
end

function methods.expire(self, key, exptime)
    local z = zones[self] or zone_of(self)
    if not exptime then
        error('bad "exptime" argument', 2)
    end
    local size
    key, size = checked(key)
    if not key then
        return nil, size
    end
    if dict.set_expires(z, milliseconds(), key, size, floor(exptime * 1000)) then
        return true
    end
    return nil, "not found"
end

function methods.flush_all(self)
    dict.flush_all(zones[self] or zone_of(self), milliseconds())
end

function methods.capacity(self)
    return (zones[self] or zone_of(self)).capacity
end

function methods.free_space(self)
    return dict.free_bytes(zones[self] or zone_of(self))
end

-- ------------------------------------------------------- methods that are C functions there

local function all_of(name)
    return function(...)
        local count = select("#", ...)
        if count ~= 1 and count ~= 2 then
            error("expecting 1 or 2 argument(s), but saw " .. count, 3)
        end
        local self, most = ...
        if type(self) ~= "table" then
            error("bad argument #1 to '" .. name .. "' (table expected, got " .. type(self) .. ")", 3)
        end
        local z = zones[self] or zones[self[1]] or error("bad user data for the ngx_shm_zone_t pointer", 3)
        if count == 1 then
            return z
        end
        return z, whole(tonumber(most))
            or error("bad argument #1 to '" .. name .. "' (number expected, got " .. type(most) .. ")", 3)
    end
end

local flush_arguments, keys_arguments = all_of "flush_expired", all_of "get_keys"

function methods.flush_expired(...)
    local z, most = flush_arguments(...)
    return dict.flush_expired(z, milliseconds(), most or 0)
end

function methods.get_keys(...)
    local z, most = keys_arguments(...)
    return dict.keys(z, milliseconds(), most or DEFAULT_KEYS)
end

-- Keys of the list methods are strings or numbers: the zone, the key and its length; or nil and an error.
local function list_arguments(name, expected, count, self, key)
    if count ~= expected then
        error("expecting " .. expected .. " arguments, but only seen " .. count, 3)
    end
    local z = zones[self] or type(self) == "table" and zones[self[1]] or error('bad "zone" argument', 3)
    local kind = type(key)
    if kind ~= "string" and kind ~= "number" and key ~= nil then
        error("bad argument #1 to '" .. name .. "' (string expected, got " .. kind .. ")", 3)
    end
    local text, size = checked(key)
    if not text then
        return nil, size
    end
    return z, text, size
end

local function pusher(name, left)
    return function(...)
        local self, key, value = ...
        local z, size
        z, key, size = list_arguments(name, 3, select("#", ...), self, key)
        if not z then
            return nil, key
        end
        local kind = type(value)
        if kind ~= "string" and kind ~= "number" then
            return nil, "bad value type"
        end
        local is_text = kind == "string"
        local length, problem, no_list = push(z, milliseconds(), key, size, is_text and 0 or value,
            is_text and value or nil, left)
        if length then
            return length
        elseif no_list then
            return false, problem
        end
        return nil, problem
    end
end

methods.lpush, methods.rpush = pusher("lpush", true), pusher("rpush", false)

local function popper(name, left)
    return function(...)
        local self, key = ...
        local z, size
        z, key, size = list_arguments(name, 2, select("#", ...), self, key)
        if not z then
            return nil, key
        end
        local value, problem = pop(z, milliseconds(), key, size, left)
        if problem then
            return nil, problem
        end
        return value
    end
end

methods.lpop, methods.rpop = popper("lpop", true), popper("rpop", false)

function methods.llen(...)
    local self, key = ...
    local z, size
    z, key, size = list_arguments("llen", 2, select("#", ...), self, key)
    if not z then
        return nil, key
    end
    return dict.length(z, milliseconds(), key, size)
end

-- ------------------------------------------------------------------------- ngx.shared

local shared = {}
rawset(rt.ngx, "shared", shared)

local newproxy = newproxy
for name, address in pairs(rt.zones) do
    local z = dict.open(name, address)
    -- the first element is userdata, as libraries may expect
    local object = setmetatable({ newproxy() }, methods)
    zones[object], zones[object[1]] = z, z
    shared[name] = object
end

function dict.on_recovery(name, outcome)
    rt.raw_log(2, 'lua_shared_dict "' .. name .. '": an operation was not finished, as its process died; '
        .. (outcome == "intact" and "the dictionary is intact" or "the dictionary was damaged and has been emptied"))
end

-- For Python, between turns.
function rt.export.shared_call(name, method, ...)
    S.now = nil
    local object = shared[name]
    return object[method](object, ...)
end
