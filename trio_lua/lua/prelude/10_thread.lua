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
local getinfo = debug.getinfo
local concat, sub = table.concat, string.sub
local band = require("bit").band

local DONE, SUSPENDED, FAILED, EXIT, EXEC, JUMP = 0, 1, 2, 3, 4, 5
rt.outcome = { DONE = DONE, SUSPENDED = SUSPENDED, FAILED = FAILED, EXIT = EXIT, EXEC = EXEC, JUMP = JUMP }

-- Marks on the stack of a yield: an operation of this coroutine, one of a coroutine further down, the
-- end of a recycled coroutine's body, and a departure from which the thread never returns
-- (exit, exec, jump, an error past all pcalls).
local OP, RELAYED, END, LEAVE = {}, {}, {}, {}

-- coroutine -> its light thread, FREE while it waits for its next use
local thread_of = setmetatable({}, { __mode = "k" })
local FREE = {}
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
rt.error_text = message

-- ------------------------------------------------------------------ tracebacks
--
-- In the form of OpenResty's. Frames of this package stand for what is C there: a call into it is
-- one line "[C]: in function 'NAME'", what lies below the user's outermost frame is left out,
-- and a handler, which is a function here, is a main chunk.

local MAX_FRAMES, MAX_BLOCKS = 22, 5

local function describe(info, outermost)
    local text = "\n\t" .. info.short_src .. ":"
    if info.currentline > 0 then
        text = text .. info.currentline .. ":"
    end
    if info.namewhat ~= "" then
        return text .. " in function '" .. info.name .. "'"
    elseif info.what == "main" or (outermost and info.linedefined == 1) then
        return text .. " in main chunk"
    elseif info.what == "C" then
        return text .. " ?"
    end
    return text .. " in function <" .. info.short_src .. ":" .. info.linedefined .. ">"
end

-- "\n\tFILE:LINE: in function 'NAME'" for each frame of coroutine co; without co of the running
-- one, from `level` outwards (0 is who calls this).
local function frames(co, level)
    level = co and 0 or level + 2
    local lines, n = {}, 0
    local waiting, n_waiting = {}, 0 -- frames of C and of this package, until a user's frame follows
    local last -- the user's outermost frame so far, and the place of its line
    local last_at
    while true do
        local info
        if co then
            info = getinfo(co, level, "Snlf")
        else
            info = getinfo(level, "Snlf")
        end
        if not info or info.func == rt.run_sync then
            -- a filter may run on the stack of the handler whose output it filters
            break
        end
        level = level + 1
        if sub(info.source, 1, 5) == "=ngx/" then
            n_waiting = 1
            waiting[1] = info.namewhat ~= "" and "\n\t[C]: in function '" .. info.name .. "'" or "\n\t[C]: ?"
        elseif info.what == "C" then
            n_waiting = n_waiting + 1
            waiting[n_waiting] = describe(info)
        else
            for i = 1, n_waiting do
                lines[n + i] = waiting[i]
            end
            n = n + n_waiting
            n_waiting = 0
            n = n + 1
            lines[n] = describe(info)
            last, last_at = info, n
            if n > MAX_FRAMES then
                -- an overflown stack has frames without end
                break
            end
        end
    end
    if last then
        lines[last_at] = describe(last, true)
    end
    if n > MAX_FRAMES then
        return concat(lines, "", 1, MAX_FRAMES) .. "\n\t..."
    end
    return concat(lines, "", 1, n)
end
rt.frames = frames

-- A list of frames(), from the coroutine where it happened to the light thread.
local function blocks_text(blocks)
    local text = "coroutine 0:" .. blocks[1]
    for i = 2, #blocks < MAX_BLOCKS and #blocks or MAX_BLOCKS do
        text = text .. "\ncoroutine " .. i - 1 .. ":" .. blocks[i]
    end
    return text
end

-- ------------------------------------------------------------------ running

-- What a coroutine.wrap function leaves with: its error, and blocks of those below.
local function left(th, outcome, ...)
    if outcome == FAILED then
        local err, blocks = ...
        blocks[#blocks + 1] = frames(th.co)
        return FAILED, message(err), blocks_text(blocks)
    end
    return outcome, ...
end

local function after(th, ok, mark, ...)
    if ok then
        if mark == OP or mark == RELAYED then
            return SUSPENDED, th.id, ...
        end
        local co = th.co
        threads[th.id] = nil
        if mark == END then
            if n_free < MAX_FREE then
                n_free = n_free + 1
                free[n_free] = co
            end
            thread_of[co] = FREE
            return DONE
        end
        thread_of[co] = FREE
        return left(th, ...)
    end
    threads[th.id] = nil
    thread_of[th.co] = nil
    return FAILED, message(mark), blocks_text { rt.load_trace(mark) or frames(th.co) }
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
    S.r, S.th = r, th
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
        thread_of[th.co] = FREE
    end
end

-- How many requests and light threads there are: what a test counts when all should be over.
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

-- The status of a coroutine that Lua takes for suspended, when it is not for its resumer: it
-- waits for an operation ("running"), for a coroutine that does ("normal"), or has been left for good.
local hidden = setmetatable({}, { __mode = "k" })

local function status_of(co)
    local status = raw_status(co)
    if status ~= "suspended" then
        return status
    end
    local th = thread_of[co]
    if th then
        return th == FREE and "dead" or "running"
    end
    return hidden[co] or status
end

local function resume_again(co, ...)
    hidden[co] = nil
    return raw_resume(co, ...)
end

local relay, pass

-- Results of co's coroutine.resume, once it has really returned, failed or yielded to it.
pass = function(co, ok, ...)
    if ok then
        local mark = ...
        if mark == OP or mark == RELAYED or mark == LEAVE then
            return relay(co, ...)
        end
    end
    return ok, ...
end

relay = function(co, mark, ...)
    if mark ~= LEAVE then
        hidden[co] = mark == OP and "running" or "normal"
        return pass(co, resume_again(co, raw_yield(RELAYED, ...)))
    end
    hidden[co] = "dead"
    local outcome, err = ...
    if outcome == FAILED then
        -- an error out of a wrap function goes no further than the next coroutine.resume
        return false, err
    end
    return leave(...)
end

local function co_resume(co, ...)
    if type(co) ~= "thread" then
        error("bad argument #1 to 'resume' (coroutine expected)", 2)
    end
    if not wrapped(S.r) then
        return raw_resume(co, ...)
    end
    local status = status_of(co)
    if status ~= "suspended" then
        return false, "cannot resume " .. status .. " coroutine"
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
    if th then
        if th.co == raw_running() then
            return suspend(rt.ops.yield)
        end
        return raw_yield(...)
    end
    wrapped(S.r)
    if S.sync and raw_running() == S.sync then
        -- a filter that runs on the stack of a light thread
        error("attempt to yield across C-call boundary", 2)
    end
    return raw_yield(...)
end

local relay_wrap

-- An error inside ends what called: past every pcall, up to the next coroutine.resume or the light
-- thread, where `blocks` become the traceback.
local function unwrap(co, ok, ...)
    local mark = ...
    if ok then
        if mark == OP or mark == RELAYED or mark == LEAVE then
            return relay_wrap(co, ...)
        end
        return ...
    end
    return leave(FAILED, mark, { rt.load_trace(mark) or frames(co) })
end

relay_wrap = function(co, mark, ...)
    if mark ~= LEAVE then
        hidden[co] = mark == OP and "running" or "normal"
        return unwrap(co, resume_again(co, raw_yield(RELAYED, ...)))
    end
    hidden[co] = "dead"
    local outcome, err, blocks = ...
    if outcome == FAILED then
        blocks[#blocks + 1] = frames(co)
        return leave(FAILED, err, blocks)
    end
    return leave(...)
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
        local r = S.r
        if not r then
            error("no request found", 2)
        elseif not wrapped(r) then
            error("API disabled in the context of " .. rt.context_names[r.phase], 2)
        end
        local status = status_of(co)
        if status ~= "suspended" then
            return false, "cannot resume " .. status .. " coroutine"
        end
        return unwrap(co, raw_resume(co, ...))
    end
end

local function co_status(co)
    if type(co) ~= "thread" then
        error("bad argument #1 to 'status' (coroutine expected)", 2)
    end
    wrapped(S.r)
    return status_of(co)
end

coroutine._create, coroutine._resume, coroutine._yield = raw_create, raw_resume, raw_yield
coroutine._wrap, coroutine._status = raw_wrap, raw_status
coroutine.create, coroutine.resume, coroutine.yield = co_create, co_resume, co_yield
coroutine.wrap, coroutine.status = co_wrap, co_status
-- OpenResty's names for its own versions, of which the public ones choose by phase
coroutine.__create, coroutine.__resume, coroutine.__yield = co_create, co_resume, co_yield
coroutine.__wrap, coroutine.__status = co_wrap, co_status
-- not in OpenResty, and its answer would be another one here
coroutine.isyieldable = nil
