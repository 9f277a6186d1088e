-- Deadlines of requests: lua_request_timeout and ngx.req.set_deadline.
--
-- A deadline is a time of the VM's clock, at which the present handler of the request ends as by ngx.exit(504): what its
-- threads wait for is cancelled with it. Only handlers that wait can be late in this way; those that compute are
-- for the guard. A handler that has a deadline is *bounded*: every operation is a task that can be cancelled, as it is with several
-- threads.

local rt = ...

local S, threads, requests, ngx = rt.S, rt.threads, rt.requests, rt.ngx
local type, error, max, floor, format = type, error, math.max, math.floor, string.format
local suspend, finish_run, clock_add, clock_remove = rt.suspend, rt.finish_run, rt.clock_add, rt.clock_remove
local checker, at_release, raw_log = rt.checker, rt.at_release, rt.raw_log
local EXIT = rt.outcome.EXIT
local MARK = rt.ops.mark_bounded

local ERROR = 4
local GATEWAY_TIMEOUT = 504
-- Seconds; more are the same to a request.
local LONGEST = 1e9

local function expired(node)
    local run = node.run
    if not run or threads[run.id] ~= run then
        -- its next handler that waits will be late
        node.late = true
        return 0
    end
    local r = node.r
    raw_log(ERROR, format("the request has not ended by its deadline, %.3f s after its beginning",
        rt.py.now() - r.start), r)
    finish_run(run)
    return run.id, EXIT, GATEWAY_TIMEOUT
end

local function cancelled(r)
    local node = r.deadline
    r.deadline = nil
    if node.place then
        clock_remove(node)
    end
end

local function set(r, seconds)
    local node = r.deadline
    if not node then
        node = { r = r, expire = expired }
        r.deadline = node
        at_release(r, cancelled)
    elseif node.place then
        clock_remove(node)
    end
    node.late = false
    clock_add(node, max(0, floor(seconds * 1e6)))
    return node
end

local function bind(r, run)
    rt.share_run(run)
    run.bounded = true
    local node = r.deadline
    node.run = run
    if node.late then
        node.late = false
        clock_add(node, 0)
    end
end

-- A handler that has a deadline has suspended with these values: what to do instead. seconds: lua_request_timeout, 0 for
-- none.
function rt.export.bound(rid, seconds, outcome, id, op, ...)
    local r, th = requests[rid], threads[id]
    if seconds > 0 and not r.deadline then
        set(r, r.start + seconds - rt.py.now())
    end
    if r.deadline then
        local run = th.run or th
        bind(r, run)
        if type(op) == "number" then
            th.cancel = rt.cancel_op
            return outcome, run.id, true, id, op, ...
        end
    end
    return outcome, id, op, ...
end

local check = checker("ngx.req.set_deadline", true)

--- Let the request end with status 504 if it has not ended in so many seconds; nil for no deadline.
function ngx.req.set_deadline(seconds)
    local r = check()
    if seconds == nil then
        if r.deadline then
            set(r, LONGEST)
        end
        return
    elseif type(seconds) ~= "number" then
        rt.type_error(1, "set_deadline", "number", type(seconds))
    elseif not (seconds >= 0) then
        error("the deadline must not be negative", 2)
    end
    local th = S.th
    if not th then
        error("a deadline is for handlers that may wait", 2)
    end
    set(r, seconds < LONGEST and seconds or LONGEST)
    bind(r, th.run or th)
    suspend(MARK)
end
