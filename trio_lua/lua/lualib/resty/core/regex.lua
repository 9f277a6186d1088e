-- The half-private functions of resty.core.regex that make sense without nginx's matcher: pre-compiling and
-- checking patterns, and the growth of buffers. The matching itself is in trio_lua/api/regex.lua.

local rt = require "trio_lua.rt"
local ffi = require "ffi"
local base = require "resty.core.base"

local regex = rt.regex
local get = regex.get
local find, type = string.find, type
local get_string_buf = base.get_string_buf

local _M = { version = base.version }

local grow_ratio = 2

--- By how much check_buf_size enlarges a buffer.
function _M.set_buf_grow_ratio(ratio)
    grow_ratio = ratio
end

--- A buffer of at least `need` bytes with what the old one held, its size, the place to write at, `need`.
function _M.check_buf_size(buffer, size, place, used, need, must_alloc)
    if need > size then
        size = size * grow_ratio
        if size < need then
            size = need
        end
        local larger = get_string_buf(size, must_alloc)
        ffi.copy(larger, buffer, used)
        buffer, place = larger, larger + used
    end
    return buffer, size, place, need
end

--- Whether no pattern has been kept for the `o` option yet.
function _M.is_regex_cache_empty()
    return regex.is_cache_empty()
end

--- Compile a pattern into the cache that ngx.re uses: an object that stands for it, whether it is
--- kept, 0; or nil and the error.
function _M.re_match_compile(pattern, options)
    if not get then
        return nil, regex.missing
    end
    local compiled, err = get(pattern, options, 2, "match")
    if not compiled then
        return nil, err
    end
    return { ncaptures = compiled.ncap, name_count = #compiled.names / 2 },
        type(options) == "string" and find(options, "o", 1, true) ~= nil, 0
end

--- Nothing: the collector takes patterns back.
function _M.destroy_compiled_regex()
end

return _M
