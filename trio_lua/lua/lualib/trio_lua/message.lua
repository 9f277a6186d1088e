-- What crosses between the VM of a worker and those of its thread pools: values as bytes.
--
-- A message is a string and, behind it, the long strings that occur in it. LuaJIT's own serialisation
-- (string.buffer) makes the first; a long string goes beside it as it is, so that it is copied
-- twice on its way and not five times. Both sides are the same LuaJIT, so functions travel as bytecode.
--
-- In the serialised values an int64 stands for a function of the message, and an uint64 for a long string, by
-- number. Nobody else's cdata can be there: they are refused, like all that means something in one VM
-- only. Functions bring their upvalues; functions of one message that share a variable share it on
-- the other side, and may refer to themselves. Tables are copied: one that is reached twice arrives as two.

local ffi = require "ffi"
local string_buffer = require "string.buffer"

local type, next, error, tostring, rawequal = type, next, error, tostring, rawequal
local select, unpack, loadstring, setfenv = select, unpack, loadstring, setfenv
local dump, format, find, sub = string.dump, string.format, string.find, string.sub
local getupvalue, setupvalue, getinfo = debug.getupvalue, debug.setupvalue, debug.getinfo
local upvalueid, upvaluejoin = debug.upvalueid, debug.upvaluejoin
local istype, tonumber = ffi.istype, tonumber
local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"

-- From this length on a string goes beside the message; below it another value to pass costs more than a copy.
local LONG = 4096
-- More of them stay inside: Lua functions do not take arguments without end.
local MAX_LONGS = 200
local MAX_DEPTH = 100
-- A buffer that has become longer than this is given back.
local KEEP = 1048576
local MAX_CACHED = 256
-- What errors call the first value of a task's first message.
local THE_FUNCTION = "the function"

local null = ngx.null
local buffer = string_buffer.new()

local _M = {}

-- ------------------------------------------------------------------ errors

-- The place of a value: `where`, the keys that lead to it, and the function whose variable it is in.
local function place(m)
    local text = m.where
    for i = 1, m.depth do
        local key = m.keys[i]
        if type(key) == "string" and find(key, "^[%a_][%w_]*$") then
            text = text .. "." .. key
        elseif type(key) == "string" then
            text = text .. format("[%q]", key)
        else
            text = text .. "[" .. tostring(key) .. "]"
        end
    end
    if not m.owner then
        return text
    end
    local info = getinfo(m.functions[m.owner], "S")
    text = text .. " of the function at " .. info.short_src .. ":" .. info.linedefined
    local outer = m.places[m.owner]
    return outer == THE_FUNCTION and text or text .. ", which is " .. outer
end

local function name_in(t, f, prefix)
    for key, value in next, t do
        if rawequal(value, f) then
            return prefix .. tostring(key)
        end
    end
end

-- The name of a function that is not the user's, as far as a module or a table of ngx has it.
local function function_name(f)
    for name, module in next, package.loaded do
        if type(module) == "table" then
            local found = name_in(module, f, name == "_G" and "" or name .. ".")
            if found then
                return found
            end
        end
    end
    for name, t in next, ngx do
        local found = type(name) == "string" and type(t) == "table" and name_in(t, f, "ngx." .. name .. ".")
        if found then
            return found
        end
    end
    return tostring(f)
end
_M.function_name = function_name

-- In ngx.run_worker_thread's words, or in ours.
local function refuse(m, name, text)
    if m.plain then
        error(name .. " in the " .. m.plain, 0)
    end
    error(text .. " cannot cross between threads: " .. place(m), 0)
end

-- ------------------------------------------------------------------ encoding

local convert

-- The number of a function in the message; those with the same number are the same function.
local function function_number(m, f)
    local number = m.functions[f]
    if number then
        return number
    end
    local info = getinfo(f, "S")
    if info.what == "C" then
        refuse(m, nil, "the C function " .. function_name(f))
    elseif sub(info.source, 1, 5) == "=ngx/" then
        -- its variables mean something in its own VM only; the other has the same function
        refuse(m, nil, "the function " .. function_name(f))
    end
    number = #m.functions + 1
    m.functions[number], m.functions[f] = f, number
    m.places[number] = m.owner == nil and m.depth == 0 and m.where or place(m)
    return number
end

-- Whether a table has something in it that has to be replaced; refuses what cannot cross.
local function inspect(m, t)
    local depth = m.depth
    if m.path[t] then
        refuse(m, "suspicious circular references, table depth exceed max depth: 100",
            "a table that contains itself")
    elseif m.levels >= m.max_depth then
        refuse(m, "suspicious circular references, table depth exceed max depth: 100",
            "tables nested more than " .. MAX_DEPTH .. " deep")
    end
    m.path[t] = true
    m.levels = m.levels + 1
    m.depth = depth + 1
    local replace = false
    for key, value in next, t do
        m.keys[depth + 1] = key
        for i = 1, 2 do
            local item = i == 1 and key or value
            local kind = type(item)
            if kind == "table" then
                replace = inspect(m, item) or replace
            elseif kind ~= "number" and kind ~= "boolean" and (kind ~= "string" or #item >= LONG) then
                replace = not rawequal(convert(m, item), item) or replace
            end
        end
    end
    m.depth = depth
    m.levels = m.levels - 1
    m.path[t] = nil
    return replace
end

local function copied(m, t)
    local copy = {}
    for key, value in next, t do
        if type(key) == "table" then
            key = copied(m, key)
        else
            key = convert(m, key)
        end
        if type(value) == "table" then
            value = copied(m, value)
        else
            value = convert(m, value)
        end
        copy[key] = value
    end
    return copy
end

-- What stands for a value in the message; the value itself in most cases.
convert = function(m, value)
    local kind = type(value)
    if kind == "string" then
        if #value < LONG then
            return value
        end
        local number = m.longs[value]
        if not number then
            if m.n_longs == MAX_LONGS then
                return value
            end
            number = m.n_longs + 1
            m.n_longs = number
            m.longs[number], m.longs[value] = value, number
        end
        m.replaced = true
        return uint64(number)
    elseif kind == "number" or kind == "boolean" or kind == "nil" then
        return value
    elseif kind == "table" then
        if inspect(m, value) then
            return copied(m, value)
        end
        return value
    elseif kind == "function" then
        if m.plain then
            refuse(m, "unsupported Lua type: LUA_TFUNCTION")
        end
        m.replaced = true
        return int64(function_number(m, value))
    elseif kind == "userdata" then
        if value == null then
            return value
        end
        refuse(m, "unsupported Lua type: LUA_TUSERDATA", "userdata")
    elseif kind == "thread" then
        refuse(m, "unsupported Lua type: LUA_TTHREAD", "a coroutine")
    end
    refuse(m, "unsupported Lua type", "a C value (cdata)")
end

local function encode_functions(m)
    local functions = m.functions
    buffer:encode(m.replaced)
    if not m.replaced then
        return
    end
    local cells, n_cells = {}, 0 -- identity of a variable -> its number
    local i = 1
    -- upvalues add to the list
    while functions[i] do
        local f = functions[i]
        buffer:encode(true):encode(dump(f))
        local info = getinfo(f, "u")
        buffer:encode(info.nups)
        for n = 1, info.nups do
            local id = upvalueid(f, n)
            local cell = cells[id]
            if cell then
                buffer:encode(cell)
            else
                n_cells = n_cells + 1
                cells[id] = n_cells
                local name, value = getupvalue(f, n)
                m.where = 'upvalue "' .. name .. '"'
                m.owner = i
                buffer:encode(n_cells):encode(convert(m, value))
            end
        end
        i = i + 1
    end
    buffer:encode(false)
end

local function encode_values(m, what, first, n, ...)
    buffer:reset():encode(n)
    for i = 1, n do
        local value = select(i, ...)
        local kind = type(value)
        if kind ~= "number" and kind ~= "boolean" and kind ~= "nil" and (kind ~= "string" or #value >= LONG) then
            m.where = i == first and THE_FUNCTION or what .. " #" .. i - first
            value = convert(m, value)
        end
        buffer:encode(value)
    end
    encode_functions(m)
end

local function finish(m)
    local text = buffer:tostring()
    if #text > KEEP then
        buffer:free()
    end
    if m.n_longs == 0 then
        return text
    end
    return text, unpack(m.longs, 1, m.n_longs)
end

local function new(plain, max_depth)
    return {
        plain = plain, max_depth = max_depth, where = "", owner = nil, depth = 0, levels = 0, keys = {}, path = {},
        replaced = false, functions = {}, places = {}, longs = {}, n_longs = 0,
    }
end

--- The message of some values.
-- Errors name the place of what cannot cross, beginning with `what`. With `leading`, the first value is not
-- counted there: it is the function that the others are for.
function _M.encode(what, leading, ...)
    local m = new(nil, MAX_DEPTH)
    encode_values(m, what, leading and 1 or 0, select("#", ...), ...)
    return finish(m)
end

--- The same with the rules and error texts of ngx.run_worker_thread; `what` is "argument" or "return value".
function _M.encode_plain(what, ...)
    -- it counts from 1 and refuses at 100
    local m = new(what, MAX_DEPTH - 1)
    encode_values(m, what, 0, select("#", ...), ...)
    return finish(m)
end

-- ------------------------------------------------------------------ decoding

local function resolve(value, functions, longs)
    local kind = type(value)
    if kind == "cdata" then
        if istype(int64, value) then
            return functions[tonumber(value)]
        end
        return longs[tonumber(value)]
    elseif kind == "table" then
        local keys
        for key, item in next, value do
            local new_item = resolve(item, functions, longs)
            if not rawequal(new_item, item) then
                value[key] = new_item
            end
            if type(key) == "cdata" or type(key) == "table" then
                keys = keys or {}
                keys[key] = true
            end
        end
        if keys then
            for key in next, keys do
                local item = value[key]
                value[key] = nil
                value[resolve(key, functions, longs)] = item
            end
        end
    end
    return value
end

local function decode_functions(globals, load, longs)
    local functions, slots = {}, {}
    local cells, n_values = {}, 0
    local n = 0
    while buffer:decode() do
        n = n + 1
        local f = setfenv(load(buffer:decode()), globals)
        functions[n] = f
        for i = 1, buffer:decode() do
            local cell = buffer:decode()
            local slot = slots[cell]
            if slot then
                upvaluejoin(f, i, slot.f, slot.i)
            else
                slot = { f = f, i = i, value = buffer:decode() }
                slots[cell] = slot
            end
        end
    end
    for _, slot in next, slots do
        setupvalue(slot.f, slot.i, resolve(slot.value, functions, longs))
    end
    return functions
end

local function decode(globals, load, message, ...)
    buffer:set(message)
    local n = buffer:decode()
    local values = {}
    for i = 1, n do
        values[i] = buffer:decode()
    end
    if buffer:decode() then
        local longs = { ... }
        local functions = decode_functions(globals, load, longs)
        for i = 1, n do
            values[i] = resolve(values[i], functions, longs)
        end
    end
    buffer:reset()
    return unpack(values, 1, n)
end

local function load_new(code)
    return loadstring(code)
end

--- The values of a message; its functions get `globals`.
function _M.decode(globals, ...)
    return decode(globals, load_new, ...)
end

--- A decoder for the tasks of one VM, which keeps the functions that it has loaded, so that LuaJIT's machine
-- code for them is kept, too. Returns decode(globals, ...) and reset(), to be called between two tasks:
-- functions of a task are used again by the next one with the same code, never within one.
function _M.decoder()
    local cache, n_cached, used = {}, 0, {}
    local function load(code)
        local n = (used[code] or 0) + 1
        used[code] = n
        local list = cache[code]
        if not list then
            if n_cached >= MAX_CACHED then
                cache, n_cached = {}, 0
            end
            list = {}
            cache[code] = list
            n_cached = n_cached + 1
        end
        local f = list[n]
        if not f then
            f = loadstring(code)
            list[n] = f
        end
        return f
    end
    return function(globals, ...)
        return decode(globals, load, ...)
    end, function()
        used = {}
    end
end

return _M
