-- require in Lua, so that a module may yield while it loads (stock require is a C function,
-- and LuaJIT cannot yield across one).
--
-- As in Lua 5.1 it asks the functions in package.loaders one after the other, and there are four:
-- package.preload; package.path; package.cpath; the root of a dotted name in package.cpath. Two of them
-- know more than their originals. Before package.path come OpenResty's own modules (ours: the
-- originals bind to nginx's symbols and cannot work); after everything else comes what this
-- package brings as a stand-in for a C module that is not installed (cjson).
--
-- Unlike in Lua 5.1 a module that failed is tried again, so that every request names the real error;
-- and two threads that ask for a module while its top level is suspended do not load it twice:
-- the second waits.

local rt = ...

local S, threads = rt.S, rt.threads
local error, type, tostring, rawequal, setfenv, xpcall = error, type, tostring, rawequal, setfenv, xpcall
local gsub, gmatch, match = string.gsub, string.gmatch, string.match
local open, loadfile, loadlib = io.open, loadfile, package.loadlib
local band = require("bit").band
local frames = rt.frames
local lualib = rt.lualib

package.loaded["trio_lua.rt"] = rt
package.loaded.ngx = rt.ngx

-- First parts of the names that are looked for among our modules first.
local OURS = { ngx = true, table = true, thread = true, trio_lua = true }

-- lua-resty-core's modules: if there is none of ours, the one in package.path is useless.
local UNUSABLE = {
    ["ngx.balancer"] = true, ["ngx.ocsp"] = true, ["ngx.pipe"] = true, ["ngx.proxyssl"] = true,
    ["ngx.semaphore"] = true,
    ["ngx.ssl.proxysslcert"] = true, ["ngx.ssl.proxysslverify"] = true,
}

local yieldable = (rt.allowed or {})["coroutine"] or 0
local WAIT = 0.01

local function readable(path)
    local f = open(path, "rb")
    if f then
        f:close()
        return true
    end
    return false
end

-- The first file that exists; nil and what was tried.
local function search(name, templates)
    local tried = ""
    local file = gsub(gsub(name, "%.", "/"), "%%", "%%%%")
    for template in gmatch(templates, "[^;]+") do
        local path = gsub(template, "%?", file)
        if readable(path) then
            return path
        end
        tried = tried .. "\n\tno file '" .. path .. "'"
    end
    return nil, tried
end

local function own(name)
    local path = lualib .. "/" .. gsub(name, "%.", "/") .. ".lua"
    return readable(path) and path
end

local function load_failed(name, path, err)
    error("error loading module '" .. name .. "' from file '" .. path .. "':\n\t" .. err, 0)
end

local function load_lua(name, path, globals)
    local fn, err = loadfile(path)
    if not fn then
        return load_failed(name, path, err)
    end
    return setfenv(fn, globals)
end

-- The function luaopen_NAME of a library; nil when the library has none.
local function load_c(name, path)
    local fn, err, what = loadlib(path, "luaopen_" .. gsub(gsub(name, "^.*%-", ""), "%.", "_"))
    if fn then
        return fn
    elseif what == "init" then
        return nil, err
    end
    return load_failed(name, path, err)
end

-- Traceback of the error that came out of a module's top level last: require raises it once more, and
-- the place where it began would be lost.
local failure, failure_th, failure_frames

-- The traceback that belongs to an error in the running thread, if it came through require.
function rt.load_trace(err)
    if failure ~= nil and rawequal(failure, err) and failure_th == S.th then
        return failure_frames
    end
end

local function on_failure(err)
    if not rt.load_trace(err) then
        failure, failure_th, failure_frames = err, S.th, frames(nil, 1)
    end
    return err
end

-- require for one state: `package` (its table package, which gets the loaders) and the globals that its
-- modules run in. There is one state, and one more for every request without the code cache.
function rt.new_require(package, globals)
    local loading = {} -- name -> the light thread that runs its top level, true without one

    local function search_path(name, field)
        local templates = package[field]
        if type(templates) ~= "string" then
            error("'package." .. field .. "' must be a string", 0)
        end
        return search(name, templates)
    end

    local function preload_loader(name)
        local preload = package.preload
        if type(preload) ~= "table" then
            error("'package.preload' must be a table", 0)
        end
        local loader = preload[name]
        if loader == nil then
            return "\n\tno field package.preload['" .. name .. "']"
        end
        return loader
    end

    local function lua_loader(name)
        local core = name == "resty.core" or match(name, "^resty%.core%.") ~= nil
        if core or OURS[match(name, "^[^.]+")] then
            local path = own(name)
            if path then
                return load_lua(name, path, globals)
            elseif core or UNUSABLE[name] then
                return "\n\tno module '" .. name .. "' in trio_lua"
            end
        end
        local path, tried = search_path(name, "path")
        return path and load_lua(name, path, globals) or tried
    end

    local function c_loader(name)
        local path, tried = search_path(name, "cpath")
        if not path then
            return tried
        end
        local fn, err = load_c(name, path)
        return fn or load_failed(name, path, err)
    end

    local function last_loader(name)
        local tried = ""
        local root = match(name, "^([^.]+)%.")
        if root then
            local path
            path, tried = search_path(root, "cpath")
            if path then
                local fn = load_c(name, path)
                if fn then
                    return fn
                end
                tried = "\n\tno module '" .. name .. "' in file '" .. path .. "'"
            end
        end
        local path = own(name)
        return path and load_lua(name, path, globals) or tried
    end

    package.loaders = { preload_loader, lua_loader, c_loader, last_loader }
    if package.searchers then
        package.searchers = package.loaders
    end

    local require

    -- Another thread is at it. Waits for that one and returns true where this is possible.
    local function wait(name, owner)
        local th, r = S.th, S.r
        if owner == true or owner == th then
            error("loop or previous error loading module '" .. name .. "'", 3)
        elseif threads[owner.id] ~= owner or not th or band(r.phase, yieldable) == 0 then
            -- the loading was broken off, or this cannot wait: load it here
            return false
        end
        repeat
            rt.sleep(WAIT)
        until loading[name] ~= owner or threads[owner.id] ~= owner
        return true
    end

    local function finish(name, ok, value)
        loading[name] = nil
        if not ok then
            error(value, 0)
        end
        local loaded = package.loaded
        if value ~= nil then
            loaded[name] = value
        elseif loaded[name] == nil then
            loaded[name] = true
        end
        return loaded[name]
    end

    local function load_module(name)
        local owner = loading[name]
        if owner and wait(name, owner) then
            return require(name)
        end
        local loaders, tried = package.loaders, ""
        if type(loaders) ~= "table" then
            error("'package.loaders' must be a table", 2)
        end
        local i, loader = 1, nil
        while true do
            local searcher = loaders[i]
            if searcher == nil then
                error("module '" .. name .. "' not found:" .. tried, 2)
            end
            loader = searcher(name)
            if type(loader) == "function" then
                break
            elseif type(loader) == "string" then
                tried = tried .. loader
            end
            i = i + 1
        end
        loading[name] = S.th or true
        return finish(name, xpcall(loader, on_failure, name))
    end

    require = function(name)
        if type(name) == "number" then
            name = tostring(name)
        elseif type(name) ~= "string" then
            error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2)
        end
        local value = package.loaded[name]
        if value then
            return value
        end
        return load_module(name)
    end
    return require
end

require = rt.new_require(package, _G)

-- The last thing before user code runs.
function rt.export.set_paths(path, cpath)
    package.path, package.cpath = path, cpath
    require "resty.core"
    rt.keep_baseline()
end
