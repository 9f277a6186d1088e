-- Handlers: the Lua code of a configuration, compiled on first use, run with its own globals.
--
-- A chunk is compiled into a factory that returns a new closure. Each request gets one global table,
-- whose __index is the shared _G, and its closures run in it: what one request assigns to a global is
-- gone with it and no suspended request can see another's. With lua_shared_globals the closures
-- run in _G itself, as OpenResty's own LuaJIT does, and a guard warns of new names.

local rt = ...

local S, ngx, requests = rt.S, rt.ngx, rt.requests
local loadstring, setfenv, setmetatable, type, tostring = loadstring, setfenv, setmetatable, type, tostring
local xpcall, traceback, error = xpcall, debug.traceback, error
local find, sub = string.find, string.sub
local start_thread = rt.start_thread
local G = _G

local SHARED_META = { __index = G }
local SIGNATURE = "return function(...) "

local inline = {}   -- handler id -> { code, chunk name }
local compiled = {} -- handler id -> factory
local files = {}    -- path -> factory
local shared_globals = false

local function environment(r)
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
        return nil, "failed to load inlined Lua code: " .. (plain or err)
    end
    compiled[id] = factory
    return factory
end

-- Text, or bytecode (a file that begins with ESC), whose function then is the handler itself.
local function compile_file(path)
    local code, err = rt.py.read_file(path)
    if not code then
        return nil, 'failed to load external Lua file "' .. path .. '": cannot open ' .. path .. ": " .. err, true
    end
    if sub(code, 1, 1) == "\27" then
        local fn, why = loadstring(code, "@" .. path)
        if not fn then
            return nil, 'failed to load external Lua file "' .. path .. '": ' .. why
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
        return nil, 'failed to load external Lua file "' .. path .. '": ' .. (plain or why)
    end
    return fn
end

-- The closure of a handler for request r; nil, message, missing file.
local function closure(r, id, path)
    local factory, err, missing
    if path then
        factory = files[path]
        if not factory or r.loc.code_cache == false then
            factory, err, missing = compile_file(path)
            if not factory then
                return nil, err, missing
            end
            files[path] = factory
        end
    else
        factory = compiled[id]
        if not factory then
            factory, err = compile(id)
            if not factory then
                return nil, err, false
            end
        end
    end
    return setfenv(factory(), environment(r))
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
    return ended(r, start_thread(r, fn))
end

local failure_trace
local function on_error(err)
    failure_trace = rt.clean_traceback(traceback("", 2))
    return err
end

-- Call f in a phase that may not suspend (set, filters, log); S.r, phase and S.th are put back.
-- Returns true, results... or false, message with traceback.
local function finish_sync(r, old_r, old_th, old_phase, ok, ...)
    S.r, S.th = old_r, old_th
    r.phase = old_phase
    if ok then
        return true, ...
    end
    local err = ...
    if type(err) ~= "string" then
        err = "unknown reason"
    end
    return false, err .. failure_trace
end

local function run_sync(r, phase, f, ...)
    local old_r, old_th, old_phase = S.r, S.th, r.phase
    S.r, S.th = r, nil
    r.phase = phase
    return finish_sync(r, old_r, old_th, old_phase, xpcall(f, on_error, ...))
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

-- init_by_lua and the like: no request at all (init) or one without a client (init_worker).
function rt.export.run_main(id, path, phase)
    local factory, err
    if path then
        factory, err = compile_file(path)
    else
        factory, err = compile(id)
    end
    if not factory then
        return false, err
    end
    local fn = factory()
    if phase == 0 then
        local ok, why = xpcall(fn, on_error)
        if ok then
            return true
        end
        return false, (type(why) == "string" and why or "unknown reason") .. failure_trace
    end
    return run_sync({ id = 0, fake = true, phase = phase, loc = {}, start = 0 }, phase, fn)
end

-- lua_shared_globals: as lua-resty-core's guard, installed after init_by_lua.
function rt.export.share_globals()
    shared_globals = true
    setmetatable(G, {
        __newindex = function(t, name, value)
            rawset(t, name, value)
            if S.r then
                ngx.log(ngx.WARN, "writing a global Lua variable ('", name,
                    "') which may lead to race conditions between concurrent requests, so prefer the ",
                    "use of 'local' variables", traceback("", 2))
            end
        end,
    })
end
