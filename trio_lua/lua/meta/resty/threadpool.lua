---@meta resty.threadpool

---Lua functions in the threads of a pool.
local threadpool = { _VERSION = "" }

---A function that runs in a VM of a pool. It ends with the request that it was first resumed in.
---@class resty.threadpool.task
---@field traceback string? Of the thread, when the task has failed.
local task = {}

---Runs the task to its next `coroutine.yield` or its end, and gives its values. The first time the arguments are those of
---the function, later the results of `coroutine.yield`. Raises what the task raised, and what keeps it from running.
---@param ... any
---@return any ...
function task:resume(...) end

---@return "suspended"|"running"|"dead"
function task:status() end

---Drops the task, whatever it is doing. Who waits for it gets an error.
---@return boolean whether there was something to drop
function task:cancel() end

---A task that will run `f` in a pool. Functions bring their variables; what means something in one VM only
---(C functions, userdata, coroutines) cannot cross.
---@param pool string
---@param f fun(...): ...
---@return resty.threadpool.task
function threadpool.create(pool, f) end

threadpool.resume, threadpool.status, threadpool.cancel = task.resume, task.status, task.cancel

---Runs a function in a pool; its results.
---@param pool string
---@param f fun(...): ...
---@param ... any Its arguments.
---@return any ...
function threadpool.run(pool, f, ...) end

---The first results of `f(item, index)` for all items of a list, in its order. The first error ends all and is raised.
---@param pool string
---@param f fun(item: any, index: integer): any
---@param list any[]
---@param options? { concurrency?: integer } How many run at once; by default as many as the pool has threads.
---@return any[]
function threadpool.map(pool, f, list, options) end

---@class resty.threadpool.stats
---@field threads integer The most threads at once.
---@field max_queue integer The most tasks that may wait.
---@field running integer Tasks that run now, abandoned ones included.
---@field queued integer
---@field suspended integer Tasks that have yielded.
---@field vms integer
---@field idle integer VMs that no task has.
---@field done integer Tasks that have ended.
---@field refused integer Tasks that were not taken.
---@field abandoned integer Tasks that were dropped before their end.

---@param pool string
---@return resty.threadpool.stats
function threadpool.stats(pool) end

return threadpool
