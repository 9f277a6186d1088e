-- Base64: ngx.encode_base64 and ngx.decode_base64, the two alphabets.
--
-- For the module ngx.base64: rt.encode_base64url, rt.decode_base64url.

local rt = ...

local ffi = require "ffi"
local bit = require "bit"

local ngx, room = rt.ngx, rt.scratch
local error, tostring, type = error, tostring, type
local byte, gsub, match = string.byte, string.gsub, string.match
local floor = math.floor
local ffi_new, ffi_string = ffi.new, ffi.string
local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

-- Digits by value, and values by byte (255: none).
local function base64_tables(digits)
    local encode, decode = ffi_new("uint8_t[64]"), ffi_new("uint8_t[256]")
    ffi.fill(decode, 256, 255)
    for value = 0, 63 do
        local c = byte(digits, value + 1)
        encode[value] = c
        decode[c] = value
    end
    return encode, decode
end

local STD_ENCODE, STD_DECODE = base64_tables(ALPHABET .. "+/")
local URL_ENCODE, URL_DECODE = base64_tables(ALPHABET .. "-_")

local function encode_base64(s, digits, pad)
    local size = #s
    local out = room(floor((size + 2) / 3) * 4)
    local at = 0
    for i = 1, size - 2, 3 do
        local a, b, c = byte(s, i, i + 2)
        out[at] = digits[rshift(a, 2)]
        out[at + 1] = digits[bor(lshift(band(a, 3), 4), rshift(b, 4))]
        out[at + 2] = digits[bor(lshift(band(b, 15), 2), rshift(c, 6))]
        out[at + 3] = digits[band(c, 63)]
        at = at + 4
    end
    local rest = size % 3
    if rest ~= 0 then
        local a = byte(s, size - rest + 1)
        local b = rest == 2 and byte(s, size) or 0
        out[at] = digits[rshift(a, 2)]
        out[at + 1] = digits[bor(lshift(band(a, 3), 4), rshift(b, 4))]
        at = at + 2
        if rest == 2 then
            out[at] = digits[lshift(band(b, 15), 2)]
            at = at + 1
        end
        if pad then
            for _ = rest, 2 do
                out[at] = 61
                at = at + 1
            end
        end
    end
    return ffi_string(out, at)
end

-- The first "=" ends the text; what follows it is not looked at.
local function decode_base64(s, values)
    local size = 0
    for i = 1, #s do
        local c = byte(s, i)
        if c == 61 then
            break
        end
        if values[c] == 255 then
            return nil
        end
        size = i
    end
    local rest = size % 4
    if rest == 1 then
        return nil
    end

    local out = room(size)
    local at = 0
    for i = 1, size - 3, 4 do
        local a, b, c, d = byte(s, i, i + 3)
        a, b, c, d = values[a], values[b], values[c], values[d]
        out[at] = bor(lshift(a, 2), rshift(b, 4))
        out[at + 1] = band(bor(lshift(b, 4), rshift(c, 2)), 255)
        out[at + 2] = band(bor(lshift(c, 6), d), 255)
        at = at + 3
    end
    if rest > 1 then
        local a, b = byte(s, size - rest + 1, size - rest + 2)
        a, b = values[a], values[b]
        out[at] = bor(lshift(a, 2), rshift(b, 4))
        at = at + 1
        if rest == 3 then
            out[at] = band(bor(lshift(b, 4), rshift(values[byte(s, size)], 2)), 255)
            at = at + 1
        end
    end
    return ffi_string(out, at)
end

function rt.encode_base64url(s)
    return encode_base64(s, URL_ENCODE, false)
end

function rt.decode_base64url(s)
    return decode_base64(s, URL_DECODE)
end

function ngx.encode_base64(s, no_padding)
    if type(s) ~= "string" then
        s = s and tostring(s) or ""
    end
    if no_padding and no_padding ~= true then
        error("bad no_padding: boolean expected, got " .. type(no_padding), 2)
    end
    return (encode_base64(s, STD_ENCODE, not no_padding))
end

function ngx.decode_base64(s)
    if type(s) ~= "string" then
        error("string argument only", 2)
    end
    return (decode_base64(s, STD_DECODE))
end

-- As in texts for MIME: what is no digit is passed over.
function ngx.decode_base64mime(s)
    if type(s) ~= "string" then
        error("string argument only", 2)
    end
    return (decode_base64(gsub(match(s, "^[^=]*"), "[^%w+/]+", ""), STD_DECODE))
end
