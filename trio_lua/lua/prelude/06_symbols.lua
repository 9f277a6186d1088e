-- Symbols that ffi.C has besides those of the libraries (trio_lua/lua/symbols.py).
--
-- The environment of a C library's object is the cache of what LuaJIT has found in it.

local rt = ...

local ffi = require "ffi"

local cache = debug.getfenv(ffi.C)
for name, symbol in pairs(rt.symbols) do
    cache[name] = ffi.cast(symbol[1], symbol[2])
end
