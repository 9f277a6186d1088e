-- JSON with the interface, the texts and the leniency of OpenResty's lua-cjson, in Lua.
--
-- A JSON text ends at its first NUL byte, numbers are whatever strtod takes, strings may hold
-- raw control characters and invalid UTF-8: all as in lua-cjson, because programs came to
-- depend on it. Differences: an encoded string is built in Lua memory, so there is no
-- buffer to free; light userdata other than null and empty_array cannot be told from full
-- userdata and is refused.
--
-- The scanners are byte loops and plain finds, which LuaJIT compiles (patterns it does not).
-- Errors look for their level on the stack instead of being handed up, so the way down is free.

local rt = require "trio_lua.rt"
local bit = require "bit"
local ffi = require "ffi"
local str_buf = require "string.buffer"

local null = rt.ngx.null
local arg_error = rt.arg_error
local error, next, pcall, select, tonumber, type = error, next, pcall, select, tonumber, type
local setmetatable, getinfo, getmetatable = setmetatable, debug.getinfo, debug.getmetatable
local byte, char, find, format, lower, match, sub =
    string.byte, string.char, string.find, string.format, string.lower, string.match, string.sub
local floor, min = math.floor, math.min
local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local rawequal, rawget, tostring = rawequal, rawget, tostring

local INT_MAX = 2147483647

-- What the settings cannot raise: lua-cjson runs out of C stack slots near these depths, and the
-- functions below, which recurse, out of Lua stack behind them.
local ENCODE_LIMIT, DECODE_LIMIT = 2000, 2600

-- A light userdata that is no object's address; the buffer format's tag for 32-bit addresses.
local empty_array = str_buf.decode("\4\1\0\0\0")

-- One pair for all instances, also after package.loaded was cleared.
rt.json_metatables = rt.json_metatables or { array = {}, empty_array = {} }
local array_mt = rt.json_metatables.array
local empty_array_mt = rt.json_metatables.empty_array

-- Raise for the caller of an instance's public function, however deep we are below it.
local function fail(public, message)
    local level = 2
    local info = getinfo(level, "f")
    while info and info.func ~= public do
        level = level + 1
        info = getinfo(level, "f")
    end
    error(message, level + 1)
end

-- Encoding ------------------------------------------------------------------------------

-- What to write behind a backslash: 0 the byte itself without one, "u" as \u00XX.
local function escapes(slash)
    local map = ffi.new("uint8_t[256]")
    for c = 0, 31 do
        map[c] = byte("u")
    end
    map[127] = byte("u")
    for from, to in next, { ["\b"] = "b", ["\t"] = "t", ["\n"] = "n", ["\f"] = "f", ["\r"] = "r",
        ['"'] = '"', ["\\"] = "\\" } do
        map[byte(from)] = byte(to)
    end
    if slash then
        map[byte("/")] = byte("/")
    end
    return map
end

local ESCAPE_SLASH, KEEP_SLASH = escapes(true), escapes(false)
local HEX = ffi.new("uint8_t[16]", { byte("0123456789abcdef", 1, 16) })

local function put_escaped(buf, s, map)
    local size = #s
    local out = buf:reserve(size * 6 + 2)
    out[0] = 34
    local at = 1
    for i = 1, size do
        local c = byte(s, i)
        local e = map[c]
        if e == 0 then
            out[at] = c
            at = at + 1
        elseif e == 117 then
            out[at], out[at + 1], out[at + 2], out[at + 3] = 92, 117, 48, 48
            out[at + 4], out[at + 5] = HEX[rshift(c, 4)], HEX[band(c, 15)]
            at = at + 6
        else
            out[at], out[at + 1] = 92, e
            at = at + 2
        end
    end
    out[at] = 34
    buf:commit(at + 1)
end

local function put_string(buf, s, map)
    for i = 1, #s do
        if map[byte(s, i)] ~= 0 then
            put_escaped(buf, s, map)
            return
        end
    end
    buf:put('"', s, '"')
end

local function refuse(cfg, value, reason)
    fail(cfg.encode, "Cannot serialise " .. type(value) .. ": " .. reason)
end

local function put_number(buf, cfg, n)
    if n ~= n or n == 1 / 0 or n == -1 / 0 then
        local how = cfg.invalid_out
        if how == "off" then
            refuse(cfg, n, "must not be NaN or Infinity")
        elseif how == "null" then
            buf:put("null")
        else
            buf:put(n ~= n and "NaN" or n > 0 and "Infinity" or "-Infinity")
        end
    elseif cfg.precision == 14 then
        buf:put(n)
    else
        buf:put(format(cfg.number_format, n))
    end
end

-- Number of elements, or -1 for what has to become an object.
local function array_length(cfg, t)
    local max, items = 0, 0
    for key in next, t do
        if type(key) ~= "number" or key < 1 or floor(key) ~= key then
            return -1
        end
        if key > max then
            -- what an int of C holds after the assignment
            max = key <= INT_MAX and key or -INT_MAX - 1
        end
        items = items + 1
    end
    local ratio = cfg.sparse_ratio
    if ratio > 0 and max > items * ratio and max > cfg.sparse_safe then
        if not cfg.sparse_convert then
            refuse(cfg, t, "excessively sparse array")
        end
        return -1
    end
    return max
end

local UNSUPPORTED = { ["function"] = true, thread = true, cdata = true, userdata = true }

local function skipped(cfg, value)
    return cfg.skip_unsupported and UNSUPPORTED[type(value)] and value ~= null
        and value ~= empty_array
end

local put_table

local function put_value(buf, cfg, value, depth)
    local kind = type(value)
    if kind == "string" then
        put_string(buf, value, cfg.escapes)
    elseif kind == "number" then
        put_number(buf, cfg, value)
    elseif kind == "table" then
        put_table(buf, cfg, value, depth)
    elseif kind == "boolean" then
        buf:put(value and "true" or "false")
    elseif value == nil or rawequal(value, null) then
        buf:put("null")
    elseif rawequal(value, empty_array) then
        buf:put("[]")
    else
        refuse(cfg, value, "type not supported")
    end
end

local function put_array(buf, cfg, t, depth, length, raw)
    buf:put("[")
    local first = true
    for i = 1, length do
        local value
        if raw then
            value = rawget(t, i)
        else
            value = t[i]
        end
        if not skipped(cfg, value) then
            if first then
                first = false
            else
                buf:put(",")
            end
            put_value(buf, cfg, value, depth)
        end
    end
    buf:put("]")
end

local function put_object(buf, cfg, t, depth)
    buf:put("{")
    local first = true
    for key, value in next, t do
        local kind = type(key)
        if kind ~= "string" and kind ~= "number" then
            refuse(cfg, key, "table key must be a number or string")
        end
        if not skipped(cfg, value) then
            if first then
                first = false
            else
                buf:put(",")
            end
            if kind == "string" then
                put_string(buf, key, cfg.escapes)
            else
                buf:put('"')
                put_number(buf, cfg, key)
                buf:put('"')
            end
            buf:put(":")
            put_value(buf, cfg, value, depth)
        end
    end
    buf:put("}")
end

function put_table(buf, cfg, t, depth)
    depth = depth + 1
    if depth > cfg.encode_max_depth or depth > ENCODE_LIMIT then
        fail(cfg.encode, "Cannot serialise, excessive nesting (" .. depth .. ")")
    end

    local mt = getmetatable(t)
    if mt == array_mt then
        put_array(buf, cfg, t, depth, #t, true)
        return
    end
    local len = mt and rawget(mt, "__len")
    if len then
        put_array(buf, cfg, t, depth, floor(tonumber((len(t))) or 0), false)
        return
    end

    local length = array_length(cfg, t)
    if length > 0 or (length == 0 and not cfg.empty_as_object) then
        put_array(buf, cfg, t, depth, length, not mt)
    elseif mt and mt == empty_array_mt then
        put_array(buf, cfg, t, depth, #t, true)
    else
        put_object(buf, cfg, t, depth)
    end
end

-- The buffer is taken away while it is in use: a metamethod may encode, too.
local function encode_with(cfg, value)
    local buf = cfg.buffer
    cfg.buffer = nil
    if buf then
        buf:reset()
    else
        buf = str_buf.new()
    end
    if not skipped(cfg, value) then
        put_value(buf, cfg, value, 0)
    end
    local text = buf:tostring()
    if cfg.keep_buffer then
        cfg.buffer = buf
    end
    return text
end

-- Decoding ------------------------------------------------------------------------------

-- Registers of the decode that runs; no user code runs meanwhile.
local public, lenient, with_mt, max_depth
-- Place of the next backslash at or behind the string being read, past the end if none.
local backslash

local POW10 = ffi.new("double[16]")
for i = 0, 15 do
    POW10[i] = 10 ^ i
end

-- Byte after white space, and where it is; 0 at the end.
local function skip(s, pos)
    local c = byte(s, pos) or 0
    while c == 32 or c == 10 or c == 13 or c == 9 do
        pos = pos + 1
        c = byte(s, pos) or 0
    end
    return c, pos
end

-- LuaJIT reads no exponents beyond 65535; all these numbers are zero or infinite.
local function clamp(exponent)
    local mark, sign, digits = match(exponent, "^(.)([+-]?)0*(%d*)$")
    if #digits > 4 then
        digits = "9999"
    end
    return mark .. sign .. "0" .. digits
end

-- strtod for what starts at pos: value and the position behind it, or nil.
local function slow_number(s, pos)
    local at = pos
    local sign = byte(s, at)
    if sign == 45 or sign == 43 then
        at = at + 1
    end
    local value, last
    local word = lower(sub(s, at, at + 7))
    if sub(word, 1, 3) == "inf" then
        value, last = 1 / 0, at + (word == "infinity" and 7 or 2)
    elseif sub(word, 1, 3) == "nan" then
        local payload = select(2, find(s, "^%([%w_]*%)", at + 3))
        value, last = 0 / 0, payload or at + 2
    else
        local mantissa = match(s, "^0[xX]%x+%.?%x*", at) or match(s, "^0[xX]%.%x+", at)
        local exponent
        if mantissa then
            exponent = match(s, "^[pP][+-]?%d+", at + #mantissa)
        else
            mantissa = match(s, "^%d+%.?%d*", at) or match(s, "^%.%d+", at)
            if not mantissa then
                return nil
            end
            exponent = match(s, "^[eE][+-]?%d+", at + #mantissa)
        end
        last = at + #mantissa + #(exponent or "") - 1
        value = tonumber(mantissa .. (exponent and clamp(exponent) or ""))
    end
    if sign == 45 then
        value = -value
    end
    return value, last + 1
end

-- Numbers that are not JSON although strtod takes them.
local function not_json(s, pos)
    local c = byte(s, pos)
    if c == 43 then
        return true
    end
    if c == 45 then
        pos = pos + 1
        c = byte(s, pos) or 0
    end
    if c == 48 then
        return find(s, "^[xX%d]", pos + 1) ~= nil
    end
    if c <= 57 then
        return false
    end
    local word = lower(sub(s, pos, pos + 2))
    return word == "inf" or word == "nan"
end

local function hex4(s, pos)
    local digits = match(s, "^%x%x%x%x", pos)
    return digits and tonumber(digits, 16)
end

local function utf8(code)
    if code < 0x80 then
        return char(code)
    elseif code < 0x800 then
        return char(bor(0xc0, rshift(code, 6)), bor(0x80, band(code, 63)))
    elseif code < 0x10000 then
        return char(bor(0xe0, rshift(code, 12)), bor(0x80, band(rshift(code, 6), 63)),
            bor(0x80, band(code, 63)))
    end
    return char(bor(0xf0, rshift(code, 18)), bor(0x80, band(rshift(code, 12), 63)),
        bor(0x80, band(rshift(code, 6), 63)), bor(0x80, band(code, 63)))
end

local UNESCAPE = {
    [34] = '"', [92] = "\\", [47] = "/", [98] = "\b", [116] = "\t", [110] = "\n", [102] = "\f",
    [114] = "\r",
}

local pieces = str_buf.new()

-- A string that may hold escapes, from behind its opening quote: text and the position behind
-- the closing one, or nil, what is wrong and where.
local function slow_string(s, pos)
    pieces:reset()
    while true do
        local at = find(s, '["\\]', pos)
        if not at then
            return nil, "unexpected end of string", #s + 1
        end
        pieces:put(sub(s, pos, at - 1))
        if byte(s, at) == 34 then
            return pieces:tostring(), at + 1
        end
        local c = byte(s, at + 1) or 0
        local plain = UNESCAPE[c]
        if plain then
            pieces:put(plain)
            pos = at + 2
        elseif c == 117 then
            local code = hex4(s, at + 2)
            pos = at + 6
            if code and band(code, 0xf800) == 0xd800 then
                local low = code < 0xdc00 and find(s, "^\\u", pos) and hex4(s, pos + 2)
                if low and band(low, 0xfc00) == 0xdc00 then
                    code = 0x10000 + lshift(band(code, 0x3ff), 10) + band(low, 0x3ff)
                    pos = pos + 6
                else
                    code = nil
                end
            end
            if not code then
                return nil, "invalid unicode escape code", at
            end
            pieces:put(utf8(code))
        else
            return nil, "invalid escape code", at
        end
    end
end

local PUNCTUATION = {
    [123] = "T_OBJ_BEGIN", [125] = "T_OBJ_END", [91] = "T_ARR_BEGIN", [93] = "T_ARR_END",
    [44] = "T_COMMA", [58] = "T_COLON", [0] = "T_END",
}

local function token_name(s, c, pos)
    local name = PUNCTUATION[c]
    if name then
        return name, pos
    end
    if c == 34 then
        local text, problem, at = slow_string(s, pos + 1)
        if not text then
            return problem, at
        end
        return "T_STRING", pos
    elseif c == 45 or (c >= 48 and c <= 57) then
        if (not lenient and not_json(s, pos)) or not slow_number(s, pos) then
            return "invalid number", pos
        end
        return "T_NUMBER", pos
    elseif find(s, "^true", pos) or find(s, "^false", pos) then
        return "T_BOOLEAN", pos
    elseif find(s, "^null", pos) then
        return "T_NULL", pos
    elseif lenient and find(s, "^[iInN+]", pos) and not_json(s, pos) then
        return slow_number(s, pos) and "T_NUMBER" or "invalid number", pos
    end
    return "invalid token", pos
end

local function unexpected(s, expected, pos)
    local c
    c, pos = skip(s, pos)
    local found, at = token_name(s, c, pos)
    fail(public, "Expected " .. expected .. " but found " .. found .. " at character " .. at)
end

local function read_string(s, pos, expected)
    if backslash < pos then
        backslash = find(s, "\\", pos, true) or #s + 1
    end
    local quote = find(s, '"', pos, true)
    if quote and quote < backslash then
        return sub(s, pos, quote - 1), quote + 1
    end
    local text, behind = slow_string(s, pos)
    if not text then
        unexpected(s, expected, pos - 1)
    end
    return text, behind
end

-- Up to 15 digits and a power of ten up to 10^15 are exact in a double, and so is one rounding
-- of their quotient; all other numbers take the long way.
local function read_number(s, pos, c)
    if not lenient and not_json(s, pos) then
        unexpected(s, "value", pos)
    end
    local at, negative = pos, false
    if c == 45 then
        negative = true
        at = at + 1
        c = byte(s, at) or 0
    end
    local value, from, fraction = 0, at, 0
    while c >= 48 and c <= 57 do
        value = value * 10 + (c - 48)
        at = at + 1
        c = byte(s, at) or 0
    end
    local digits = at - from
    if digits ~= 0 then
        if c == 46 then
            from = at + 1
            repeat
                at = at + 1
                c = byte(s, at) or 0
                if c < 48 or c > 57 then
                    break
                end
                value = value * 10 + (c - 48)
            until false
            fraction = at - from
            digits = digits + fraction
        end
        if digits <= 15 and c ~= 101 and c ~= 69 and c ~= 120 and c ~= 88 then
            if fraction ~= 0 then
                value = value / POW10[fraction]
            end
            if negative then
                value = -value
            end
            return value, at
        end
    end
    local exact, behind = slow_number(s, pos)
    if not exact then
        unexpected(s, "value", pos)
    end
    return exact, behind
end

local read_array, read_object

local function read_value(s, c, pos, depth)
    if c == 34 then
        return read_string(s, pos + 1, "value")
    elseif c == 123 then
        return read_object(s, pos + 1, depth + 1)
    elseif c == 91 then
        return read_array(s, pos + 1, depth + 1)
    elseif c == 45 or (c >= 48 and c <= 57) then
        return read_number(s, pos, c)
    elseif c == 116 then
        local _, u, e, last = byte(s, pos, pos + 3)
        if _ and u == 114 and e == 117 and last == 101 then
            return true, pos + 4
        end
    elseif c == 102 then
        if sub(s, pos, pos + 4) == "false" then
            return false, pos + 5
        end
    elseif c == 110 then
        if sub(s, pos, pos + 3) == "null" then
            return null, pos + 4
        end
    end
    if lenient and (c == 110 or c == 78 or c == 105 or c == 73 or c == 43) and not_json(s, pos) then
        local value, behind = slow_number(s, pos)
        if value then
            return value, behind
        end
    end
    unexpected(s, "value", pos)
end

local function too_deep(depth, pos)
    fail(public, "Found too many nested data structures (" .. depth .. ") at character " .. pos)
end

function read_array(s, pos, depth)
    if depth > max_depth then
        too_deep(depth, pos - 1)
    end
    local array, count = {}, 0
    if with_mt then
        setmetatable(array, array_mt)
    end
    local c
    c, pos = skip(s, pos)
    if c == 93 then
        return array, pos + 1
    end
    while true do
        local value
        value, pos = read_value(s, c, pos, depth)
        count = count + 1
        array[count] = value
        c, pos = skip(s, pos)
        if c == 93 then
            return array, pos + 1
        end
        if c ~= 44 then
            unexpected(s, "comma or array end", pos)
        end
        c, pos = skip(s, pos + 1)
    end
end

function read_object(s, pos, depth)
    if depth > max_depth then
        too_deep(depth, pos - 1)
    end
    local object = {}
    local c
    c, pos = skip(s, pos)
    if c == 125 then
        return object, pos + 1
    end
    while true do
        if c ~= 34 then
            unexpected(s, "object key string", pos)
        end
        local key, value
        key, pos = read_string(s, pos + 1, "object key string")
        c, pos = skip(s, pos)
        if c ~= 58 then
            unexpected(s, "colon", pos)
        end
        c, pos = skip(s, pos + 1)
        value, pos = read_value(s, c, pos, depth)
        object[key] = value
        c, pos = skip(s, pos)
        if c == 125 then
            return object, pos + 1
        end
        if c ~= 44 then
            unexpected(s, "comma or object end", pos)
        end
        c, pos = skip(s, pos + 1)
    end
end

local function decode_with(cfg, s)
    public, lenient, with_mt = cfg.decode, cfg.invalid_in, cfg.array_mt
    max_depth = min(cfg.decode_max_depth, DECODE_LIMIT)
    local nul = find(s, "\0", 1, true)
    if nul then
        if nul <= 2 and #s >= 2 then
            fail(public, "JSON parser does not support UTF-16 or UTF-32")
        end
        s = sub(s, 1, nul - 1)
    end
    backslash = 0

    local c, pos = skip(s, 1)
    local value
    value, pos = read_value(s, c, pos, 0)
    c, pos = skip(s, pos)
    if c ~= 0 then
        unexpected(s, "the end", pos)
    end
    return value
end

-- Instances -----------------------------------------------------------------------------

-- For these two, the function that the user called is their caller.
local function check_count(count, max)
    if count > max then
        arg_error(max + 1, "found too many arguments", 2)
    end
end

local function integer_option(cfg, name, index, value, min, max)
    if value ~= nil then
        local n = type(value) ~= "cdata" and tonumber(value)
        if not n then
            arg_error(index, "number expected, got " .. type(value), 2)
        end
        n = n >= 0 and floor(n) or -floor(-n)
        if not (n >= min and n <= max) then
            arg_error(1, "expected integer between " .. min .. " and " .. max, 2)
        end
        cfg[name] = n
    end
end

local BOOLEAN = { off = false, on = true }
local INVALID = { off = "off", on = "on", null = "null", [true] = "on", [false] = "off" }

local function enum_option(cfg, name, value, options)
    if value == nil then
        return
    end
    local kind, setting = type(value), nil
    if kind == "boolean" then
        setting = options[value]
        if setting == nil then
            setting = value
        end
    elseif kind == "string" or kind == "number" then
        setting = options[tostring(value)]
        if setting == nil then
            arg_error(1, "invalid option '" .. value .. "'", 2)
        end
    else
        arg_error(1, "string expected, got " .. kind, 2)
    end
    cfg[name] = setting
end

local function new_instance()
    local cfg = {
        sparse_convert = false, sparse_ratio = 2, sparse_safe = 10,
        encode_max_depth = 1000, decode_max_depth = 1000,
        invalid_out = "off", invalid_in = true,
        precision = 14, number_format = "%.14g",
        keep_buffer = true, empty_as_object = true, skip_unsupported = false,
        array_mt = false, slash = true, escapes = ESCAPE_SLASH,
    }
    local _M = {
        _NAME = "cjson", _VERSION = "2.1.0.11",
        null = null, empty_array = empty_array,
        array_mt = array_mt, empty_array_mt = empty_array_mt,
    }

    function _M.encode(...)
        if select("#", ...) ~= 1 then
            arg_error(1, "expected 1 argument")
        end
        local text = encode_with(cfg, (...))
        return text
    end

    function _M.decode(...)
        if select("#", ...) ~= 1 then
            arg_error(1, "expected 1 argument")
        end
        local s = ...
        if type(s) ~= "string" then
            if type(s) ~= "number" then
                arg_error(1, "string expected, got " .. type(s))
            end
            s = tostring(s)
        end
        local value = decode_with(cfg, s)
        return value
    end

    -- What errors look for on the stack.
    cfg.encode, cfg.decode = _M.encode, _M.decode

    function _M.encode_sparse_array(...)
        check_count(select("#", ...), 3)
        local convert, ratio, safe = ...
        enum_option(cfg, "sparse_convert", convert, BOOLEAN)
        integer_option(cfg, "sparse_ratio", 2, ratio, 0, INT_MAX)
        integer_option(cfg, "sparse_safe", 3, safe, 0, INT_MAX)
        return cfg.sparse_convert, cfg.sparse_ratio, cfg.sparse_safe
    end

    function _M.encode_max_depth(...)
        check_count(select("#", ...), 1)
        integer_option(cfg, "encode_max_depth", 1, (...), 1, INT_MAX)
        return cfg.encode_max_depth
    end

    function _M.decode_max_depth(...)
        check_count(select("#", ...), 1)
        integer_option(cfg, "decode_max_depth", 1, (...), 1, INT_MAX)
        return cfg.decode_max_depth
    end

    function _M.encode_number_precision(...)
        check_count(select("#", ...), 1)
        integer_option(cfg, "precision", 1, (...), 1, 16)
        cfg.number_format = "%." .. cfg.precision .. "g"
        return cfg.precision
    end

    function _M.encode_invalid_numbers(...)
        check_count(select("#", ...), 1)
        enum_option(cfg, "invalid_out", (...), INVALID)
        local how = cfg.invalid_out
        if how == "null" then
            return how
        end
        return how == "on"
    end

    function _M.encode_keep_buffer(...)
        check_count(select("#", ...), 1)
        enum_option(cfg, "keep_buffer", (...), BOOLEAN)
        cfg.buffer = nil
        return cfg.keep_buffer
    end

    function _M.encode_escape_forward_slash(...)
        check_count(select("#", ...), 1)
        enum_option(cfg, "slash", (...), BOOLEAN)
        cfg.escapes = cfg.slash and ESCAPE_SLASH or KEEP_SLASH
        return cfg.slash
    end

    for name, setting in next, {
        encode_empty_table_as_object = "empty_as_object",
        encode_skip_unsupported_value_types = "skip_unsupported",
        decode_array_with_array_mt = "array_mt",
        decode_invalid_numbers = "invalid_in",
    } do
        _M[name] = function(...)
            check_count(select("#", ...), 1)
            enum_option(cfg, setting, (...), BOOLEAN)
            return cfg[setting]
        end
    end

    return _M
end

local function protect(f)
    return function(...)
        if select("#", ...) ~= 1 then
            arg_error(1, "expected 1 argument")
        end
        local ok, value = pcall(f, (...))
        if ok then
            return value
        end
        return nil, value
    end
end

local M = {}

--- A cjson module table with settings of its own.
function M.new()
    local instance = new_instance()
    instance.new = M.new
    return instance
end

--- The same with an encode and a decode that do not raise.
function M.new_safe()
    local instance = new_instance()
    instance.new = M.new_safe
    instance.encode, instance.decode = protect(instance.encode), protect(instance.decode)
    return instance
end

return M
