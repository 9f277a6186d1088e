-- Escaping, query arguments, checksums and digests: pure functions of ngx.*.
--
-- The byte loops run here, over strings and one shared FFI buffer, because they compile to
-- machine code and a call into Python costs more than escaping a short string. Digests go to
-- Python, whose hashlib and zlib are C.
--
-- For the other families: rt.escape, rt.unescape_uri, rt.encode_args, rt.decode_args,
-- rt.uri_args, rt.escape_args, rt.arg_error, rt.scratch, rt.visible.

local rt = ...

local ffi = require "ffi"
local bit = require "bit"
local new_tab = require "table.new"
local clear_tab = require "table.clear"
local str_buf = require "string.buffer"

local ngx, py = rt.ngx, rt.py
local error, next, select, tonumber, tostring, type = error, next, select, tonumber, tostring, type
local byte, format, gsub, sub = string.byte, string.format, string.gsub, string.sub
local getinfo = debug.getinfo
local floor = math.floor
local ffi_new, ffi_string = ffi.new, ffi.string
local band, bor, bxor, rshift = bit.band, bit.bor, bit.bxor, bit.rshift

local DEFAULT_MAX_ARGS = 100

-- Longer outputs get a buffer of their own, which the collector takes back.
local KEEP = 1048576

local scratch_size = 4096
local scratch = ffi_new("uint8_t[?]", scratch_size)

local function room(size)
    if size <= scratch_size then
        return scratch
    end
    if size > KEEP then
        return ffi_new("uint8_t[?]", size)
    end
    scratch_size = size * 2
    scratch = ffi_new("uint8_t[?]", scratch_size)
    return scratch
end
-- Bytes to write a result to, which the next call may give again.
rt.scratch = room

--- Raise what luaL_argerror would, for the function that called this one (level 2: its caller).
function rt.arg_error(index, message, level)
    level = (level or 1) + 1
    local info = getinfo(level, "n")
    local name = info and info.name or "?"
    if info and info.namewhat == "method" then
        index = index - 1
        if index == 0 then
            error("calling '" .. name .. "' on bad self (" .. message .. ")", level + 1)
        end
    end
    error("bad argument #" .. index .. " to '" .. name .. "' (" .. message .. ")", level + 1)
end

local arg_error = rt.arg_error

-- What functions that take "anything printable" do with their argument.
local function to_str(s)
    if not s then
        return ""
    end
    return tostring(s)
end

-- A text in a message, where what could be mistaken for something else is "\xHH".
function rt.visible(text)
    return (gsub(text, '[%z\1-\31"\\\127-\255]', function(c)
        return format("\\x%02X", byte(c))
    end))
end

-- Escaping ------------------------------------------------------------------------------

local HEX = ffi_new("uint8_t[16]", { byte("0123456789ABCDEF", 1, 16) })

-- Maps have 1 for the bytes that are escaped.
local CONTROLS, HIGH = "\0\31", "\128\255"
local escape_map = rt.byte_class

local function component_map()
    local map = rt.byte_class("AZaz09", "-._~!'()*")
    for code = 0, 255 do map[code] = 1 - map[code] end
    return map
end

local header_value = escape_map("\0\8\10\31", "\127")

-- By nginx's number of the place that the text is meant for.
local ESCAPE = {
    [0] = escape_map(CONTROLS .. HIGH, " #%?\127"), -- path
    escape_map(CONTROLS .. HIGH, " #%+?\127"), -- query string
    component_map(), -- part of a path or of a query argument
    escape_map(CONTROLS .. HIGH, " \"#%'\127"), -- HTML attribute
    escape_map(CONTROLS .. HIGH, " \"'\127"), -- Refresh
    escape_map(CONTROLS, " %"), -- memcached key
    escape_map(CONTROLS, " %"), -- mail auth
    escape_map(CONTROLS .. HIGH, " \"(),/:;<=>?@[\\]{}\127"), -- header name
    header_value,
}

local COMPONENT = ESCAPE[2]

local function escape(s, map)
    local size, extra = #s, 0
    for i = 1, size do
        extra = extra + map[byte(s, i)]
    end
    if extra == 0 then
        return s
    end

    local out = room(size + 2 * extra)
    local at = 0
    for i = 1, size do
        local c = byte(s, i)
        if map[c] == 0 then
            out[at] = c
            at = at + 1
        else
            out[at] = 37
            out[at + 1] = HEX[rshift(c, 4)]
            out[at + 2] = HEX[band(c, 15)]
            at = at + 3
        end
    end
    return ffi_string(out, at)
end

--- Escape for one of nginx's places: 0..6 as ngx.escape_uri, 7 header name, 8 header value.
function rt.escape(s, kind)
    return escape(s, ESCAPE[kind])
end

local ARGS = escape_map(CONTROLS, " \127")

--- Escape what may not stand in a request line; text that is escaped already stays as it is.
function rt.escape_args(s)
    return escape(s, ARGS)
end

function ngx.escape_uri(s, kind)
    if type(s) ~= "string" then
        s = to_str(s)
    end
    local map = COMPONENT
    if kind ~= nil then
        if type(kind) ~= "number" then
            error('"type" is not a number', 3)
        end
        if not (kind >= 0 and kind <= 6) then
            error('"type" ' .. kind .. " out of range", 3)
        end
        map = ESCAPE[floor(kind)]
    end
    return (escape(s, map))
end

-- Value of a hex digit, 255 for every other byte.
local UNHEX = ffi_new("uint8_t[256]")
ffi.fill(UNHEX, 256, 255)
for value = 0, 15 do
    UNHEX[byte(("%x"):format(value))] = value
    UNHEX[byte(("%X"):format(value))] = value
end

local function unescape(s)
    local size = #s
    local out = room(size)
    local at, i = 0, 1
    while i <= size do
        local c = byte(s, i)
        if c == 43 then
            c = 32
        elseif c == 37 and i + 2 <= size then
            local high, low = UNHEX[byte(s, i + 1)], UNHEX[byte(s, i + 2)]
            if bor(high, low) < 16 then
                c = high * 16 + low
                i = i + 2
            end
        end
        out[at] = c
        at = at + 1
        i = i + 1
    end
    return ffi_string(out, at)
end

rt.unescape_uri = unescape

function ngx.unescape_uri(s)
    if type(s) ~= "string" then
        s = to_str(s)
    end
    return (unescape(s))
end

-- Query arguments -----------------------------------------------------------------------

local joined = str_buf.new()

--- Query string from a table, or nil and the message to raise.
local function encode_args(args)
    joined:reset()
    local first = true
    for key, value in next, args do
        if type(key) ~= "string" then
            return nil, 'attempt to use a non-string key in the "args" option table'
        end
        local kind = type(value)
        if kind == "string" or kind == "number" then
            joined:put(first and "" or "&", escape(key, COMPONENT), "=",
                escape(tostring(value), COMPONENT))
            first = false
        elseif kind == "boolean" then
            if value then
                joined:put(first and "" or "&", escape(key, COMPONENT))
                first = false
            end
        elseif kind == "table" then
            local name = escape(key, COMPONENT)
            for _, item in next, value do
                local item_kind = type(item)
                if item_kind == "string" or item_kind == "number" then
                    joined:put(first and "" or "&", name, "=",
                        escape(tostring(item), COMPONENT))
                    first = false
                elseif item_kind ~= "boolean" then
                    return nil, "attempt to use " .. item_kind .. " as query arg value"
                elseif item then
                    joined:put(first and "" or "&", name)
                    first = false
                end
            end
        else
            return nil, "attempt to use " .. kind .. " as query arg value"
        end
    end
    return joined:tostring()
end

rt.encode_args = encode_args

function ngx.encode_args(...)
    local count = select("#", ...)
    if count ~= 1 then
        error("expecting 1 argument but seen " .. count, 2)
    end
    local args = ...
    if type(args) ~= "table" then
        arg_error(1, "table expected, got " .. type(args))
    end
    local text, message = encode_args(args)
    if not text then
        error(message, 2)
    end
    return text
end

local function add(tab, key, value)
    local existing = tab[key]
    if existing == nil then
        tab[key] = value
    elseif type(existing) == "table" then
        existing[#existing + 1] = value
    else
        tab[key] = { existing, value }
    end
end

local function part(s, from, to, escaped)
    local text = sub(s, from, to)
    if escaped then
        return (unescape(text))
    end
    return text
end

-- Both limits cut at a separator. ngx.decode_args counts separators; ngx.req.get_uri_args
-- counts the keys that it keeps, and reports "truncated" when there were more pairs than that.
local function parse(s, max, tab, count_keys)
    local from, key, escaped = 1, false, false
    local separators, kept = 0, 0
    for i = 1, #s do
        local c = byte(s, i)
        if c == 38 then
            local text = part(s, from, i - 1, escaped)
            local name, value = text, true
            if key then
                name, value = key, text
            end
            if name ~= "" then
                add(tab, name, value)
                kept = kept + 1
            end
            from, key, escaped = i + 1, false, false
            separators = separators + 1
            if max > 0 and (count_keys and kept or separators) == max then
                return tab, "truncated"
            end
        elseif c == 61 and not key then
            key = part(s, from, i - 1, escaped)
            from, escaped = i + 1, false
        elseif c == 37 or c == 43 then
            escaped = true
        end
    end

    if key then
        if key ~= "" then
            add(tab, key, part(s, from, -1, escaped))
        end
    elseif from <= #s then
        add(tab, part(s, from, -1, escaped), true)
    end
    if count_keys and max > 0 and separators >= max then
        return tab, "truncated"
    end
    return tab
end

--- ngx.decode_args and ngx.req.get_post_args: no limit when max is 0 or less.
function rt.decode_args(s, max, tab)
    if tab then
        clear_tab(tab)
    end
    return parse(s, max or DEFAULT_MAX_ARGS, tab or new_tab(0, 4), false)
end

--- ngx.req.get_uri_args: no limit when max is 0, the default one when it is less.
function rt.uri_args(s, max, tab)
    if tab then
        clear_tab(tab)
    end
    max = max and floor(tonumber(max)) or -1
    if max < 0 then
        max = DEFAULT_MAX_ARGS
    end
    return parse(s, max, tab or new_tab(0, 4), true)
end

function ngx.decode_args(...)
    local count = select("#", ...)
    if count ~= 1 and count ~= 2 then
        error("expecting 1 or 2 arguments but seen " .. count, 2)
    end
    local s, max = ...
    if type(s) ~= "string" then
        if type(s) ~= "number" then
            arg_error(1, "string expected, got " .. type(s))
        end
        s = tostring(s)
    end
    if count == 1 then
        max = DEFAULT_MAX_ARGS
    else
        local number = type(max) ~= "cdata" and tonumber(max)
        if not number then
            arg_error(2, "number expected, got " .. type(max))
        end
        max = floor(number)
    end
    return parse(s, max, new_tab(0, 4), false)
end

-- Checksums and digests -----------------------------------------------------------------

-- By byte; made when it is first needed.
local CRC = ffi_new("int32_t[256]")

local function make_crc()
    for value = 0, 255 do
        local crc = value
        for _ = 1, 8 do
            crc = bxor(rshift(crc, 1), band(crc, 1) * 0xedb88320)
        end
        CRC[value] = bit.tobit(crc)
    end
end

-- Below this length the loop is done before Python would have been entered.
local CRC_SHORT = 256

local function crc32(s)
    if type(s) ~= "string" then
        s = to_str(s)
    end
    local size = #s
    if size > CRC_SHORT then
        return (py.crc32(s))
    end
    if CRC[1] == 0 then
        make_crc()
    end
    local crc = -1
    for i = 1, size do
        crc = bxor(rshift(crc, 8), CRC[band(bxor(crc, byte(s, i)), 255)])
    end
    return bxor(crc, -1) % 4294967296
end

ngx.crc32_short = crc32
ngx.crc32_long = crc32

for _, name in next, { "md5", "md5_bin", "sha1_bin" } do
    local digest = py[name]
    ngx[name] = function(s)
        if type(s) ~= "string" then
            s = to_str(s)
        end
        return (digest(s))
    end
end

function ngx.hmac_sha1(...)
    local count = select("#", ...)
    if count ~= 2 then
        error("expecting 2 arguments, but got " .. count, 2)
    end
    local key, s = ...
    if type(key) ~= "string" and type(key) ~= "number" then
        arg_error(1, "string expected, got " .. type(key))
    end
    if type(s) ~= "string" and type(s) ~= "number" then
        arg_error(2, "string expected, got " .. type(s))
    end
    return (py.hmac_sha1(tostring(key), tostring(s)))
end

-- SQL -----------------------------------------------------------------------------------

local SQL = {
    ["\0"] = "\\0", ["\b"] = "\\b", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
    ["\26"] = "\\Z", ["\\"] = "\\\\", ["'"] = "\\'", ['"'] = '\\"',
}

function ngx.quote_sql_str(...)
    if select("#", ...) ~= 1 then
        error("expecting one argument", 2)
    end
    local s = ...
    if type(s) ~= "string" and type(s) ~= "number" then
        arg_error(1, "string expected, got " .. type(s))
    end
    return "'" .. tostring(s):gsub("[%z\b\n\r\t\26\\'\"]", SQL) .. "'"
end
