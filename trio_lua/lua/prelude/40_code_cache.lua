-- lua_code_cache off: every request finds the state of a VM that has just been started.
--
-- OpenResty makes a VM for each such request. Here the request gets globals, a table package and copies of the
-- standard tables of its own, filled as they were before init_by_lua, and init_by_lua runs in them again;
-- files are compiled anew (30_handler.lua does that). What cannot be made twice in one VM is shared: methods of
-- strings, and C types. A declaration whose text is known is skipped, so modules with ffi.cdef load again;
-- whoever changes a declared struct has to restart the server.

local rt = ...

local ffi = require "ffi"
local pcall, error, pairs, type = pcall, error, pairs, type
local getmetatable, setmetatable, setfenv, select, rawget = getmetatable, setmetatable, setfenv, select, rawget
local find, gmatch, match = string.find, string.gmatch, string.match

local function copy(t)
    local new = {}
    for key, value in pairs(t) do
        new[key] = value
    end
    return setmetatable(new, getmetatable(t))
end

-- ------------------------------------------------------------------ ffi

-- Before a request without the cache has declared anything, what modules with the cache see is LuaJIT's own
-- behaviour; after that, a type may be there that they are about to declare for the first time.

local raw_cdef, raw_metatype = ffi.cdef, ffi.metatype
local declared, declared_fresh = {}, {}
local fresh_ffi = copy(ffi)
local any_fresh_type = false

function ffi.cdef(text, ...)
    if select("#", ...) == 0 and type(text) == "string" then
        if declared_fresh[text] then
            return
        end
        declared[text] = true
    end
    return raw_cdef(text, ...)
end

function fresh_ffi.cdef(text, ...)
    if select("#", ...) > 0 then
        return raw_cdef(text, ...)
    elseif declared[text] or declared_fresh[text] then
        return
    end
    local ok, err = pcall(raw_cdef, text)
    if not ok then
        error(err, 2)
    end
    declared_fresh[text] = true
end

-- The metatable that a type got first stays.
local function metatype(ct, meta)
    local ok, result = pcall(raw_metatype, ct, meta)
    if ok then
        return result
    elseif find(result, "protected metatable", 1, true) then
        return ffi.typeof(ct)
    end
    error(result, 3)
end

function fresh_ffi.metatype(ct, meta)
    any_fresh_type = true
    local result = metatype(ct, meta)
    return result
end

function ffi.metatype(ct, meta)
    if not any_fresh_type then
        return raw_metatype(ct, meta)
    end
    local result = metatype(ct, meta)
    return result
end

-- ------------------------------------------------------------------ module()

-- The module table for a dotted name below `t`; nil when something else is in the way.
local function find_table(t, name)
    for part in gmatch(name, "[^.]+") do
        local value = rawget(t, part)
        if value == nil then
            value = {}
            t[part] = value
        elseif type(value) ~= "table" then
            return nil
        end
        t = value
    end
    return t
end

-- The functions module and package.seeall for a table package and globals other than those of the VM,
-- to which the C functions are bound.
local function module_functions(package, globals)
    local function module(name, ...)
        if type(name) ~= "string" then
            error("bad argument #1 to 'module' (string expected, got " .. type(name) .. ")", 2)
        end
        local loaded = package.loaded
        local m = loaded[name]
        if type(m) ~= "table" then
            m = find_table(globals, name)
            if not m then
                error("name conflict for module '" .. name .. "'", 2)
            end
            loaded[name] = m
        end
        if m._NAME == nil then
            m._M, m._NAME, m._PACKAGE = m, name, match(name, "^(.*%.)[^.]*$") or ""
        end
        setfenv(2, m)
        for i = 1, select("#", ...) do
            select(i, ...)(m)
        end
    end

    local function seeall(m)
        local meta = getmetatable(m)
        if not meta then
            meta = {}
            setmetatable(m, meta)
        end
        meta.__index = globals
    end

    return module, seeall
end

-- ------------------------------------------------------------------ the state

local baseline

-- The state before any user code.
function rt.keep_baseline()
    baseline = { globals = copy(_G), package = copy(package), loaded = copy(package.loaded),
        preload = copy(package.preload) }
end

local COPIED = { "coroutine", "debug", "io", "jit", "math", "ngx", "os", "table" }

local function replaced(t, copies)
    local new = copy(t)
    for key, value in pairs(t) do
        new[key] = copies[value] or value
    end
    return new
end

local function new_state()
    local globals, package = setmetatable(copy(baseline.globals), nil), copy(baseline.package)
    local copies = { [_G] = globals, [baseline.globals.package] = package, [ffi] = fresh_ffi }
    for i = 1, #COPIED do
        local original = baseline.globals[COPIED[i]]
        if original then
            copies[original] = copy(original)
        end
    end
    for key, value in pairs(baseline.globals) do
        globals[key] = copies[value] or value
    end
    package.loaded = replaced(baseline.loaded, copies)
    package.preload = copy(baseline.preload)
    globals.require = rt.new_require(package, globals)
    globals.module, package.seeall = module_functions(package, globals)
    return globals
end

-- The globals of a request without the code cache; nil and an error when init_by_lua fails in them.
function rt.fresh_globals(r, shared)
    local globals = new_state()
    if rt.init_factory then
        local ok, err = rt.run_init(rt.init_factory, globals)
        if not ok then
            return nil, "failed to initialize Lua VM: init_by_lua error: " .. err
        end
    end
    if shared then
        rt.guard_globals(globals)
    end
    r.fresh, r.env = true, globals
    return globals
end
