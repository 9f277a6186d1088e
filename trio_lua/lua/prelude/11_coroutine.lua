-- coroutine.*: coroutines of users, between the light threads and the driver.
--
-- coroutine.resume passes an operation of the coroutine below upwards and its results down again, so that to the resumer
-- the callee has simply taken its time. Which versions are used depends on the phase, as in OpenResty.
--
-- Coroutines that resume each other lie above each other on the C stack, which LuaJIT does not watch. So their number is
-- limited here.

local rt = ...

local S = rt.S
local raw_create, raw_resume, raw_yield = coroutine.create, coroutine.resume, coroutine.yield
local raw_status, raw_running, raw_wrap = coroutine.status, coroutine.running, coroutine.wrap
local error, type, select = error, type, select
local band = require("bit").band
local marks, suspend, leave, frames = rt.marks, rt.suspend, rt.leave, rt.frames
local OP, RELAYED, LEAVE = marks.OP, marks.RELAYED, marks.LEAVE
local FAILED, YIELD = rt.outcome.FAILED, rt.YIELD
local status_of, hidden = rt.coroutine_status, rt.hidden_status

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

-- How many coroutines lie between the thread `counted` and the running code. Nothing does while a thread is suspended.
local depth, counted = 0, nil
local MAX_DEPTH = 5000
local TOO_DEEP = "C stack overflow"

-- Whether the running coroutine may resume one more.
local function deeper()
    local th = S.th
    if th ~= counted then
        -- the error of a full Lua stack may have kept the last thread from counting down
        counted, depth = th, 0
    end
    if depth >= MAX_DEPTH then
        return false
    end
    depth = depth + 1
    return true
end

local function resume_again(co, ...)
    hidden[co] = nil
    depth = depth + 1
    return raw_resume(co, ...)
end

-- Pass an operation of coroutine co below up, and its results down. th.below lists those coroutines, from the one
-- that the thread has resumed to the one that waits.
local function relayed(th, ...)
    th.below = th.below.below
    return ...
end

local function yield_upwards(co, ...)
    local th = S.th
    th.below = { co = co, below = th.below }
    return relayed(th, raw_yield(RELAYED, ...))
end

local relay, pass

-- Results of co's coroutine.resume, once it has really returned, failed or yielded to it.
pass = function(co, ok, ...)
    depth = depth - 1
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
        return pass(co, resume_again(co, yield_upwards(co, ...)))
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
    elseif not deeper() then
        return false, TOO_DEEP
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
            return suspend(YIELD)
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
    depth = depth - 1
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
        return unwrap(co, resume_again(co, yield_upwards(co, ...)))
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
        elseif not deeper() then
            error(TOO_DEEP, 2)
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

rt.yield_upwards = yield_upwards

coroutine._create, coroutine._resume, coroutine._yield = raw_create, raw_resume, raw_yield
coroutine._wrap, coroutine._status = raw_wrap, raw_status
coroutine.create, coroutine.resume, coroutine.yield = co_create, co_resume, co_yield
coroutine.wrap, coroutine.status = co_wrap, co_status
-- OpenResty's names for its own versions, of which the public ones choose by phase
coroutine.__create, coroutine.__resume, coroutine.__yield = co_create, co_resume, co_yield
coroutine.__wrap, coroutine.__status = co_wrap, co_status
-- not in OpenResty, and its answer would be another one here
coroutine.isyieldable = nil
