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
-- A handler is a *run*: its entry thread and the user threads that come from it (ngx.thread.spawn). A run ends
-- when all of them have, and each run has a queue of threads that can go on, as OpenResty has: whoever spawns or
-- yields goes to its end, and one crossing runs all of it. So the order of threads is made here and does not
-- depend on the order in which Trio runs tasks. What threads wait for without I/O (time, semaphores, each other)
-- never leaves Lua; for that there are operations below zero, which the functions of `answers` take.
--
-- What an export returns to Python, first value:
--   0 done, 1 suspended, 2 failed (message, traceback),
--   3 ended by ngx.exit (status), 4 by ngx.exec (uri, args), 5 by ngx.req.set_uri(uri, true)
-- Suspended is one of
--   1, thread id, op, args...             the only thread of its run waits for an operation
--   1, run id, false                      all threads of the run wait for what will wake them
--   1, run id, true, thread id, op, ...   one of several waits for an operation; rt.export.proceed has the rest
-- The id of a run is that of its entry thread.

local rt = ...

local S, threads = rt.S, rt.threads
local raw_create, raw_resume, raw_yield = coroutine.create, coroutine.resume, coroutine.yield
local raw_status = coroutine.status
local error, type, tostring, select, setmetatable, pairs = error, type, tostring, select, setmetatable, pairs
local getinfo, getlocal = debug.getinfo, debug.getlocal
local find, gmatch = string.find, string.gmatch
local frames, blocks_text = rt.frames, rt.blocks_text
local next, unpack = next, unpack

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
    identity(f)(...)
    return body(raw_yield(END))
end

-- The body of a user thread; its coroutine is the handle that Lua code has, so it is not used again.
local function user_body(f, ...)
    return END, identity(f)(...)
end

local function suspend(op, ...)
    return raw_yield(OP, op, ...)
end
rt.suspend = suspend

-- Operations that are answered in Lua: a function of the thread, its run and the arguments, called when the
-- thread has really been suspended (a yield across a C call fails before). It ends with proceed(run), or by
-- running another thread. Returns the operation's number.
local answers, n_answers = {}, 0
function rt.add_answer(answer)
    n_answers = n_answers + 1
    answers[-n_answers] = answer
    return -n_answers
end

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

-- ------------------------------------------------------------------ running

-- The coroutine that spawned a user thread's. Neither keeps the other alive.
local parent_of = setmetatable({}, { __mode = "kv" })

-- The status of a coroutine that Lua takes for suspended, when it is not for its resumer: it
-- waits for an operation ("running"), for a coroutine that does ("normal"), or has been left for good.
local hidden = setmetatable({}, { __mode = "k" })

local function status_of(co)
    local status = raw_status(co)
    local th = thread_of[co]
    if th and th.state then
        return th.state
    elseif status ~= "suspended" then
        return status
    elseif th then
        return th == FREE and "dead" or th.below and "normal" or "running"
    end
    return hidden[co] or status
end
rt.coroutine_status, rt.hidden_status = status_of, hidden

local after, proceed

-- Run a thread on, with S.r set.
local function go_on(th, ...)
    S.th = th
    return after(th, raw_resume(th.co, ...))
end
rt.go_on = go_on

-- Let go of a thread: none of its code runs any more, and what it waits for is cancelled.
local function discard(th)
    threads[th.id] = nil
    local co, cancel = th.co, th.cancel
    if co then
        thread_of[co] = FREE
    end
    if cancel then
        th.cancel = nil
        cancel(th)
    end
    if th.scope then
        rt.abandon_scopes(th)
    end
end

-- The end of a run, whatever its threads do.
local function finish_run(run)
    local members = run.members
    if members then
        run.members = nil
        for th in pairs(members) do
            discard(th)
        end
        for _, co in pairs(run.zombies) do
            thread_of[co] = FREE
        end
        run.zombies, run.queue = nil, nil
    end
    discard(run)
end

rt.finish_run = finish_run

-- Put a thread at the end of its run's queue.
local function post(run, th)
    local queue = run.queue
    if not queue then
        queue = { first = 1, last = 0 }
        run.queue = queue
    end
    local last = queue.last + 1
    queue.last = last
    queue[last] = th
end

-- Threads of a run that may go on one after the other before others get their turn.
local MAX_STEPS = 1000

-- Let a thread go on with these results. It waits in Lua and its th.cancel has been called, or it is new.
function rt.ready(th, ...)
    local run = th.run
    th.values = { n = select("#", ...), ... }
    post(run, th)
    local running = S.th
    if not running or running.run ~= run then
        rt.defer(run)
    end
end

-- Run the threads that can go on, until there is something to tell.
proceed = function(run)
    local queue = run.queue
    while queue and queue.first <= queue.last do
        local steps = (run.steps or 0) + 1
        if steps > MAX_STEPS then
            run.steps = 0
            rt.defer(run)
            break
        end
        run.steps = steps
        local first = queue.first
        local th = queue[first]
        queue[first] = nil
        queue.first = first + 1
        if threads[th.id] == th then
            local child, values = th.spawned, th.values
            if child then
                th.spawned = nil
                return go_on(th, child)
            elseif values then
                th.values = nil
                return go_on(th, unpack(values, 1, values.n))
            end
            return go_on(th)
        end
    end
    return SUSPENDED, run.id, false
end
rt.proceed = proceed

-- Whether a coroutine can still wait for its threads.
local function alive(co)
    local status = co and status_of(co)
    return status and status ~= "dead" and status ~= "zombie"
end

-- A thread's coroutine has come to its end: ok, and what it returns or its error.
local function ended(th, ok, ...)
    local run, co = th.run, th.co
    run.live = run.live - 1
    run.members[th] = nil
    if th.spawner then
        for zombie, zombie_co in pairs(run.zombies) do
            if parent_of[zombie_co] == co then
                run.zombies[zombie] = nil
                zombie.state, zombie.results, zombie.run = "dead", nil, nil
            end
        end
    end
    th.co = nil
    if not th.user then
        thread_of[co] = FREE
    else
        threads[th.id] = nil
        local waiter = th.waiter
        th.run, th.waiter = nil, nil
        th.state = "dead"
        if waiter and threads[waiter.id] == waiter then
            return go_on(waiter, ok, ...)
        elseif alive(parent_of[co]) then
            th.state = "zombie"
            th.run = run
            th.results = { n = select("#", ...) + 1, ok, ... }
            run.zombies[th] = co
        end
    end
    if run.live == 0 then
        finish_run(run)
        return DONE
    end
    return proceed(run)
end

-- An error that nobody caught; blocks of its traceback from where it happened to this thread.
local function failed(th, err, blocks)
    local interrupted = rt.interrupted
    if interrupted then
        -- all threads of the run have had the time that is used up
        blocks = { rt.interrupted_at }
        rt.end_interruption()
        rt.forget_locals(th.co)
        finish_run(th.run or th)
        return FAILED, interrupted, blocks_text(blocks)
    elseif not th.user then
        finish_run(th.run or th)
        return FAILED, message(err), blocks_text(blocks)
    end
    local parent = parent_of[th.co]
    while alive(parent) do
        blocks[#blocks + 1] = frames(parent)
        parent = parent_of[parent]
    end
    rt.raw_log(4, "lua user thread aborted: runtime error: " .. message(err) .. "\nstack traceback:\n"
        .. blocks_text(blocks), th.r)
    local info = getinfo(th.co, 0, "f")
    if info and info.func == error then
        -- who waits gets the argument of error() itself, as in OpenResty
        local name, value = getlocal(th.co, 0, 1)
        if name then
            return ended(th, false, value, err)
        end
    end
    return ended(th, false, err)
end

-- A departure: the whole run goes with it, unless it is the error of a coroutine.wrap function.
local function left(th, outcome, ...)
    if outcome == FAILED then
        local err, blocks = ...
        blocks[#blocks + 1] = frames(th.co)
        return failed(th, err, blocks)
    end
    finish_run(th.run or th)
    return outcome, ...
end

-- What a user thread waits for outside of Lua is a task, which rt.py.cancel_op ends.
local function cancel_op(th)
    rt.py.cancel_op((th.run or th).id, th.id)
end
rt.cancel_op = cancel_op

-- Operations that are no point at which a thread can be cancelled.
local uncancelled = {}
rt.uncancelled = uncancelled

-- In front of the results of an operation: a scope is cancelled (25_scope.lua).
local CANCEL = {}

-- A thread has suspended that is not alone, or whose operation is answered here.
local function suspended(th, op, ...)
    local run, scope = th.run or th, th.scope
    if scope then
        local target = rt.cancelled_scope(scope)
        if target and not uncancelled[op] then
            return go_on(th, CANCEL, target)
        end
    end
    if op < 0 then
        return answers[op](th, run, ...)
    elseif run.live == 1 and not run.dormant and not scope and not run.bounded then
        return SUSPENDED, th.id, op, ...
    end
    th.cancel = cancel_op
    return SUSPENDED, run.id, true, th.id, op, ...
end

after = function(th, ok, mark, ...)
    if ok then
        if mark == OP or mark == RELAYED then
            if th.run or ... < 0 then
                return suspended(th, ...)
            end
            return SUSPENDED, th.id, ...
        elseif mark ~= END then
            return left(th, ...)
        elseif th.run then
            return ended(th, true, ...)
        end
        local co = th.co
        threads[th.id] = nil
        if n_free < MAX_FREE then
            n_free = n_free + 1
            free[n_free] = co
        end
        thread_of[co] = FREE
        return DONE
    end
    return failed(th, mark, { rt.load_trace(mark) or frames(th.co) })
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

-- Run a suspended thread on when nothing else runs.
local function resume(th, ...)
    local run = th.run
    if run then
        run.steps = 0
        th.cancel = nil
    end
    S.r, S.th, S.now = th.r, th, nil
    return restore(nil, nil, after(th, raw_resume(th.co, ...)))
end
rt.resume_thread = resume

-- The operation that a thread waited for has these results.
function rt.export.resume(id, ...)
    local th = threads[id]
    if not th then
        return SUSPENDED, id, false
    end
    return resume(th, ...)
end

-- The rest of a run's queue.
local function continue(run)
    S.r, S.now = run.r, nil
    return restore(nil, nil, proceed(run))
end
rt.continue_run = continue

function rt.export.proceed(id)
    local run = threads[id]
    if not run then
        return SUSPENDED, id, false
    end
    return continue(run)
end

-- End the run of a suspended thread.
function rt.export.drop(id)
    local th = threads[id]
    if th then
        finish_run(th.run or th)
    end
end

-- ------------------------------------------------------------------ user threads

-- A user thread runs at once; who spawned it goes on behind those that can already.
local function share(run)
    if not run.members then
        run.run, run.members, run.zombies, run.live = run, { [run] = true }, {}, 1
    end
end
rt.share_run = share

-- Make a thread of a run, in the coroutine co, which the coroutine `parent` (or nobody) may wait for.
local function new_thread(run, co, parent)
    share(run)
    local id = last_id + 1
    last_id = id
    local child = { id = id, r = run.r, co = co, run = run, user = true, start = rt.now() }
    threads[id] = child
    thread_of[co] = child
    parent_of[co] = parent
    run.members[child] = true
    run.live = run.live + 1
    return child
end

local SPAWN = rt.add_answer(function(th, run, co, parent, ...)
    local child = new_thread(run, co, parent)
    th.spawned, th.spawner = co, true
    post(run, th)
    return go_on(child, ...)
end)
uncancelled[SPAWN] = true

-- Start `f(...)` as a user thread of the running one: its coroutine.
function rt.spawn(f, ...)
    local co = raw_create(user_body)
    if rt.note_origin then
        rt.note_origin(co)
    end
    return suspend(SPAWN, co, rt.own_coroutine(), f, ...)
end

-- A user thread that nobody waits for and that begins when the running one suspends.
function rt.start_soon(f, ...)
    local th = S.th
    local child = new_thread(th.run or th, raw_create(user_body))
    rt.ready(child, f, ...)
    return child
end

local function stop_waiting(th)
    local list = th.waits
    th.waits = nil
    for i = 1, list.n do
        list[i].waiter = nil
    end
end

local WAIT = rt.add_answer(function(th, run, list, n)
    for i = 1, n do
        list[i].waiter = th
    end
    list.n = n
    th.waits, th.cancel = list, stop_waiting
    return proceed(run)
end)

local function waited(...)
    local th = S.th
    th.cancel = nil
    stop_waiting(th)
    return ...
end

-- Wait for the first of `list`, n user threads that have not ended.
function rt.wait_threads(list, n)
    return waited(suspend(WAIT, list, n))
end

-- The user thread of a coroutine, and the coroutine that spawned it; nil when there is none, false when
-- the coroutine is a light thread of another run.
function rt.user_thread(co)
    local th = thread_of[co]
    if th == FREE then
        return false
    elseif th and not th.user then
        return th.r == S.r and nil
    elseif th and th.r ~= S.r then
        return false
    end
    return th, parent_of[co]
end

-- Take the results of a zombie, which is then dead.
function rt.reap(th)
    local results = th.results
    th.run.zombies[th] = nil
    th.state, th.results, th.run = "dead", nil, nil
    return results
end

-- End a user thread that has not ended.
function rt.kill_thread(th)
    local run, co = th.run, th.co
    run.live = run.live - 1
    run.members[th] = nil
    discard(th)
    thread_of[co] = th
    th.co, th.run, th.waiter, th.scope, th.state = nil, nil, nil, nil, "dead"
end

local REST = rt.add_answer(function(th, run)
    run.live = run.live - 1
    run.dormant = th
    return proceed(run)
end)

-- Suspend the running user thread until rt.rouse; its run does not wait for it meanwhile.
function rt.rest()
    return suspend(REST)
end

-- An event: a thread that rested goes on.
local function rise(event)
    local th = event.th
    event.th = nil
    if th and threads[th.id] == th then
        return rt.wake_thread(th)
    end
end

-- Let a resting thread go on in the next turn; whether there is such a thread.
function rt.rouse(th)
    local run = th and threads[th.id] == th and th.run
    if not run or run.dormant ~= th then
        return false
    end
    run.dormant = nil
    run.live = run.live + 1
    rt.post_event { th = th, step = rise }
    return true
end

-- coroutine.yield of a light thread: others that can go on have their turn.
rt.YIELD = rt.add_answer(function(th, run)
    post(run, th)
    return proceed(run)
end)

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

-- What a thread that does not run waits for.
local function state_of(th)
    if S.th == th then
        return "running"
    elseif th.sem then
        return "waiting for a semaphore"
    elseif th.place then
        return "sleeping"
    elseif th.waits then
        return "waiting for threads"
    end
    local queue = (th.run or th).queue
    for i = queue and queue.first or 1, queue and queue.last or 0 do
        if queue[i] == th then
            return "ready"
        end
    end
    return "waiting for an operation"
end

-- Who a request is, in a word or two.
local function owner_of(r)
    if r.fake then
        return rt.context_names[r.phase] or "init"
    elseif r.parent then
        return "subrequest " .. r.uri
    end
    return r.method .. " " .. r.unparsed_uri
end
rt.owner_of = owner_of

local function describe_thread(th)
    local blocks = {}
    local below = th.below
    while below do
        table.insert(blocks, 1, frames(below.co))
        below = below.below
    end
    blocks[#blocks + 1] = frames(th.co)
    local place
    for i = 1, #blocks do
        for at in gmatch(blocks[i], "\n\t([^\n]*:%d+):") do
            -- the user's line, not that of a module of ours; Lua keeps the end of a long path
            if not place and not find(at, "trio_lua/lua/lualib/", 1, true) then
                place = at
            end
        end
    end
    local r = th.r
    return th.id, th.user or false, owner_of(r), state_of(th), rt.py.now() - (th.start or r.began or r.start),
        place or "?", blocks_text(blocks)
end

-- The live thread behind the one with this id (nil: the first): id, whether it is a user thread, owner, state,
-- age in seconds, where it is, its traceback; nil behind the last.
function rt.export.next_thread(id)
    local th
    repeat
        id, th = next(threads, id)
        if not id then
            return nil
        end
    until th.co
    return describe_thread(th)
end

-- An error.log line about a thread, with its request.
function rt.export.log_thread(id, level, message)
    local th = threads[id]
    if th then
        rt.raw_log(level, message, th.r)
    end
end

rt.marks = { OP = OP, RELAYED = RELAYED, END = END, LEAVE = LEAVE, CANCEL = CANCEL }
