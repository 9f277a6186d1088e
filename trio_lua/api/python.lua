-- require "python.NAME": functions of Python for Lua code (trio_lua.api.python).
--
-- What may be passed is looked at here, before anything crosses: an error then names the place of a value.

local rt = ...

local S, py = rt.S, rt.py
local type, next, error, select, tostring, rawequal = type, next, error, select, tostring, rawequal
local match = string.match
local suspend, raw_log = rt.suspend, rt.raw_log
local check = rt.checker("python")
local preload, null = package.preload, rt.ngx.null
local AWAIT = rt.ops.python_await

local ERROR = 4
-- Tables as deep as this are taken for endless.
local MAX_DEPTH = 100

local KINDS = { ["function"] = "a function", thread = "a coroutine", userdata = "userdata", cdata = "a C value (cdata)" }

-- What is wrong with the values of a table, or nil; `where` is its place.
local function fault(t, where, depth)
    if depth > MAX_DEPTH then
        return match(where, "^argument #%d+") .. ": the table contains itself, or is nested too deeply"
    end
    for key, value in next, t do
        local kind = type(key)
        if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
            return where .. ": " .. (KINDS[kind] or "a table") .. " as a key cannot be passed to Python"
        end
        kind = type(value)
        if kind == "table" then
            local found = fault(value, where .. "." .. tostring(key), depth + 1)
            if found then
                return found
            end
        elseif KINDS[kind] and not rawequal(value, null) then
            return where .. "." .. tostring(key) .. ": " .. KINDS[kind] .. " cannot be passed to Python"
        end
    end
end

local function check_values(name, ...)
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        local kind = type(value)
        local found
        if kind == "table" then
            found = fault(value, "argument #" .. i, 1)
        elseif KINDS[kind] and not rawequal(value, null) then
            found = "argument #" .. i .. ": " .. KINDS[kind] .. " cannot be passed to Python"
        end
        if found then
            error(name .. ": " .. found, 3)
        end
    end
end

local function answer(name, ok, ...)
    if ok then
        return ...
    elseif ok == nil then
        return nil, (...)
    end
    local message, trace = ...
    if trace then
        raw_log(ERROR, name .. " failed: " .. trace, S.r)
    end
    -- the function that was called has given way to this one
    error(name .. ": " .. message, 2)
end

-- Functions of modules by name; a state without the code cache gets tables of its own.
local modules = {}

local function new_module(full_name)
    local module = {}
    for name, f in next, modules[full_name] do
        module[name] = f
    end
    return module
end

function rt.export.define_python_function(module, name, number, is_async)
    local full_name = "python." .. module
    local shown = full_name .. "." .. name
    if not modules[full_name] then
        modules[full_name] = {}
        preload[full_name] = new_module
    end
    local f
    if is_async then
        f = function(...)
            check()
            check_values(shown, ...)
            return answer(shown, suspend(AWAIT, number, ...))
        end
    else
        f = function(...)
            check_values(shown, ...)
            return answer(shown, py.python_call(number, ...))
        end
    end
    modules[full_name][name] = f
end
