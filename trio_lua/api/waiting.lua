-- lua_strict_phases off: handlers may wait in phases where OpenResty's may not.
--
-- Such a handler needs a light thread. For set, log and init_worker Python starts one, and so it does for what ends or
-- sends a response when filters have to run; it asks for the results when the thread has ended. A filter of what a handler
-- prints runs on that handler's thread, in a coroutine of its own: what the filter waits for passes by here, and while it
-- waits the request is in the handler's phase again, for its other threads. Those find the output occupied
-- (rt.wait_for_filter), as one filter must not begin before the one in front of it has ended.

local rt = ...

if rt.strict_phases ~= false then
    return
end

local S, requests, threads, py = rt.S, rt.requests, rt.threads, rt.py
local xpcall, select, unpack = xpcall, select, unpack
local create, resume, status = coroutine._create, coroutine._resume, coroutine._status
local closure, start_thread, on_error, run_sync = rt.closure, rt.start_thread, rt.on_error, rt.run_sync
local yield_upwards, error_text = rt.yield_upwards, rt.error_text
local OP, RELAYED, LEAVE = rt.marks.OP, rt.marks.RELAYED, rt.marks.LEAVE
local FAILED = rt.outcome.FAILED

-- Between two looks at an occupied output, in seconds.
local PAUSE = 0.001

local function keep(r, ...)
    r.kept = { n = select("#", ...), ... }
end

-- The results of the function that Python has started last for a request.
function rt.export.kept(id)
    local r = requests[id]
    local kept = r.kept
    r.kept = nil
    return unpack(kept, 1, kept.n)
end

local function call(r, f, ...)
    return keep(r, f(r, ...))
end

-- Run one of rt.response: functions that filter a response, of the request and more.
function rt.export.start_response(id, name, ...)
    S.now = nil
    return start_thread(requests[id], call, requests[id], rt.response[name], ...)
end

local function protected(r, phase, f)
    local old = r.phase
    r.phase = phase
    keep(r, xpcall(f, on_error))
    r.phase = old
end

local function start(r, phase, fn, err)
    if not fn then
        keep(r, false, err)
        return 0
    end
    S.now = nil
    return start_thread(r, protected, r, phase, fn)
end

-- Run a handler; its results are those of rt.export.run_sync.
function rt.export.start_handler(id, handler, phase, path)
    local r = requests[id]
    return start(r, phase, closure(r, handler, path))
end

-- The same for a handler outside of requests: the number of what stands in for one, to be released, and the outcome.
function rt.export.start_main(handler, phase, path)
    local id = rt.new_id()
    local r = {
        id = id, fake = true, phase = phase, loc = rt.main_location, start = 0, main = false, status = 0,
        began = py.now(),
    }
    requests[id] = r
    return id, start(r, phase, rt.main_closure(handler, path))
end

-- ------------------------------------------------------------------ filters

-- Wait until no other thread's filter is at work.
function rt.wait_for_filter(r)
    while r.filtering do
        if threads[r.filtering.id] ~= r.filtering then
            -- killed at its work: what it had taken is lost
            r.filtering = nil
            r.broken, r.keepalive = true, false
            py.abort(r.cid)
            return
        end
        rt.sleep(PAUSE)
    end
end

local function body(f, ...)
    return xpcall(f, on_error, ...)
end

local pass

local function again(r, phase, old, co, data, last, ...)
    local arg = rt.filter_arg
    r.phase = phase
    arg[1], arg[2] = data, last
    return pass(r, phase, old, co, resume(co, ...))
end

-- What has come out of a filter's coroutine: its results, or something to hand upwards. ngx.arg is one for all, and so
-- a filter that waits takes its own with it.
pass = function(r, phase, old, co, ok, mark, ...)
    if status(co) == "dead" then
        return mark, ...
    end
    local data, last = rt.filter_arg[1], rt.filter_arg[2]
    if mark == OP or mark == RELAYED then
        r.phase = old
        return again(r, phase, old, co, data, last, yield_upwards(co, ...))
    elseif mark == LEAVE then
        local outcome, err = ...
        return false, outcome == FAILED and error_text(err) or "a filter left its handler"
    end
    -- coroutine.yield at its top level, where nobody could resume it
    return again(r, phase, old, co, data, last)
end

local function finish(r, old, ...)
    r.phase, r.filtering = old, nil
    return ...
end

-- As rt.run_sync, but f may wait.
function rt.run_filter(r, phase, f, ...)
    local th = S.th
    if not th or th.r ~= r then
        return run_sync(r, phase, f, ...)
    end
    local old = r.phase
    r.phase, r.filtering = phase, th
    local co = create(body)
    return finish(r, old, pass(r, phase, old, co, resume(co, f, ...)))
end
