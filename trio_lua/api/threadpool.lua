-- ngx.run_worker_thread, and what require "resty.threadpool" needs of a worker's VM.

local rt = ...

local S, ngx, py = rt.S, rt.ngx, rt.py
local error, type, tostring, select, pcall, require, next = error, type, tostring, select, pcall, require, next

local check = rt.checker("ngx.run_worker_thread")

-- The error log of the request's location, where the lines of a thread go, too.
local function log_of(r)
    local loc = r.loc
    return loc and loc.log or 0, loc and loc.log_level or rt.log_level or 4
end

-- As lua_tolstring sees it.
local function text(value)
    local kind = type(value)
    if kind == "string" then
        return value
    end
    return kind == "number" and tostring(value) or nil
end

local function answer(ok, ...)
    if not ok then
        return false, (...)
    end
    return require("trio_lua.message").decode(_G, ...)
end

local function run_worker_thread(r, pool, module, func, ok, ...)
    if not ok then
        return false, (...)
    end
    local sink, level = log_of(r)
    return answer(rt.suspend(rt.ops.worker_thread, pool, module, func, sink, level, ...))
end

function ngx.run_worker_thread(...)
    local r = check()
    if select("#", ...) < 3 then
        return false, "expecting at least 3 arguments"
    end
    local pool, module, func = ...
    pool, module, func = text(pool), text(module), text(func)
    if not pool then
        return false, "threadpool should be a string"
    elseif not py.has_thread_pool(pool) then
        return false, "thread pool " .. pool .. " not found"
    elseif not module then
        return false, "module name should be a string"
    elseif not func then
        return false, "function name should be a string"
    end
    return run_worker_thread(r, pool, module, func,
        pcall(require("trio_lua.message").encode_plain, "argument", select(4, ...)))
end

-- ------------------------------------------------------------------ for resty.threadpool

local last_task = 0

--- A number for a new task.
function rt.new_pool_task()
    last_task = last_task + 1
    return last_task
end

local function drop_tasks(r)
    for id in next, r.pool_tasks do
        py.drop_pool_task(id)
    end
end

--- Run the next stretch of a task: what the operation returns. The task ends with the request of its first one.
function rt.run_pool_task(pool, id, new, ...)
    local r = check()
    if new then
        local tasks = r.pool_tasks
        if not tasks then
            tasks = {}
            r.pool_tasks = tasks
            rt.at_release(r, drop_tasks)
        end
        tasks[id] = true
        -- before the operation begins, so that others can cancel it
        py.add_pool_task(pool, id)
    end
    local sink, level = log_of(r)
    return rt.suspend(rt.ops.pool_task, id, S.th.id, sink, level, ...)
end

--- The task has ended.
function rt.end_pool_task(id)
    local r = S.r
    if r and r.pool_tasks then
        r.pool_tasks[id] = nil
    end
end

--- Drop the suspended tasks that nobody can resume any more: their finalizers do it.
function rt.export.collect_garbage()
    collectgarbage()
end

-- ------------------------------------------------------------------ for the VMs of the pools

--- package.path, package.cpath, this worker's number and how many there are.
function rt.export.thread_paths()
    return package.path, package.cpath, ngx.worker.id(), ngx.worker.count()
end

--- What is in ngx: names, each followed by its number if it is one, true for a function, false for a table.
function rt.export.ngx_names()
    local list, n = {}, 0
    local function add(name, value)
        local kind = type(value)
        if kind == "number" then
            list[n + 1], list[n + 2] = name, value
        elseif kind == "function" then
            list[n + 1], list[n + 2] = name, true
        elseif kind == "table" then
            list[n + 1], list[n + 2] = name, false
        else
            return
        end
        n = n + 2
    end
    for name, value in next, ngx do
        if type(name) == "string" then
            add(name, value)
            if type(value) == "table" then
                for inner, item in next, value do
                    if type(inner) == "string" and type(item) == "function" then
                        add(name .. "." .. inner, item)
                    end
                end
            end
        end
    end
    return unpack(list, 1, n)
end
