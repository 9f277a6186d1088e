-- The side of a thread pool that lies in a VM of its own: runs tasks, one at a time.
--
-- A task is a coroutine. Where it yields, its values go out and the VM waits for it to be resumed;
-- tasks are never mixed in a VM. What a task assigns to globals goes into a table of its own; modules are
-- the VM's, and stay loaded for the tasks to come.

local rt = ...

local ffi = require "ffi"
local message = require "trio_lua.message"

local S, G, export = rt.S, _G, rt.export
local type, tostring, tonumber, pcall, xpcall, error, setmetatable, setfenv, require, loadstring
    = type, tostring, tonumber, pcall, xpcall, error, setmetatable, setfenv, require, loadstring
local create, resume, status = coroutine.create, coroutine.resume, coroutine.status
local match, find, sub = string.match, string.find, string.sub
local getinfo = debug.getinfo
local encode, encode_plain = message.encode, message.encode_plain
local decode, next_task = message.decoder()

local DONE, SUSPENDED, FAILED = 0, 1, 2

local GLOBALS_META = { __index = G }

local task -- the coroutine of the task
local globals

-- ------------------------------------------------------------------ stack

-- A coroutine inside a coroutine takes its part of the C stack, where nothing else would
-- stop an endless recursion.
local MAX_NESTING = 10000
local nesting = 0

local function leave(...)
    nesting = nesting - 1
    return ...
end

local function enter()
    if nesting >= MAX_NESTING then
        error("C stack overflow", 3)
    end
    nesting = nesting + 1
end

function coroutine.resume(co, ...)
    enter()
    return leave(resume(co, ...))
end

local function unwrap(ok, ...)
    nesting = nesting - 1
    if not ok then
        error((...), 0)
    end
    return ...
end

function coroutine.wrap(f)
    local co = create(f)
    return function(...)
        enter()
        return unwrap(resume(co, ...))
    end
end

-- ------------------------------------------------------------------ tasks

local function end_task(...)
    task, globals, S.env = nil, nil, nil
    next_task()
    return ...
end

local function failed(err, trace)
    if type(err) ~= "string" then
        if not pcall(encode, "error", false, err) then
            err = tostring(err)
        end
    end
    return end_task(FAILED, trace, encode("error", false, err))
end

local function encoded(ok, state, ...)
    if not ok then
        return failed(state, "")
    elseif state == DONE then
        return end_task(DONE, ...)
    end
    return state, ...
end

local function encode_results(state, what, ...)
    return state, encode(what, false, ...)
end

local function after(ok, ...)
    nesting = 0
    if not ok then
        local err = ...
        return failed(err, rt.load_trace(err) or rt.frames(task))
    elseif status(task) == "dead" then
        return encoded(pcall(encode_results, DONE, "return value", ...))
    end
    return encoded(pcall(encode_results, SUSPENDED, "yielded value", ...))
end

local function new_globals()
    globals = setmetatable({ _G = false }, GLOBALS_META)
    globals._G = globals
    S.env = globals
    return globals
end

local function start(f, ...)
    task = create(f)
    return after(resume(task, ...))
end

--- Run a function, the first value of the message, with the others up to its end or first yield.
-- Returns the state and a message, or FAILED, a traceback and a message.
function export.start(...)
    return start(decode(new_globals(), ...))
end

--- Go on with the task of this VM.
function export.continue(...)
    return after(resume(task, decode(globals, ...)))
end

--- Let go of a task that nobody resumes any more.
function export.forget()
    end_task()
end

-- ------------------------------------------------------------------ ngx.run_worker_thread

local function results(ok, ...)
    if not ok then
        local err = ...
        -- what is no text does not cross there
        return encode_plain("return value", false, type(err) == "string" and err or type(err) == "number" and tostring(err) or "")
    end
    return encode_plain("return value", true, ...)
end

local function call(module, name, ...)
    local ok, m = pcall(require, module)
    if not ok then
        return encode_plain("return value", false, tostring(m))
    elseif type(m) ~= "table" then
        return encode_plain("return value", false, "invalid lua module")
    elseif type(m[name]) ~= "function" then
        return encode_plain("return value", false, "invalid function")
    end
    return results(pcall(m[name], ...))
end

local function called(ok, ...)
    nesting = 0
    next_task()
    if not ok then
        return encode_plain("return value", false, (...))
    end
    return ...
end

--- Call a function of a module: true and its results, or false and an error, as one message.
function export.call(module, name, ...)
    return called(pcall(call, module, name, decode(G, ...)))
end

-- ------------------------------------------------------------------ from Python

local function python_results(ok, ...)
    end_task()
    nesting = 0
    if not ok then
        local err = ...
        return false, type(err) == "table" and err.message or tostring(err), type(err) == "table" and err.trace or ""
    end
    return true, ...
end

local function on_error(err)
    return { message = tostring(err), trace = rt.load_trace(err) or rt.frames(nil, 1) }
end

--- Run Lua code, or the function that it is the text of: true and results, or false, error, traceback.
function export.run_source(code, chunk, ...)
    local fn, err
    if find(code, "^%s*function%s*%(") then
        fn, err = loadstring("return " .. code, chunk)
        if fn then
            fn = fn()
        end
    end
    if not fn then
        fn, err = loadstring(code, chunk)
    end
    if not fn then
        return false, err, ""
    end
    setfenv(fn, new_globals())
    return python_results(xpcall(fn, on_error, ...))
end

-- ------------------------------------------------------------------ interruption

ffi.cdef [[
void *trio_lua_gethook(void *) __asm__("lua_gethook");
int trio_lua_sethook(void *, void *, int, int) __asm__("lua_sethook");
]]

-- The C function that calls a Lua hook is reachable only while one is set; another thread arms it later,
-- with any coroutine of this VM.
local anchor = create(function() end)

-- Ends the user's code, again and again if it catches errors. Our own is let go on: it may hold the lock of a
-- shared dictionary.
local function stop()
    if sub(getinfo(2, "S").source, 1, 5) ~= "=ngx/" then
        error("the task was abandoned", 0)
    end
end

--- The addresses of a Lua state of this VM and of the hook that ends what runs in it.
function export.interruption()
    local state = tonumber(match(tostring(anchor), "0x(%x+)"), 16)
    debug.sethook(stop, "", 1e9)
    local pointer = ffi.cast("void *", state)
    local hook = ffi.C.trio_lua_gethook(pointer)
    ffi.C.trio_lua_sethook(pointer, nil, 0, 0)
    return state, tonumber(ffi.cast("intptr_t", hook))
end
export.anchor = anchor
