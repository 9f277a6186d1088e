-- Cancel scopes: the ground of the module `trio` (lualib/trio.lua).
--
-- What a scope limits runs in a coroutine of its own, nested as a user's coroutines are. To cancel is to never resume
-- that coroutine again and to go on behind the scope; so no pcall can swallow it, and code without scopes pays nothing.
-- Cancellation happens where the thread waits, or when it next wants to. Deferred functions are what runs then.
--
-- A thread has a chain of scopes, th.scope and its parents; that of a nursery's child leads on into the nursery.
-- A scope: th, parent, co; cancelled, caught, shielded; at (deadline); defers; of nurseries also pending (how many
-- children run), children, touched (one was cancelled), waiter (the thread that waits for them), failed and failure.

local rt = ...

local S, threads = rt.S, rt.threads
local raw_create, raw_resume, raw_running = coroutine._create, coroutine._resume, coroutine.running
local error, pairs, rawequal, select, setmetatable = error, pairs, rawequal, select, setmetatable
local floor, huge, max, sort = math.floor, math.huge, math.max, table.sort
local marks, suspend, leave, proceed, ready = rt.marks, rt.suspend, rt.leave, rt.proceed, rt.ready
local OP, RELAYED, END, LEAVE, CANCEL = marks.OP, marks.RELAYED, marks.END, marks.LEAVE, marks.CANCEL
local FAILED = rt.outcome.FAILED
local yield_upwards = rt.yield_upwards

-- The outermost scope that the inside of this one has to leave, or nil.
local function cancelled_scope(scope)
    local found
    repeat
        if scope.cancelled then
            found = scope
        end
        if scope.shielded then
            break
        end
        scope = scope.parent
    until not scope
    return found
end
rt.cancelled_scope = cancelled_scope

-- The coroutine that Lua code thinks it runs in.
local enclosing = setmetatable({}, { __mode = "kv" })
function rt.own_coroutine()
    local co = raw_running()
    while enclosing[co] do
        co = enclosing[co]
    end
    return co
end

-- ------------------------------------------------------------------- cancelling

local function by_id(a, b)
    return a.id < b.id
end

-- Interrupt the threads that wait inside cancelled scopes of a run.
local function interrupt(run)
    local blocked, n = {}, 0
    for th in pairs(run.members or {}) do
        if th.cancel and th.scope and cancelled_scope(th.scope) then
            n = n + 1
            blocked[n] = th
        end
    end
    sort(blocked, by_id)
    for i = 1, n do
        local th = blocked[i]
        local cancel = th.cancel
        th.cancel = nil
        cancel(th)
        ready(th, CANCEL, cancelled_scope(th.scope))
    end
end

local function disarm(scope)
    local node = scope.node
    if node and node.place then
        rt.clock_remove(node)
    end
end

local function cancel(scope)
    if not scope.cancelled then
        scope.cancelled = true
        disarm(scope)
        local th = scope.th
        if th and th.run then
            interrupt(th.run)
        end
    end
end
rt.cancel_scope = cancel

local function expired(node)
    local scope = node.scope
    local run = scope.th.run
    cancel(scope)
    return run.id, rt.continue_run(run)
end

-- Let the clock cancel a scope that has been entered at its deadline.
local function arm(scope)
    disarm(scope)
    if scope.at < huge and not scope.cancelled then
        local node = scope.node or { expire = expired, scope = scope }
        scope.node = node
        rt.clock_add(node, max(0, floor((scope.at - rt.py.monotonic()) * 1e6 + 0.5)))
    end
end

function rt.set_deadline(scope, at)
    scope.at = at
    if scope.th then
        arm(scope)
    end
end

function rt.set_shield(scope, shielded)
    scope.shielded = shielded
    if scope.th and scope.th.run then
        interrupt(scope.th.run)
    end
end

-- --------------------------------------------------------------------- running

-- The traceback of the last error that left a scope, which would end there.
local last_error, last_frames
local load_trace = rt.load_trace
function rt.load_trace(err)
    if last_error ~= nil and rawequal(err, last_error) then
        return last_frames
    end
    return load_trace(err)
end

local step, unwind

-- The end of a scope: how is true (and results), false (and an error), or nil when it was cancelled.
local function finish(scope, how, ...)
    if how == false and scope.pending then
        cancel(scope)
    end
    local waited = unwind(scope.th, scope, how == nil)
    scope.th = nil
    if not scope.base then
        local touched = how == nil or scope.touched
        if not scope.parent or scope.shielded or not cancelled_scope(scope.parent) then
            scope.caught = touched
        elseif (touched or waited) and how ~= false and not scope.failed then
            -- a cancellation from further out goes on, as Trio's exception would; an error has precedence
            rt.sleep(0)
        end
    end
    return how, ...
end

-- The results of an operation come back; they may be a cancellation of this scope, or, at a thread's base,
-- of one that the thread itself does not have.
local function resumed(scope, mark, target, ...)
    if mark == CANCEL and (target == scope or (scope.base and target.th ~= scope.th)) then
        if scope.base then
            scope.parent.touched = true
        end
        scope.th.below = nil
        return finish(scope, nil)
    end
    return step(scope, raw_resume(scope.co, mark, target, ...))
end

local function pass_count(scope, n, ...)
    -- the number of results is part of them
    if n >= 2 then
        return resumed(scope, ...)
    elseif n == 1 then
        return step(scope, raw_resume(scope.co, (...)))
    end
    return step(scope, raw_resume(scope.co))
end

local function counted(scope, ...)
    return pass_count(scope, select("#", ...), ...)
end

step = function(scope, ok, mark, ...)
    if not ok then
        if rt.interrupted then
            return leave(FAILED, mark, {})
        end
        last_error, last_frames = mark, rt.load_trace(mark) or rt.frames(scope.co)
        return finish(scope, false, mark)
    elseif mark == END then
        return finish(scope, true, ...)
    elseif mark == OP or mark == RELAYED then
        return counted(scope, yield_upwards(scope.co, ...))
    elseif mark == LEAVE then
        local outcome, err = ...
        if outcome == FAILED then
            return finish(scope, false, err)
        end
        return leave(...)
    elseif raw_running() == scope.th.co then
        -- coroutine.yield of a light thread
        return counted(scope, coroutine.yield())
    end
    return finish(scope, false, "attempt to yield out of a cancel scope")
end

local function body(f, ...)
    return END, f(...)
end

-- Run f(...) inside a scope: true and its results, false and its error, or nil when the scope was cancelled.
local function enter(scope, f, ...)
    local th = S.th
    if scope.co then
        error("a cancel scope can be entered only once", 3)
    end
    rt.share_run(th.run or th)
    local co = raw_create(body)
    local outer = th.scope
    scope.th, scope.parent, scope.co = th, outer, co
    scope.level = (scope.base or not outer) and 1 or outer.level + 1
    th.scope = scope
    enclosing[co] = raw_running()
    arm(scope)
    return step(scope, raw_resume(co, f, ...))
end

-- Scopes in each other are coroutines above each other on the C stack, which has an end that Lua does not see.
local MAX_LEVEL = 5000

function rt.enter_scope(scope, f, ...)
    local outer = S.th.scope
    if outer and outer.level >= MAX_LEVEL then
        error("too many cancel scopes in each other", 3)
    end
    return enter(scope, f, ...)
end

-- Wait for a nursery's children; its own cancellation comes to them, not to this.
local JOIN = rt.add_answer(function(th, run, nursery)
    nursery.waiter = th
    return proceed(run)
end)
rt.uncancelled[JOIN] = true

local function log_failure(th, what, err)
    rt.raw_log(4, what .. ": " .. rt.error_text(err) .. "\nstack traceback:" .. (rt.load_trace(err) or ""), th.r)
end

-- Leave the scopes of the running thread from the innermost up to `scope`; whether children had to be waited for.
unwind = function(th, scope, abandoned)
    local waited = false
    repeat
        local inner = th.scope
        local gone = abandoned or inner ~= scope
        if inner.pending then
            if gone then
                cancel(inner)
            end
            while inner.pending > 0 do
                waited = true
                suspend(JOIN, inner)
            end
        end
        local defers = inner.defers
        for i = defers and #defers or 0, 1, -1 do
            local d = defers[i]
            defers[i] = nil
            -- in a cancelled scope it may not wait, unless it has a shield
            local how, err = enter({ at = huge, cancelled = gone, shielded = gone }, d.f, unpack(d, 1, d.n))
            if how == false then
                log_failure(th, "error in a deferred function", err)
            end
        end
        disarm(inner)
        th.scope = inner.parent
    until inner == scope
    return waited
end

-- A thread is gone with its scopes. What they have deferred runs now, up to where it would wait.
function rt.abandon_scopes(th)
    local old_r, old_th, run = S.r, S.th, th.run
    local scope = th.scope
    while scope and scope.th == th do
        th.scope = scope.parent
        disarm(scope)
        for child in pairs(scope.children or {}) do
            if run.members and threads[child.id] == child then
                rt.kill_thread(child)
            end
        end
        local defers = scope.defers
        for i = defers and #defers or 0, 1, -1 do
            local d = defers[i]
            S.r, S.th = th.r, th
            local ok, err = raw_resume(raw_create(d.f), unpack(d, 1, d.n))
            if not ok then
                log_failure(th, "error in a deferred function", err)
            end
        end
        scope = scope.parent
    end
    th.scope = nil
    S.r, S.th = old_r, old_th
end

-- -------------------------------------------------------------------- nurseries

local function child_main(nursery, f, ...)
    local th = S.th
    local how, err = enter({ at = huge, base = true }, f, ...)
    th.scope = nil
    nursery.pending = nursery.pending - 1
    nursery.children[th] = nil
    if how == false then
        if nursery.failed then
            log_failure(th, "another error in a nursery", err)
        else
            nursery.failed, nursery.failure = true, err
            cancel(nursery)
        end
    end
    local waiter = nursery.waiter
    if waiter and nursery.pending == 0 then
        nursery.waiter = nil
        ready(waiter)
    end
end

function rt.start_child(nursery, f, ...)
    nursery.pending = nursery.pending + 1
    local child = rt.start_soon(child_main, nursery, f, ...)
    child.scope = nursery
    nursery.children[child] = true
end

-- ----------------------------------------------------------------- parking lots
--
-- Threads that wait for each other: a lot is a list with head and tail.

local function unlink(th)
    local lot, left, right = th.lot, th.lot_before, th.lot_behind
    if left then
        left.lot_behind = right
    else
        lot.head = right
    end
    if right then
        right.lot_before = left
    else
        lot.tail = left
    end
    th.lot, th.lot_before, th.lot_behind = nil, nil, nil
end

local function left(th)
    local gone = th.lot.gone
    unlink(th)
    if gone then
        gone(th)
    end
end

local PARK = rt.add_answer(function(th, run, lot)
    rt.share_run(run)
    local tail = lot.tail
    th.lot, th.lot_before, th.lot_behind = lot, tail, nil
    if tail then
        tail.lot_behind = th
    else
        lot.head = th
    end
    lot.tail, th.cancel = th, left
    return proceed(run)
end)

-- Wait until unpark gives results. lot.gone(th), if there is one, is called when a thread leaves the lot unwoken.
function rt.park(lot)
    return suspend(PARK, lot)
end

-- Let a parked thread go on.
function rt.unpark_thread(th, ...)
    th.cancel = nil
    unlink(th)
    ready(th, ...)
end

-- Let the first thread of a lot go on; returns it, or nil when there is none.
function rt.unpark(lot, ...)
    local th = lot.head
    if th then
        rt.unpark_thread(th, ...)
    end
    return th
end
