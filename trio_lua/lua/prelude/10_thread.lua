-- Light threads: the coroutines that the driver resumes, and the one way out of them.
--
-- A thread suspends by yielding (OP, op, args...); the driver (trio_lua.lua.driver) awaits the
-- operation and calls rt.export.resume with the results. rt.suspend below is the only function
-- that yields to the driver. User coroutines lie between: coroutine.resume passes an OP yield
-- upwards and its results down again, so that I/O inside nested coroutines looks to the resumer as
-- if the callee had simply taken its time.
--
-- Finished coroutines are kept and used again (a new one costs more than a whole small handler).
--
-- What an export returns to Python, first value:
--   0 done, 1 suspended (thread id, op, args...), 2 failed (message, traceback),
--   3 ended by ngx.exit (status), 4 by ngx.exec (uri, args), 5 by ngx.req.set_uri(uri, true)

local rt = ...

local S, threads = rt.S, rt.threads
local raw_create, raw_resume, raw_yield = coroutine.create, coroutine.resume, coroutine.yield
local raw_status, raw_running, raw_wrap = coroutine.status, coroutine.running, coroutine.wrap
local error, type, tostring, select, setmetatable = error, type, tostring, select, setmetatable
local traceback = debug.traceback
local band = require("bit").band

local DONE, SUSPENDED, FAILED, EXIT, EXEC, JUMP = 0, 1, 2, 3, 4, 5
rt.outcome = { DONE = DONE, SUSPENDED = SUSPENDED, FAILED = FAILED, EXIT = EXIT, EXEC = EXEC, JUMP = JUMP }

-- Marks on the stack of a yield: an operation, the end of a recycled coroutine's body, and a
-- departure from which the thread never returns (exit, exec, jump, an error past all pcalls).
local OP, END, LEAVE = {}, {}, {}

local thread_of = setmetatable({}, { __mode = "k" })
local free, n_free, MAX_FREE = {}, 0, 1024
local last_id = 0

-- A function that comes out of a call has no name in tracebacks, as a handler should not have.
local function identity(f)
    return f
end

local function body(f, ...)
    while true do
        identity(f)(...)
        f = raw_yield(END)
    end
end

local function suspend(op, ...)
    return raw_yield(OP, op, ...)
end
rt.suspend = suspend

-- Leave the handler for good; pcall does not see it because nothing is raised.
local function leave(outcome, a, b)
    raw_yield(LEAVE, outcome, a, b)
    error("a thread that left was resumed")
end
rt.leave = leave

-- The text of an error value as OpenResty logs it.
local function message(err)
    local kind = type(err)
    if kind == "string" then
        return err
    end
    if kind == "number" then
        return tostring(err)
    end
    return "unknown reason"
end

local function after(th, ok, mark, ...)
    if ok then
        if mark == OP then
            return SUSPENDED, th.id, ...
        end
        threads[th.id] = nil
        thread_of[th.co] = nil
        if mark == END then
            if n_free < MAX_FREE then
                n_free = n_free + 1
                free[n_free] = th.co
            end
            return DONE
        end
        return ...
    end
    threads[th.id] = nil
    local trace = rt.clean_traceback(traceback(th.co))
    return FAILED, message(mark), "coroutine 0:" .. trace:gsub("^stack traceback:", "")
end

-- Registers of the caller are put back: a thread may be started from inside another one.
local function restore(r, th, ...)
    S.r, S.th = r, th
    return ...
end

-- Start `f(...)` as a new light thread of request r and run it to its first suspension.
local function start(r, f, ...)
    local co
    if n_free > 0 then
        co = free[n_free]
        n_free = n_free - 1
    else
        co = raw_create(body)
    end
    local id = last_id + 1
    last_id = id
    local th = { id = id, r = r, co = co }
    threads[id] = th
    thread_of[co] = th
    local old_r, old_th = S.r, S.th
    S.r, S.th, S.now = r, th, nil
    return restore(old_r, old_th, after(th, raw_resume(co, f, ...)))
end
rt.start_thread = start

function rt.export.resume(id, ...)
    local th = threads[id]
    if not th then
        return DONE
    end
    S.r, S.th, S.now = th.r, th, nil
    return restore(nil, nil, after(th, raw_resume(th.co, ...)))
end

-- Drop a suspended thread: none of its code runs any more.
function rt.export.drop(id)
    local th = threads[id]
    if th then
        threads[id] = nil
        thread_of[th.co] = nil
    end
end

-- ------------------------------------------------------------------ coroutine.*

local allowed = rt.allowed or {}
local YIELDABLE = allowed["coroutine"] or 0
local PLAIN = rt.plain_coroutine_phases or 0

-- Whether the wrapped versions are to be used; throws where OpenResty does.
local function wrapped(r)
    if not r then
        return false
    end
    local phase = r.phase
    if band(phase, YIELDABLE) ~= 0 then
        return true
    end
    if band(phase, PLAIN) ~= 0 then
        return false
    end
    error("API disabled in the context of " .. (rt.context_names[phase] or "unknown"), 3)
end

local pass

pass = function(co, ok, mark, ...)
    if ok and (mark == OP or mark == LEAVE) then
        return pass(co, raw_resume(co, raw_yield(mark, ...)))
    end
    return ok, mark, ...
end

local function co_resume(co, ...)
    if type(co) ~= "thread" then
        error("bad argument #1 to 'resume' (coroutine expected)", 2)
    end
    if not wrapped(S.r) then
        return raw_resume(co, ...)
    end
    local status = raw_status(co)
    if status ~= "suspended" or thread_of[co] then
        return false, "cannot resume " .. (status == "suspended" and "running" or status) .. " coroutine"
    end
    return pass(co, raw_resume(co, ...))
end

local function co_create(f)
    if type(f) ~= "function" then
        error("bad argument #1 to 'create' (Lua function expected)", 2)
    end
    wrapped(S.r)
    return raw_create(f)
end

local function co_yield(...)
    local th = S.th
    if th and th.co == raw_running() and wrapped(S.r) then
        return suspend(rt.ops.yield)
    end
    return raw_yield(...)
end

-- An error inside ends the thread that called, past every pcall.
local function unwrap(co, ok, mark, ...)
    if ok then
        return mark, ...
    end
    local trace = "coroutine 0:" .. rt.clean_traceback(traceback(co)):gsub("^stack traceback:", "")
        .. "\ncoroutine 1:" .. rt.clean_traceback(traceback(raw_running())):gsub("^stack traceback:", "")
    return leave(FAILED, message(mark), trace)
end

local function co_wrap(f)
    if type(f) ~= "function" then
        error("bad argument #1 to 'wrap' (Lua function expected)", 2)
    end
    if not wrapped(S.r) then
        return raw_wrap(f)
    end
    local co = raw_create(f)
    return function(...)
        if raw_status(co) ~= "suspended" then
            return unwrap(co, false, "cannot resume " .. raw_status(co) .. " coroutine")
        end
        return unwrap(co, pass(co, raw_resume(co, ...)))
    end
end

local function co_status(co)
    wrapped(S.r)
    return raw_status(co)
end

coroutine._create, coroutine._resume, coroutine._yield = raw_create, raw_resume, raw_yield
coroutine._wrap, coroutine._status = raw_wrap, raw_status
coroutine.create, coroutine.resume, coroutine.yield = co_create, co_resume, co_yield
coroutine.wrap, coroutine.status = co_wrap, co_status

-- Requests and threads that are alive: what a leak check looks at.
function rt.export.live()
    local n_requests, n_threads = 0, 0
    for _ in pairs(rt.requests) do
        n_requests = n_requests + 1
    end
    for _ in pairs(threads) do
        n_threads = n_threads + 1
    end
    return n_requests, n_threads
end
