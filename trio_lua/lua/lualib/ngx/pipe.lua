-- ngx.pipe: child processes and the pipes to them.
--
-- A child belongs to the request (or timer) that started it, and is killed when that ends or nothing refers to it.

local rt = require "trio_lua.rt"

local S, py, ops, threads = rt.S, rt.py, rt.ops, rt.threads
local type, error, tonumber, tostring, ipairs, setmetatable, getmetatable
    = type, error, tonumber, tostring, ipairs, setmetatable, getmetatable
local concat, floor, match, find = table.concat, math.floor, string.match, string.find
local newproxy = newproxy
local suspend, suspended, own, raw_log = rt.suspend, rt.socket.suspended, rt.socket.own, rt.raw_log
local check_waiting = rt.checker("ngx.sleep")

local MAX_TIMEOUT = 0xffffffff
-- What Python gets for a number that is larger, or none.
local MAX_COUNT = 2 ^ 53

-- Units of reading.
local ALL, BYTES, LINE, ANY = 0, 1, 2, 3

local _M = { version = require("resty.core.base").version }

-- A child: pid, id while it is not let go of, the four timeouts in milliseconds, and the numbers of the threads that
-- wait: reading[stderr or not], writing, waiting.
local Proc = {}
Proc.__index = Proc

local function release(child)
    local id = child.id
    child.id = nil
    if id and py.pipe_release then
        py.pipe_release(id)
    end
end

local function check(proc)
    if type(proc) ~= "table" or getmetatable(proc) ~= Proc then
        error("not a process instance", 3)
    end
    return proc.child
end

-- Whether a thread waits; one that was killed does not.
local function busy(thread)
    return thread and threads[thread]
end

-- A timeout for Python: in seconds, nil for none.
local function seconds(ms)
    return ms > 0 and ms / 1000 or nil
end

local function count_of(n)
    return n < MAX_COUNT and floor(n) or MAX_COUNT
end

local function set_timeout(child, name, ms)
    if ms then
        if ms < 0 or ms > MAX_TIMEOUT then
            error("bad " .. name .. " option", 4)
        end
        child[name] = floor(ms)
    end
end

local function set_timeouts(child, write, stdout, stderr, wait)
    set_timeout(child, "write_timeout", write)
    set_timeout(child, "stdout_read_timeout", stdout)
    set_timeout(child, "stderr_read_timeout", stderr)
    set_timeout(child, "wait_timeout", wait)
end

function Proc.set_timeouts(proc, write, stdout, stderr, wait)
    set_timeouts(check(proc), write, stdout, stderr, wait)
end

function Proc.pid(proc)
    return check(proc).pid
end

-- Always three values, as in OpenResty: data, error, what came in front of it.
local function read(child, stderr, unit, count)
    check_waiting()
    local id = child.id
    if not id then
        return nil, "closed", nil
    end
    local reading = child.reading
    if busy(reading[stderr]) then
        return nil, "pipe busy reading", nil
    end
    local data, err, partial = py.pipe_read(id, stderr, unit, count)
    if not data and not err then
        reading[stderr] = S.th.id
        suspended()
        data, err, partial = suspend(ops.pipe_read, id, stderr, unit, count,
            seconds(stderr and child.stderr_read_timeout or child.stdout_read_timeout))
        reading[stderr] = nil
    end
    return data or nil, err, partial
end

for name, stderr in pairs { stdout = false, stderr = true } do
    Proc[name .. "_read_all"] = function(proc)
        return read(check(proc), stderr, ALL, 0)
    end

    Proc[name .. "_read_line"] = function(proc)
        return read(check(proc), stderr, LINE, 0)
    end

    Proc[name .. "_read_bytes"] = function(proc, len)
        local child = check(proc)
        if len < 0 then
            error("bad len argument", 2)
        end
        local count = count_of(len)
        if count == 0 then
            return ""
        end
        return read(child, stderr, BYTES, count)
    end

    Proc[name .. "_read_any"] = function(proc, max)
        local child = check(proc)
        max = tonumber(max)
        if not max or max <= 0 then
            error("bad max argument", 2)
        end
        return read(child, stderr, ANY, count_of(max))
    end
end

function Proc.write(proc, data)
    local child = check(proc)
    if not S.r then
        error("no request found", 2)
    end
    local kind = type(data)
    if kind == "table" then
        data = concat(data, "")
    elseif kind == "number" then
        data = tostring(data)
    elseif kind ~= "string" then
        error("bad data arg: string, number, or table expected, got " .. kind, 2)
    end
    check_waiting()
    local id = child.id
    if not id then
        return nil, "closed"
    elseif busy(child.writing) then
        return nil, "pipe busy writing"
    end
    local done, err = py.pipe_write(id, data)
    if not done then
        return nil, err
    elseif done < #data then
        child.writing = S.th.id
        suspended()
        local ok
        ok, err = suspend(ops.pipe_write, id, data, done, seconds(child.write_timeout))
        child.writing = nil
        if not ok then
            return nil, err
        end
    end
    return #data
end

function Proc.shutdown(proc, direction)
    local child = check(proc)
    if direction ~= "stdin" and direction ~= "stdout" and direction ~= "stderr" then
        error("bad shutdown arg: " .. tostring(direction), 2)
    elseif not child.id then
        return nil, "closed"
    end
    local ok, err = py.pipe_shutdown(child.id, direction)
    if not ok then
        return nil, err
    end
    return true
end

function Proc.wait(proc)
    local child = check(proc)
    check_waiting()
    if not child.id then
        return nil, "exited"
    elseif busy(child.waiting) then
        return nil, "pipe busy waiting"
    end
    child.waiting = S.th.id
    suspended()
    local reason, status = suspend(ops.pipe_wait, child.id, seconds(child.wait_timeout))
    child.waiting = nil
    if not reason then
        return nil, status
    end
    release(child)
    return status == 0, reason, status
end

function Proc.kill(proc, signal)
    local child = check(proc)
    if type(signal) ~= "number" then
        error("bad signal arg: number expected, got " .. tostring(signal), 2)
    elseif not child.id then
        return nil, "exited"
    elseif not (signal >= 0 and signal < 2 ^ 31) then
        return nil, "invalid signal"
    end
    local ok, err = py.pipe_kill(child.id, signal)
    if not ok then
        return nil, err
    end
    return true
end

-- As C reads a string.
local function up_to_nul(text)
    return match(text, "^[^%z]*")
end

local function arguments(args)
    local kind = type(args)
    if kind == "string" then
        return { "/bin/sh", "-c", up_to_nul(args) }
    elseif kind ~= "table" then
        error("bad args arg: table expected, got " .. kind, 3)
    end
    local list = {}
    for i, arg in ipairs(args) do
        list[i] = up_to_nul(tostring(arg))
    end
    if #list == 0 then
        error("bad args arg: non-empty table expected", 3)
    end
    return list
end

local function variables(environ)
    local kind = type(environ)
    if kind ~= "table" then
        error("bad environ option: table expected, got " .. kind, 3)
    end
    local list = {}
    for i, variable in ipairs(environ) do
        local type_of = type(variable)
        if type_of ~= "string" then
            error("bad value at index " .. i .. " of environ option: string expected, got " .. type_of, 3)
        elseif not find(variable, "=", 2, true) then
            error("bad value at index " .. i .. " of environ option: 'name=[value]' format expected, got '"
                .. variable .. "'", 3)
        end
        list[i] = up_to_nul(variable)
    end
    return list[1] and concat(list, "\0")
end

function _M.spawn(args, opts)
    local r = S.r
    if not r then
        error("API disabled in the current context", 2)
    end
    local list = arguments(args)
    local size, environ = 4096, nil
    local child = { r = r, finalize = release, reading = {} }
    set_timeouts(child, 10000, 10000, 10000, 10000)
    if opts then
        if opts.buffer_size then
            size = tonumber(opts.buffer_size)
            if not size or size < 1 then
                error("bad buffer_size option", 2)
            end
        end
        if opts.environ then
            environ = variables(opts.environ)
        end
        set_timeouts(child, opts.write_timeout, opts.stdout_read_timeout, opts.stderr_read_timeout,
            opts.wait_timeout)
    end
    local id, pid, text = py.pipe_spawn(concat(list, "\0"), environ or nil, opts and opts.merge_stderr and true or false,
        count_of(size))
    if not id then
        return nil, pid
    elseif text then
        raw_log(4, "lua pipe child execvp() failed while executing " .. list[1] .. " " .. text, r)
    end
    child.id, child.pid = id, pid
    own(r, child)
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function()
        release(child)
    end
    return setmetatable({ child = child, proxy = proxy }, Proc)
end

return _M
