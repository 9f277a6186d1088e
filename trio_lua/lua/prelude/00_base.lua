-- The registers of the VM and the checks that every API family shares.
--
-- rt.S is the only mutable global state: S.r is the request that runs now (nil outside
-- of requests), S.th its running light thread, S.now the cached clock. The scheduler sets them
-- before it resumes a coroutine; everything else only reads them.

local rt = ...

local bit = require "bit"
local ffi = require "ffi"

local S, error, band, byte = rt.S, error, bit.band, string.byte
local bytes_t = ffi.typeof("uint8_t[256]")

-- phase bit -> name in errors; API name -> phases that may call it (made by trio_lua.request.phase)
local context_names = rt.context_names or {}
local allowed = rt.allowed or {}

rt.requests = {}
rt.threads = {}

-- The function for an API's phase check: returns the request table or throws.
--   local check = rt.checker("ngx.say")
--   local r = check()
-- client: the API is about the client's request, which the error says where there is none.
function rt.checker(name, client)
    local mask = allowed[name] or error("no phases are known for " .. name)
    return function()
        local r = S.r
        if not r then
            error("no request found", 3)
        end
        if band(r.phase, mask) == 0 then
            if client and r.fake then
                error("API disabled in the current context", 3)
            end
            error("API disabled in the context of " .. (context_names[r.phase] or "unknown"), 3)
        end
        return r
    end
end

-- Readers and writers of a request, which a timer or a worker phase does not have.
function rt.request()
    local r = S.r
    if not r then
        error("no request found", 3)
    end
    if r.fake then
        error("API disabled in the current context", 3)
    end
    return r
end

-- As luaL_error does: nil, booleans and numbers are words in messages.
function rt.type_error(position, name, expected, got)
    error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got "
        .. got .. ")", 3)
end

-- A table of the 256 bytes with 1 for those of a class and 0 for others.
-- ranges: pairs of a first and a last byte ("AZaz"); chars: further ones.
function rt.byte_class(ranges, chars)
    local class = bytes_t()
    for i = 1, #ranges, 2 do
        local first, last = byte(ranges, i, i + 1)
        ffi.fill(class + first, last - first + 1, 1)
    end
    for i = 1, #chars do
        class[byte(chars, i)] = 1
    end
    return class
end
