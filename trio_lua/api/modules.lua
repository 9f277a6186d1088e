-- Directive modules in the VM: their hooks, and ndk.set_var.
--
-- The Lua half of a module adds hooks with rt.hook(kind, name, function); those in Python come as stubs that
-- call out. A location's constants name the filters it needs, and here the names become functions, each
-- followed by its setting: { function, setting, function, setting, ... }.

local rt = ...

local py, requests, locations = rt.py, rt.requests, rt.locations
local error, type, tostring, setmetatable, unpack = error, type, tostring, setmetatable, unpack
local start_thread, after_content, eval = rt.start_thread, rt.after_content, rt.eval
local S = rt.S

local hooks = { rewrite = {}, access = {}, content = {}, files = {}, header_filter = {}, body_filter = {} }
local names = { rewrite = {}, access = {}, content = {}, files = {}, header_filter = {}, body_filter = {} }

function rt.hook(kind, name, fn)
    local list = names[kind]
    if not hooks[kind][name] then
        list[#list + 1] = name
    end
    hooks[kind][name] = fn
end

function rt.export.hook_names(kind)
    return unpack(names[kind])
end

-- The text of a setting's template: itself, or a number when it holds variables.
function rt.text(r, template)
    if type(template) == "number" then
        return eval(r, template)
    end
    return template
end

-- ------------------------------------------------------------------- hooks in Python

function rt.export.define_hook(kind, name, number)
    if kind == "header_filter" then
        rt.hook(kind, name, function(r)
            local err = py.module_filter_header(number, r.cid)
            if err then
                error(err, 0)
            end
        end)
    else
        rt.hook(kind, name, function(r, _, data, last)
            local result, err = py.module_filter_body(number, r.cid, data, last or false)
            if not result then
                error(err, 0)
            end
            return result
        end)
    end
end

function rt.export.define_python_variable(name, number)
    rt.define_variable(name, function(r)
        return py.module_get(number, r.cid)
    end)
end

-- A variable that a block such as map describes. What is assigned to it, or was computed and is to be kept, lies
-- where the values of other variables lie.
function rt.export.define_computed_variable(name, number, cached)
    local keep = rt.keeper(name)
    rt.declared[name] = nil
    rt.variable_setters[name] = keep
    rt.define_variable(name, function(r)
        local value = py.module_get(number, r.cid)
        if cached then
            keep(r, value)
        end
        return value
    end)
end

-- ----------------------------------------------------------------------- locations

local function functions(loc, kind)
    local list = loc[kind .. "s"]
    if list then
        local found = {}
        for i = 1, #list do
            found[2 * i - 1], found[2 * i] = hooks[kind][list[i]], loc.settings[list[i]] or false
        end
        loc[kind .. "s"] = found
    end
end

local define_location = rt.export.define_location
function rt.export.define_location(number, loc)
    functions(loc, "header_filter")
    functions(loc, "body_filter")
    define_location(number, loc)
end

-- ------------------------------------------------------------------------- running

local SENT = rt.outcome.SENT

-- Threads are used again and take no arguments then.
local function start(r, fn, value)
    return start_thread(r, function()
        return fn(r, value)
    end)
end

local function ended(r, outcome, ...)
    if outcome == 0 and r.header_sent then
        return SENT
    end
    return outcome, ...
end

-- A hook of a phase before content, as the request's entry thread.
function rt.export.run_hook(id, kind, name, phase)
    local r = requests[id]
    r.phase = phase
    return ended(r, start(r, hooks[kind][name], r.loc.settings[name]))
end

local CONTENT = 8
-- where filters may wait the engine concludes
local concluded = rt.strict_phases ~= false and after_content or ended

function rt.export.run_content_hook(id, name)
    local r = requests[id]
    r.phase = CONTENT
    return concluded(r, start(r, hooks.content[name], r.loc.content_value))
end

-- --------------------------------------------------------------------- ndk.set_var

local set_functions = {}

function rt.export.define_set_function(name, number)
    set_functions[name] = function(arg)
        local r = S.r
        if not r then
            error("no request found", 2)
        end
        if type(arg) ~= "string" then
            arg = tostring(arg)
        end
        local value = py.module_get(number, r.cid, arg)
        if not value then
            error("calling directive " .. name .. " failed with code -1", 2)
        end
        return value
    end
end

ndk = {
    set_var = setmetatable({}, {
        __index = function(_, name)
            local fn = set_functions[name]
            if not fn then
                error('ndk.set_var: directive "' .. tostring(name) .. '" not found or does not use ndk_set_var_value', 2)
            end
            return fn
        end,
        __newindex = function()
            error("not allowed", 2)
        end,
    }),
}
package.loaded.ndk = ndk
