-- A pointer per coroutine, as cdata: what thread.exdata and thread.exdata2 are made of.
--
-- A stored pointer is forgotten with the request it was stored in, because coroutines are used
-- again.

local rt = require "trio_lua.rt"
local ffi = require "ffi"

local S = rt.S
local cast = ffi.cast
local running, select, type = coroutine.running, select, type
local setmetatable = setmetatable

local void_ptr = ffi.typeof("void *")
local MAIN = {}

--- The accessor; default(id) is what a coroutine of request id (0: none) was given at birth.
return function(default)
    local owners = setmetatable({}, { __mode = "k" })
    local pointers = setmetatable({}, { __mode = "k" })

    return function(...)
        local co = running() or MAIN
        local id = S.r and S.r.id or 0
        if select("#", ...) == 0 then
            return owners[co] == id and pointers[co] or cast(void_ptr, default(id))
        end
        local pointer = ...
        if type(pointer) ~= "cdata" then
            rt.arg_error(1, "cdata expected, got " .. type(pointer))
        end
        owners[co], pointers[co] = id, cast(void_ptr, pointer)
    end
end
