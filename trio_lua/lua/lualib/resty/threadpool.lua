-- resty.threadpool: Lua functions in the threads of a pool.
--
-- A task is a coroutine that runs in a VM of the pool. Resuming it suspends the light thread that does so
-- until the task returns or yields.

local rt = require "trio_lua.rt"
local message = require "trio_lua.message"

local py = rt.py
local error, type, select, pairs, setmetatable, getmetatable, pcall
    = error, type, select, pairs, setmetatable, getmetatable, pcall
local getfenv, newproxy, floor = getfenv, newproxy, math.floor
local encode, decode, function_name = message.encode, message.decode, message.function_name

local DONE, SUSPENDED, FAILED = 0, 1, 2

local _M = { _VERSION = "1.0" }

local Task = {}
local meta = { __index = Task }

local function check_pool(pool)
    if type(pool) ~= "string" then
        error("bad argument #1 (name of a thread pool expected, got " .. type(pool) .. ")", 3)
    elseif not py.has_thread_pool(pool) then
        error('thread pool "' .. pool .. '" not found', 3)
    end
end

local function check_function(f)
    if type(f) ~= "function" then
        error("bad argument #2 (function expected, got " .. type(f) .. ")", 3)
    elseif debug.getinfo(f, "S").what == "C" then
        error("bad argument #2 (Lua function expected, got the C function " .. function_name(f) .. ")", 3)
    end
end

local function new_task(pool, f)
    return setmetatable({ pool = pool, id = rt.new_pool_task(), f = f, state = "new" }, meta)
end

--- A task that will run `f` in the thread pool `pool`.
function _M.create(pool, f)
    check_pool(pool)
    check_function(f)
    return new_task(pool, f)
end

--- "suspended", "running" (or waiting for a thread) or "dead".
function Task:status()
    local state = self.state
    if state == "new" then
        return "suspended"
    elseif state == "running" and not py.has_pool_task(self.id) then
        return "dead"
    end
    return state
end

local function ended(task)
    task.state, task.proxy = "dead", nil
    rt.end_pool_task(task.id)
end

-- What task:resume returns or raises.
local function results(task, globals, outcome, ...)
    if outcome == DONE then
        ended(task)
        return decode(globals, ...)
    elseif outcome == SUSPENDED then
        task.state = "suspended"
        if not task.proxy then
            -- a task that nobody can resume any more gives its VM back
            local id = task.id
            local proxy = newproxy(true)
            getmetatable(proxy).__gc = function()
                local drop = py.drop_pool_task
                if drop then
                    drop(id)
                end
            end
            task.proxy = proxy
        end
        return decode(globals, ...)
    end
    ended(task)
    if outcome == FAILED then
        local trace = ...
        local err = decode(globals, select(2, ...))
        task.traceback = trace
        if type(err) == "string" and trace ~= "" then
            err = err .. "\nstack traceback of the thread:" .. trace
        end
        error(err, 0)
    end
    -- the pool did not take it, or lost it
    error((...), 0)
end

local function resume(task, globals, ...)
    local status = task:status()
    if status ~= "suspended" then
        error("cannot resume " .. status .. " task", 2)
    end
    local new = task.state == "new"
    if new then
        task.f = nil
    end
    task.state = "running"
    return results(task, globals, rt.run_pool_task(task.pool, task.id, new, ...))
end

local function encoded(task, globals, level, ok, ...)
    if not ok then
        error((...), level)
    end
    return resume(task, globals, ...)
end

--- Run the task to its next coroutine.yield or its end; its values.
-- The first time the arguments are those of the function, later the results of coroutine.yield.
-- Raises what the task raised, and what keeps it from running.
function Task:resume(...)
    if self.state == "new" then
        return encoded(self, getfenv(2), 2, pcall(encode, "argument", true, self.f, ...))
    end
    return encoded(self, getfenv(2), 2, pcall(encode, "argument", false, ...))
end

--- Drop the task, whatever it does; whether there was something to drop. Who waits for it gets an error.
function Task:cancel()
    local state = self.state
    if state == "new" then
        self.state = "dead"
        return true
    end
    return py.drop_pool_task(self.id)
end

-- The functional form, as in the module of this name that was there before.
_M.resume, _M.status, _M.cancel = Task.resume, Task.status, Task.cancel

local function finished(task, ...)
    if task.state ~= "dead" then
        task:cancel()
        error("the function has yielded: use threadpool.create and task:resume", 0)
    end
    return ...
end

--- Run `f` in the thread pool `pool`; its results.
function _M.run(pool, f, ...)
    check_pool(pool)
    check_function(f)
    local task = new_task(pool, f)
    return finished(task, encoded(task, getfenv(2), 3, pcall(encode, "argument", true, f, ...)))
end

--- The first results of `f(item, index)` for the items of a list, in its order.
-- `options.concurrency` is how many run at once, by default as many as the pool has threads. The first error
-- ends all of them, and is raised.
function _M.map(pool, f, list, options)
    check_pool(pool)
    check_function(f)
    if type(list) ~= "table" then
        error("bad argument #3 (table expected, got " .. type(list) .. ")", 2)
    end
    local n, globals = #list, getfenv(2)
    local concurrency = options and options.concurrency or _M.stats(pool).threads
    if type(concurrency) ~= "number" or concurrency < 1 then
        error("concurrency must be a positive number", 2)
    end
    local values, at, failed, failure = {}, 0, false, nil
    local tasks = {}

    local function run(task, item, i)
        return finished(task, encoded(task, globals, 3, pcall(encode, "argument", true, f, item, i)))
    end

    local function work()
        while at < n and not failed do
            at = at + 1
            local i = at
            local task = new_task(pool, f)
            tasks[task] = true
            local ok, value = pcall(run, task, list[i], i)
            tasks[task] = nil
            if ok then
                values[i] = value
            elseif not failed then
                failed, failure = true, value
                for other in pairs(tasks) do
                    other:cancel()
                end
            end
        end
    end

    local threads = {}
    for i = 1, (concurrency < n and floor(concurrency) or n) - 1 do
        threads[i] = ngx.thread.spawn(work)
    end
    work()
    for i = 1, #threads do
        ngx.thread.wait(threads[i])
    end
    if failed then
        error(failure, 0)
    end
    return values
end

local FIELDS = {
    "threads", "max_queue", "running", "queued", "suspended", "vms", "idle", "done", "refused", "abandoned",
}

--- Numbers of a pool: threads, max_queue, running, queued, suspended, vms, idle, done, refused, abandoned.
function _M.stats(pool)
    check_pool(pool)
    local numbers, stats = { py.thread_pool_stats(pool) }, {}
    for i = 1, #FIELDS do
        stats[FIELDS[i]] = numbers[i]
    end
    return stats
end

return _M
