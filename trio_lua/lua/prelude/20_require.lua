-- require in Lua, so that a module may yield while it loads (stock require is a C function,
-- and LuaJIT cannot yield across one).
--
-- Search order: package.preload; what OpenResty's own modules answer to (ours, because the
-- originals bind to nginx's symbols); package.path; package.cpath; then what this package
-- brings as a stand-in for a C module that is not installed (cjson). Two threads that ask for a module
-- while its top level is suspended do not load it twice: the second waits.

local rt = ...

local S = rt.S
local package, error, type, tostring = package, error, type, tostring
local find, gsub, gmatch, match, sub = string.find, string.gsub, string.gmatch, string.match, string.sub
local open, loadfile, loadlib = io.open, loadfile, package.loadlib
local band = require("bit").band
local lualib = rt.lualib

package.loaded["trio_lua.rt"] = rt

local OURS = { ["ngx"] = true, ["resty.core"] = true, ["table"] = true, ["thread"] = true, ["trio_lua"] = true }

local loading = {} -- name -> the light thread that runs its top level

local function readable(path)
    local f = open(path, "rb")
    if f then
        f:close()
        return true
    end
    return false
end

local function search(name, templates)
    local tried = ""
    local file = gsub(name, "%.", "/")
    for template in gmatch(templates, "[^;]+") do
        local path = gsub(template, "%?", (gsub(file, "%%", "%%%%")))
        if readable(path) then
            return path
        end
        tried = tried .. "\n\tno file '" .. path .. "'"
    end
    return nil, tried
end

local function load_lua(name, path)
    local fn, err = loadfile(path)
    if not fn then
        error("error loading module '" .. name .. "' from file '" .. path .. "':\n\t" .. err, 0)
    end
    return fn, path
end

local function load_c(name, path, symbol)
    local fn, err = loadlib(path, "luaopen_" .. gsub(gsub(symbol, "^.*%-", ""), "%.", "_"))
    if not fn then
        error("error loading module '" .. name .. "' from file '" .. path .. "':\n\t" .. err, 0)
    end
    return fn, path
end

local function own(name)
    local path = lualib .. "/" .. gsub(name, "%.", "/") .. ".lua"
    if readable(path) then
        return path
    end
end

local function find_loader(name)
    local preload = package.preload[name]
    if preload then
        return preload
    end
    local tried = "\n\tno field package.preload['" .. name .. "']"

    if OURS[match(name, "^resty%.core") or match(name, "^[^.]+")] then
        local path = own(name)
        if path then
            return load_lua(name, path)
        end
    end

    if type(package.path) ~= "string" then
        error("'package.path' must be a string", 3)
    end
    local path, missing = search(name, package.path)
    if path then
        return load_lua(name, path)
    end
    tried = tried .. missing

    if type(package.cpath) ~= "string" then
        error("'package.cpath' must be a string", 3)
    end
    path, missing = search(name, package.cpath)
    if path then
        return load_c(name, path, name)
    end
    tried = tried .. missing
    local root = match(name, "^([^.]+)%.")
    if root then
        path, missing = search(root, package.cpath)
        if path then
            return load_c(name, path, name)
        end
        tried = tried .. missing
    end

    path = own(name)
    if path then
        return load_lua(name, path)
    end
    error("module '" .. name .. "' not found:" .. tried, 3)
end

local yieldable = (rt.allowed or {})["coroutine"] or 0

local function load_module(name, loaded)
    local loader, where = find_loader(name)
    loading[name] = S.th or true
    local ok, value = pcall(loader, name, where)
    loading[name] = nil
    if not ok then
        if type(value) == "string" and not where then
            error(value, 0)
        end
        error(value, 0)
    end
    if value ~= nil then
        loaded[name] = value
    elseif loaded[name] == nil then
        loaded[name] = true
    end
    return loaded[name]
end

function require(name)
    if type(name) == "number" then
        name = tostring(name)
    elseif type(name) ~= "string" then
        error("bad argument #1 to 'require' (string expected, got " .. (name == nil and "no value" or type(name)) .. ")", 2)
    end
    local loaded = package.loaded
    local value = loaded[name]
    if value then
        return value
    end
    local owner = loading[name]
    if owner then
        local r = S.r
        if owner == true or owner == S.th or not r or band(r.phase, yieldable) == 0 then
            error("loop or previous error loading module '" .. name .. "'", 2)
        end
        repeat
            rt.suspend(rt.ops.yield)
        until not loading[name]
        return require(name)
    end
    return load_module(name, loaded)
end

-- Modules that run before user code were loaded by the stock require; a user's module path is set here.
function rt.export.set_paths(path, cpath)
    package.path, package.cpath = path, cpath
end
