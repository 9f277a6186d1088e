-- ngx.semaphore: units that light threads of all requests and timers of the worker wait for.
--
-- post does not wake anybody itself: the waiters that the units are for go on in the worker's next turn, in the order
-- in which they began to wait.

local rt = require "trio_lua.rt"

local S = rt.S
local type, error, tonumber, setmetatable, floor = type, error, tonumber, setmetatable, math.floor
local band = require("bit").band
local suspend, wake, proceed = rt.suspend, rt.wake_thread, rt.proceed
local clock_add, clock_remove, post_event = rt.clock_add, rt.clock_remove, rt.post_event
local yieldable = rt.allowed["ngx.sleep"]

local _M = { version = require("resty.core.base").version }
local mt = { __index = _M }

-- Waiters granted before others get their turn, although there are units for more.
local MAX_GRANTS = 1000

-- self.sem: n units, the number of waiters, and a list of threads from head to tail
-- (th.sem, th.sem_before, th.sem_behind).

local function unlink(th)
    local sem, left, right = th.sem, th.sem_before, th.sem_behind
    if left then
        left.sem_behind = right
    else
        sem.head = right
    end
    if right then
        right.sem_before = left
    else
        sem.tail = left
    end
    sem.waiters = sem.waiters - 1
    th.sem, th.sem_before, th.sem_behind = nil, nil, nil
end

local function timed_out(th)
    unlink(th)
    th.cancel = nil
    return wake(th, false, "timeout")
end

local function cancelled(th)
    unlink(th)
    clock_remove(th)
end

local WAIT = rt.add_answer(function(th, run, sem, delay)
    local tail = sem.tail
    th.sem, th.sem_before, th.sem_behind = sem, tail, nil
    if tail then
        tail.sem_behind = th
    else
        sem.head = th
    end
    sem.tail = th
    sem.waiters = sem.waiters + 1
    th.expire, th.cancel = timed_out, cancelled
    clock_add(th, delay)
    return proceed(run)
end)

-- An event: wake the next waiter there is a unit for.
local function grant(sem)
    local th = sem.head
    if th and sem.n > 0 and sem.grants < MAX_GRANTS then
        sem.grants = sem.grants + 1
        sem.n = sem.n - 1
        th.cancel = nil
        cancelled(th)
        return wake(th, true)
    end
    sem.posted = nil
    if th and sem.n > 0 then
        sem.grants, sem.posted = 0, true
        post_event(sem)
    end
end

local function check(self)
    if type(self) ~= "table" or type(self.sem) ~= "table" then
        error("not a semaphore instance", 3)
    end
    return self.sem
end

function _M.new(n)
    n = tonumber(n) or 0
    if n < 0 then
        error("no negative number", 2)
    end
    return setmetatable({ sem = { n = floor(n), waiters = 0, grants = 0, step = grant } }, mt)
end

function _M.wait(self, seconds)
    local sem = check(self)
    local r = S.r
    if not r then
        error("no request found", 2)
    end
    local ms = tonumber(seconds) * 1000
    if ms < 0 then
        error("no negative number", 2)
    end
    if band(r.phase, yieldable) == 0 then
        return nil, "API disabled in the context of " .. (rt.context_names[r.phase] or "unknown")
    end
    if not sem.head and sem.n > 0 then
        sem.n = sem.n - 1
        return true
    end
    ms = floor(ms)
    if ms == 0 then
        return nil, "timeout"
    end
    local ok, err = suspend(WAIT, sem, ms * 1000)
    return ok, err
end

function _M.post(self, n)
    local sem = check(self)
    n = n and tonumber(n) or 1
    if n < 1 then
        error("positive number required", 2)
    end
    sem.n = sem.n + floor(n)
    if sem.head and not sem.posted then
        sem.grants, sem.posted = 0, true
        post_event(sem)
    end
    return true
end

function _M.count(self)
    local sem = check(self)
    return sem.n - sem.waiters
end

return _M
