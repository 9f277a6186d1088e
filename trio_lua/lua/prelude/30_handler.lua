-- Handlers: the Lua code of a configuration, compiled on first use, run with its own globals.
--
-- A chunk is compiled into a factory that returns a new closure. Each request gets one global table,
-- whose __index is the shared _G, and its closures run in it: what one request assigns to a global is
-- gone with it and no suspended request can see another's. With lua_shared_globals the closures
-- run in _G itself, as OpenResty's own LuaJIT does, and a guard warns of new names. Code that a handler
-- compiles itself (loadstring and its kin) runs in the handler's globals.

local rt = ...

local bit = require "bit"

local S, ngx, requests = rt.S, rt.ngx, rt.requests
local load, loadstring, loadfile, setfenv, getfenv = load, loadstring, loadfile, setfenv, getfenv
local band, rshift = bit.band, bit.rshift
local setmetatable, rawget, select, type, xpcall, error = setmetatable, rawget, select, type, xpcall, error
local running = coroutine.running
local sub = string.sub
local start_thread, frames, error_text = rt.start_thread, rt.frames, rt.error_text
local G = _G

local SHARED_META = { __index = G }
local SIGNATURE = "return function(...) "

local inline = {}   -- handler id -> { code, chunk name }
local compiled = {} -- handler id -> factory
local files = {}    -- path -> factory
local shared_globals = false

-- The globals of a request's handlers; or nil and an error.
local function environment(r)
    if r.loc.code_cache == false and not r.fresh then
        return rt.fresh_globals(r, shared_globals)
    end
    if r.fresh then
        return r.env
    end
    if shared_globals then
        return G
    end
    local env = r.env
    if not env then
        env = setmetatable({ _G = false }, SHARED_META)
        env._G = env
        r.env = env
    end
    return env
end

local function compile(id)
    local h = inline[id]
    local factory, err = loadstring(SIGNATURE .. h.code .. "\nend", h.chunk)
    if not factory then
        local _, plain = loadstring(h.code, h.chunk)
        return nil, plain or err
    end
    compiled[id] = factory
    return factory
end

-- Text, or bytecode (a file that begins with ESC), whose function then is the handler itself.
local function compile_file(path)
    local code, err = rt.py.read_file(path)
    if not code then
        return nil, "cannot open " .. path .. ": " .. err, true
    end
    if sub(code, 1, 1) == "\27" then
        local fn, why = loadstring(code, "@" .. path)
        if not fn then
            return nil, why
        end
        return function()
            return loadstring(code, "@" .. path)
        end
    end
    if sub(code, 1, 1) == "#" then
        code = "--" .. code
    end
    local fn, why = loadstring(SIGNATURE .. code .. "\nend", "@" .. path)
    if not fn then
        -- without the wrapper, so that an early end of file is named as the user wrote it
        local _, plain = loadstring(code, "@" .. path)
        return nil, plain or why
    end
    return fn
end

-- ------------------------------------------------------------------ one closure for all requests
--
-- A handler that writes no global, reads only those that all requests have, and does not ask for its global
-- table, cannot tell a request's own globals from _G. Its closure is made once and runs in _G for all requests, also at the same time:
-- a factory's functions have no upvalues, so their variables are their runs' own. That saves the
-- tables of each request, and lets LuaJIT see one function instead of a new one every time.

local util = require "jit.util"
local funcbc, funck = util.funcbc, util.funck

-- The numbers of the instructions that read and write globals, found in code that has them.
local function opcode(code, pc)
    return band(funcbc(loadstring(code), pc), 0xff)
end
local GGET, GSET = opcode("return x", 1), opcode("x = 1", 2)

-- Globals through which a function can reach the table of them all.
local REACHING = {
    _G = true, getfenv = true, setfenv = true, load = true, loadstring = true, loadfile = true, dofile = true,
    module = true, debug = true,
}

-- Whether a function (or prototype) and those in it only read, by name, globals that all requests have.
local function reads_only(fn)
    local pc = 1
    local ins = funcbc(fn, pc)
    while ins do
        local op = band(ins, 0xff)
        if op == GSET then
            return false
        elseif op == GGET then
            local name = funck(fn, -rshift(ins, 16) - 1)
            if REACHING[name] or rawget(G, name) == nil then
                return false
            end
        end
        pc = pc + 1
        ins = funcbc(fn, pc)
    end
    local n = -1
    local constant = funck(fn, n)
    while constant ~= nil do
        if type(constant) == "proto" and not reads_only(constant) then
            return false
        end
        n = n - 1
        constant = funck(fn, n)
    end
    return true
end

local shared = setmetatable({}, { __mode = "k" }) -- factory -> its one closure, or false

-- The closure that all requests may use; nil when each needs its own.
local function shared_closure(factory)
    local fn = shared[factory]
    if fn == nil then
        fn = factory()
        if reads_only(fn) then
            setfenv(fn, G)
        else
            fn = false
        end
        shared[factory] = fn
    end
    -- what it called may have changed its globals
    if fn and getfenv(fn) == G then
        return fn
    end
end

-- The closure of a handler for request r; nil, message, missing file.
local function closure(r, id, path)
    local factory, err, missing
    if path then
        factory = files[path]
        if not factory or r.loc.code_cache == false then
            factory, err, missing = compile_file(path)
            if not factory then
                return nil, 'failed to load external Lua file "' .. path .. '": ' .. err, missing
            end
            files[path] = factory
        end
    else
        factory = compiled[id]
        if not factory then
            factory, err = compile(id)
            if not factory then
                return nil, "failed to load inlined Lua code: " .. err, false
            end
        end
    end
    if r.loc.code_cache ~= false and not r.fresh and not r.env then
        local fn = shared_closure(factory)
        if fn then
            return fn
        end
    end
    local env
    env, err = environment(r)
    if not env then
        return nil, err, false
    end
    return setfenv(factory(), env)
end
rt.closure = closure

function rt.export.define_handler(id, code, chunk)
    inline[id] = { code = code, chunk = chunk }
    compiled[id] = nil
end

-- What `trio-lua check` and `serve` use: compile, do not run.
function rt.export.check_syntax(code, chunk)
    local fn, err = loadstring(SIGNATURE .. code .. "\nend", chunk)
    if fn then
        return nil
    end
    local _, plain = loadstring(code, chunk)
    return plain or err
end

local LOAD_FAILED = 6
rt.outcome.LOAD_FAILED = LOAD_FAILED

local SENT = 8
rt.outcome.SENT = SENT

-- A handler that printed something has made the response; the engine has to know.
local function ended(r, outcome, ...)
    if outcome == 0 and r.header_sent then
        return SENT
    end
    return outcome, ...
end

-- Run a handler of a phase that may suspend, as the request's entry thread.
function rt.export.run(rid, id, phase, path)
    local r = requests[rid]
    local fn, err, missing = closure(r, id, path)
    if not fn then
        return LOAD_FAILED, err, missing
    end
    r.phase = phase
    S.now = nil
    return ended(r, start_thread(r, fn))
end

-- An error's text with its traceback, as OpenResty logs it.
local function on_error(err)
    local text = error_text(err)
    if text ~= err and type(err) ~= "number" then
        return text
    end
    return text .. "\nstack traceback:" .. (rt.load_trace(err) or frames(nil, 1))
end
rt.on_error = on_error

-- Call f in a phase that may not suspend (set, filters, log); S.r, phase and S.th are put back.
-- Returns true, results... or false, message with traceback. S.sync is the coroutine on whose stack
-- f runs: it must not be yielded.
local function finish_sync(r, old_r, old_th, old_sync, old_phase, ...)
    S.r, S.th, S.sync = old_r, old_th, old_sync
    r.phase = old_phase
    return ...
end

local function run_sync(r, phase, f, ...)
    local old_r, old_th, old_sync, old_phase = S.r, S.th, S.sync, r.phase
    S.r, S.th, S.sync = r, nil, running()
    r.phase = phase
    return finish_sync(r, old_r, old_th, old_sync, old_phase, xpcall(f, on_error, ...))
end
rt.run_sync = run_sync

-- Handlers of the phases that may not suspend, from Python: true, result | false, message.
function rt.export.run_sync(rid, id, phase, path, ...)
    local r = requests[rid]
    local fn, err = closure(r, id, path)
    if not fn then
        return false, err
    end
    S.now = nil
    return run_sync(r, phase, fn, ...)
end

-- Run init_by_lua's code with the globals `env`: true, or false and the error. There is no request then.
local function run_init(factory, env)
    local old_r, old_th = S.r, S.th
    S.r, S.th, S.env = nil, nil, env
    local ok, err = xpcall(setfenv(factory(), env), on_error)
    S.r, S.th, S.env = old_r, old_th, nil
    return ok, err
end
rt.run_init = run_init

-- What a request reads of its location, for code that runs in none.
rt.main_location = {}

local function main_factory(id, path)
    if path then
        return compile_file(path)
    end
    return compile(id)
end

-- A handler outside of requests, whose globals are everybody's; or nil and an error.
function rt.main_closure(id, path)
    local factory, err = main_factory(id, path)
    if not factory then
        return nil, err
    end
    return factory()
end

-- init_by_lua and the like: no request at all (init) or one without a client (init_worker).
function rt.export.run_main(id, path, phase)
    local factory, err = main_factory(id, path)
    if not factory then
        return false, err
    end
    if phase == 0 then
        rt.init_factory = factory
        local ok, why = run_init(factory, G)
        if ok then
            return true
        end
        return false, why
    end
    return run_sync({ id = 0, fake = true, phase = phase, loc = rt.main_location, start = 0 }, phase, factory())
end

-- Line 12 of a chunk of this name is where OpenResty's own guard logs, so log filters know it.
local make_guard = loadstring([[

local ngx, rawset, tostring, frames = ...

return function(t, name, value)
    rawset(t, name, value)
    local phase = ngx.get_phase()
    if phase == "init" or phase == "init_worker" then
        return
    end
    local message = "writing a global Lua variable ('" .. tostring(name) .. "') which may lead to race conditions "
        .. "between concurrent requests, so prefer the use of 'local' variables"
    ngx.log(ngx.WARN, message, "\nstack traceback:", frames(nil, 1))
end
]], "=_G write guard")

local function guard(globals)
    setmetatable(globals, { __newindex = make_guard(ngx, rawset, tostring, frames) })
end
rt.guard_globals = guard

-- lua_shared_globals: one _G for all, and warnings, from after init_by_lua on.
function rt.export.share_globals()
    shared_globals = true
    guard(G)
end

-- ------------------------------------------------------------------ compiling at run time

-- LuaJIT would give the function the globals of its thread, which are _G.
local function in_request(fn, ...)
    if fn then
        local r = S.r
        local env = r and r.env or S.env
        if env then
            setfenv(fn, env)
        end
    end
    return fn, ...
end

function G.loadstring(...)
    return in_request(loadstring(...))
end

function G.loadfile(...)
    return in_request(loadfile(...))
end

function G.load(...)
    if select("#", ...) > 3 then
        -- the caller has chosen the globals
        return load(...)
    end
    return in_request(load(...))
end

function G.dofile(...)
    local fn, err = in_request(loadfile(...))
    if not fn then
        error(err, 0)
    end
    return fn()
end
