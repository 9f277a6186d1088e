-- What require "ngx.ipc" returns: named alerts with data for other worker processes and for this one.
--
-- Alerts for a process are collected in a buffer and go out together, as one message, when the light threads that run now have
-- all suspended; a batch costs what one costs. On the other side one call from Python takes a message
-- apart and starts a handler for each alert. Finding a process's slot is reading shared memory (trio_lua/ipc/table.py).
--
-- A handler is a light thread of a request without a client, as a timer's function is; whom its alert came from
-- is in its request, so it is right in every handler, however many are suspended.

local rt = ...

local ffi = require "ffi"
local band = require("bit").band

local S, py, requests = rt.S, rt.py, rt.requests
local type, tonumber, error, pairs, setmetatable, unpack = type, tonumber, error, pairs, setmetatable, unpack
local cast, copy, str, floor = ffi.cast, ffi.copy, ffi.string, math.floor
local start_thread, suspend, proceed, park, unpark = rt.start_thread, rt.suspend, rt.proceed, rt.park, rt.unpark
local clock_add, clock_remove, at_release, release = rt.clock_add, rt.clock_remove, rt.at_release, rt.export.release
local yieldable = rt.allowed["ngx.sleep"]

local TIMER = 0x80
local MAX_NAME, MAX_DATA = 254, 0xFFFFFFFF
local MAX_NUMBER = 2 ^ 32

-- How much waits for a receiver when senders have to wait (bytes).
local LIMIT = 1048576

-- Seconds that a request waits.
local TIMEOUT = 60

-- ------------------------------------------------------------------ forms

-- An alert begins so; its name and data follow.
local alert_p = ffi.typeof [[ struct __attribute__((packed)) { uint32_t size, number; uint8_t kind, name; } * ]]
local HEAD = 10

-- Kinds: an alert, one that waits for an answer, the answer, and that there will be none.
local ALERT, REQUEST, ANSWER, NO_HANDLER, NO_REPLY = 0, 1, 2, 3, 4
local REFUSALS = { [NO_HANDLER] = "no handler", [NO_REPLY] = "no reply" }

local entries_p = ffi.typeof [[ struct { int32_t pid, id, state; uint32_t incarnation; } * ]]
local FREE, WORKER, LEAVING = 0, 1, 2

local entries, counts, own_slot, capacity
local last_number = 0

-- The process has its place among the others: the address of their table, its slot, the most bytes of a message
-- that need not be divided, and where the numbers of its requests begin.
function rt.export.ipc_attach(table_address, slot, max_message, number)
    counts = cast("int32_t *", table_address)
    entries = cast(entries_p, table_address + 16)
    own_slot, capacity, last_number = slot, max_message, number
end

-- ------------------------------------------------------------------ who is where

local slots = {} -- pid -> slot, as it was last found

local function slot_of(pid)
    local slot = slots[pid]
    if slot and entries[slot].pid == pid and entries[slot].state ~= FREE then
        return slot
    end
    slots[pid] = nil
    for i = 0, counts[0] - 1 do
        if entries[i].pid == pid and entries[i].state ~= FREE then
            slots[pid] = i
            return i
        end
    end
end

-- The slot of a worker's number: of the one that does not leave, if there is one.
local function slot_of_worker(id)
    local found
    for i = 0, counts[0] - 1 do
        if entries[i].id == id and entries[i].state ~= FREE then
            if entries[i].state == WORKER then
                return i
            end
            found = i
        end
    end
    return found
end

-- The slot for a pid or { id = number }; or nil and an error.
local function receiver(to)
    local pid = to
    if type(to) == "table" then
        pid = to.pid
        if pid == nil then
            local id = tonumber(to.id)
            if not id then
                error("bad argument #1 (a pid or a table with pid or id expected)", 3)
            end
            local slot = slot_of_worker(id)
            if slot then
                return slot
            end
            return nil, "No worker with the id " .. id
        end
    end
    local number = tonumber(pid)
    if not number then
        error("bad argument #1 (number expected, got " .. type(pid) .. ")", 3)
    end
    local slot = number > 0 and slot_of(number)
    if slot then
        return slot
    end
    return nil, "No worker process with PID " .. number
end

-- ------------------------------------------------------------------ sending

-- slot -> link: the buffer p, of which some bytes are used; full, when senders have to wait; the list (from head
-- to tail) of threads that do.
local links = {}
local dirty, n_dirty = {}, 0

local function link_to(slot)
    local link = links[slot]
    if not link then
        link = { slot = slot, p = cast("uint8_t *", py.ipc_buffer(slot)), used = 0, full = false, dirty = false }
        links[slot] = link
    end
    return link
end

local function flush(link)
    local n = link.used
    if n > 0 then
        link.used = 0
        link.full = py.ipc_send(link.slot, n) > LIMIT or link.full
    end
end

-- Send what has been collected.
function rt.export.ipc_flush()
    for i = 1, n_dirty do
        local link = dirty[i]
        dirty[i] = nil
        link.dirty = false
        flush(link)
    end
    n_dirty = 0
end

-- Less waits for a receiver than before.
function rt.export.ipc_drained(slot, waiting)
    local link = links[slot]
    if link and link.full and waiting <= LIMIT / 2 then
        link.full = false
        while unpark(link) do end
    end
end

-- Send an alert that does not fit into a buffer to n links: Python makes one message for all of them.
local function post_large(list, n, kind, number, name, data)
    local slots = {}
    for i = 1, n do
        flush(list[i])
        slots[i] = list[i].slot
    end
    local head = ffi.new("uint8_t[?]", HEAD)
    local h = cast(alert_p, head)
    h.size, h.number, h.kind, h.name = #data, number, kind, #name
    local address = tonumber(cast("intptr_t", cast("const char *", data)))
    local waiting = { py.ipc_send_large(str(head, HEAD) .. name, address, #data, unpack(slots)) }
    for i = 1, n do
        list[i].full = waiting[i] > LIMIT or list[i].full
    end
end

local function post(link, kind, number, name, data)
    local size = HEAD + #name + #data
    if link.used + size > capacity then
        flush(link)
        if size > capacity then
            return post_large({ link }, 1, kind, number, name, data)
        end
    end
    local p = link.p + link.used
    local h = cast(alert_p, p)
    h.size, h.number, h.kind, h.name = #data, number, kind, #name
    copy(p + HEAD, name, #name)
    copy(p + HEAD + #name, data, #data)
    link.used = link.used + size
    if not link.dirty then
        link.dirty = true
        n_dirty = n_dirty + 1
        dirty[n_dirty] = link
        if n_dirty == 1 then
            py.ipc_wake()
        end
    end
end

-- As lua_tolstring sees it; errors are those of `position` of who called the caller.
local function text(value, position)
    if type(value) == "string" then
        return value
    elseif type(value) == "number" then
        return value .. ""
    end
    error("bad argument #" .. position .. " (string expected, got " .. (value == nil and "nil" or type(value)) .. ")", 3)
end

-- What is wrong with an alert, or nil.
local function problem(name, data)
    if #name > MAX_NAME then
        return "alert name length cannot exceed 254, was " .. #name
    elseif #data > MAX_DATA then
        return "alert data length cannot exceed 4294967295, was " .. #data
    elseif not entries then
        return "API disabled in the context of init_by_lua*"
    end
end

local function may_wait()
    local r = S.r
    return r and S.th and band(r.phase, yieldable) ~= 0
end

local FULL = "the receiver's queue is full"

-- Wait until a receiver takes more: true; or nil and an error.
local function wait_for_room(link)
    if not may_wait() then
        return nil, FULL
    end
    repeat
        park(link)
    until not link.full
    return true
end

local function send(slot, kind, number, name, data)
    local link = link_to(slot)
    if link.full then
        local ok, err = wait_for_room(link)
        if not ok then
            return nil, err
        end
    end
    post(link, kind, number, name, data)
    return true
end

local _M = {}
rt.ipc = _M

function _M.send(to, name, data)
    name, data = text(name, 2), data == nil and "" or text(data, 3)
    local err = problem(name, data)
    if err then
        return nil, err
    end
    local slot
    slot, err = receiver(to)
    if not slot then
        return nil, err
    end
    return send(slot, ALERT, 0, name, data)
end

-- To all workers: those whose queues are full get it when they take more. Where that cannot be waited for, nobody gets it.
local function broadcast(name, data)
    local list, n = {}, 0
    local wait = may_wait()
    for slot = 0, counts[0] - 1 do
        local entry = entries[slot]
        if entry.state ~= FREE and entry.id >= 0 then
            local link = link_to(slot)
            if link.full and not wait then
                return nil, FULL
            end
            n = n + 1
            list[n] = link
        end
    end
    local open, n_open, full, n_full = {}, 0, {}, 0
    for i = 1, n do
        if list[i].full then
            n_full = n_full + 1
            full[n_full] = list[i]
        else
            n_open = n_open + 1
            open[n_open] = list[i]
        end
    end
    if HEAD + #name + #data > capacity and n_open > 0 then
        post_large(open, n_open, ALERT, 0, name, data)
    else
        for i = 1, n_open do
            post(open[i], ALERT, 0, name, data)
        end
    end
    for i = 1, n_full do
        send(full[i].slot, ALERT, 0, name, data)
    end
    return true
end

function _M.broadcast(name, data)
    name, data = text(name, 1), data == nil and "" or text(data, 2)
    local err = problem(name, data)
    if err then
        return nil, err
    end
    return broadcast(name, data)
end

-- ------------------------------------------------------------------ requests

-- number -> the thread that waits for the answer, or true when Python does
local waiting = {}

local function cancelled(th)
    waiting[th.ipc_number] = nil
    clock_remove(th)
end

local function timed_out(th)
    waiting[th.ipc_number] = nil
    th.cancel = nil
    return rt.wake_thread(th, nil, "timeout")
end

local WAIT = rt.add_answer(function(th, run, number, delay)
    waiting[number] = th
    th.ipc_number, th.expire, th.cancel = number, timed_out, cancelled
    clock_add(th, delay)
    return proceed(run)
end)

local function new_number()
    last_number = (last_number + 1) % MAX_NUMBER
    return last_number
end

function _M.request(to, name, data, timeout)
    name, data = text(name, 2), data == nil and "" or text(data, 3)
    if timeout == nil then
        timeout = TIMEOUT
    elseif type(timeout) ~= "number" or timeout < 0 then
        error("bad argument #4 to 'request' (number of seconds expected)", 2)
    end
    local err = problem(name, data)
    if err then
        return nil, err
    end
    local slot
    slot, err = receiver(to)
    if not slot then
        return nil, err
    end
    if not may_wait() then
        local r = S.r
        return nil, "API disabled in the context of " .. (r and rt.context_names[r.phase] or "unknown")
    end
    local number = new_number()
    local ok
    ok, err = send(slot, REQUEST, number, name, data)
    if not ok then
        return nil, err
    end
    return suspend(WAIT, number, floor(timeout * 1e6))
end

-- The answer to a request: its name and data, or nil and why there is none.
local function answered(number, name, data, err)
    local th = waiting[number]
    if not th then
        return
    end
    if th == true then
        waiting[number] = nil
        return true, number, name, data, err
    end
    th.cancel = nil
    cancelled(th)
    if err then
        return rt.wake_thread(th, nil, err)
    end
    return rt.wake_thread(th, data, name)
end

-- A request's handler has ended.
local function unanswered(r)
    local number = r.ipc_number
    if number then
        r.ipc_number = nil
        if entries[r.ipc_slot].pid == r.ipc_pid then
            post(link_to(r.ipc_slot), NO_REPLY, number, "", "")
        end
    end
end

function _M.reply(name, data)
    local r = S.r
    if not r or not r.ipc_pid then
        error("Can't reply, ngx.ipc.reply called outside of IPC alert handler.", 2)
    end
    name, data = text(name, 1), data == nil and "" or text(data, 2)
    local err = problem(name, data)
    if err then
        return nil, err
    end
    if entries[r.ipc_slot].pid ~= r.ipc_pid then
        return nil, "No worker process with PID " .. r.ipc_pid
    end
    local number = r.ipc_number
    if not number then
        return send(r.ipc_slot, ALERT, 0, name, data)
    end
    r.ipc_number = nil
    return send(r.ipc_slot, ANSWER, number, name, data)
end

-- ------------------------------------------------------------------ receiving

-- name -> { f, and of the request that registered it: loc, env, fresh }, or PYTHON
local handlers = {}
local PYTHON = {}

local function check_handler(name, f, in_table)
    if type(name) ~= "string" then
        error("bad " .. (in_table and "table key in argument #1" or "argument #1")
            .. " to 'ngx.ipc.receive' (string expected, got " .. type(name) .. ")", 3)
    elseif f ~= nil and type(f) ~= "function" then
        error("bad " .. (in_table and "table value in argument #1" or "argument #2")
            .. " to 'ngx.ipc.receive' (function or nil expected, got " .. type(f) .. ")", 3)
    end
end

local function register(name, f)
    local r = S.r
    handlers[name] = f and { f = f, loc = r and r.loc or rt.main_location, env = r and r.env, fresh = r and r.fresh }
end

function _M.receive(name, f)
    if not entries then
        error("API disabled in the context of init_by_lua*", 2)
    end
    if type(name) ~= "table" then
        check_handler(name, f, false)
        register(name, f)
    elseif f ~= nil then
        error("bad argument #2 to 'ngx.ipc.receive' when argument #1 is table (nil expected, got " .. type(f) .. ")", 2)
    else
        for key, value in pairs(name) do
            check_handler(key, value, true)
        end
        for key, value in pairs(name) do
            register(key, value)
        end
    end
    return true
end

--- The worker ends: whatever comes now is dropped, but for answers that somebody waits for.
function rt.export.ipc_stop()
    handlers = {}
end

-- The message that is being taken apart: where it is, how far, how long; who has sent it; when.
local base, position, limit, from_slot, from_pid, now

local next_alert

local function stepped(id, ...)
    if id ~= nil then
        return id, ...
    end
    return next_alert()
end

local function started(r, outcome, ...)
    if outcome == 0 then
        release(r.id)
        return
    end
    return -r.id, outcome, ...
end

local function handle(kind, number, name, data)
    if kind == ANSWER then
        return answered(number, name, data)
    elseif kind > ANSWER then
        return answered(number, nil, nil, REFUSALS[kind])
    end
    local handler = handlers[name]
    if not handler then
        if kind == REQUEST then
            post(link_to(from_slot), NO_HANDLER, number, "", "")
        end
        return
    elseif handler == PYTHON then
        return false, kind == REQUEST and number, name, data
    end
    local id = rt.new_id()
    local r = {
        id = id, fake = true, phase = TIMER, loc = handler.loc, start = 0, env = handler.env, fresh = handler.fresh,
        main = false, status = 0, began = now, ipc_pid = from_pid, ipc_slot = from_slot,
    }
    requests[id] = r
    if kind == REQUEST then
        r.ipc_number = number
        at_release(r, unanswered)
    end
    S.now = nil
    return started(r, start_thread(r, handler.f, data))
end

-- Go on with the message. What rt.export.tick returns: the id of a run that was woken, or that of the request of a handler
-- which has not simply ended, negative, and what running it has returned. Or false and an alert for Python (number,
-- name, data); true and an answer for Python; nil at the message's end.
next_alert = function()
    if position < limit then
        local p = base + position
        local h = cast(alert_p, p)
        local n, size = h.name, h.size
        p = p + HEAD
        position = position + HEAD + n + size
        return stepped(handle(h.kind, h.number, str(p, n), str(p + n, size)))
    end
end
rt.export.ipc_next = next_alert

--- A message has come.
function rt.export.ipc_deliver(address, size, slot, pid)
    base, position, limit, from_slot, from_pid = cast("const uint8_t *", address), 0, size, slot, pid
    now = py.now()
    return next_alert()
end

-- ------------------------------------------------------------------ who is there

function _M.workers()
    local list, n = {}, 0
    if entries then
        for i = 0, counts[0] - 1 do
            local entry = entries[i]
            if entry.state ~= FREE and entry.pid ~= 0 then
                n = n + 1
                list[n] = {
                    pid = entry.pid, id = entry.id >= 0 and entry.id or nil, agent = entry.id < 0 or nil,
                    leaving = entry.state == LEAVING or nil, own = i == own_slot or nil,
                }
            end
        end
    end
    return list
end

-- ipc.sender
setmetatable(_M, {
    __index = function(_, key)
        local r = S.r
        if key == "sender" and r then
            return r.ipc_pid
        end
    end,
})

-- ------------------------------------------------------------------ for Python

--- Send as Python: true; nil and an error; false when the receiver's queue is full.
function rt.export.ipc_post(slot, kind, number, name, data)
    local err = problem(name, data)
    if err then
        return nil, err
    end
    local link = link_to(slot)
    if link.full then
        return false
    end
    post(link, kind, number, name, data)
    return true
end

--- A number for a request of Python's, which waits for its answer.
function rt.export.ipc_expect()
    local number = new_number()
    waiting[number] = true
    return number
end

function rt.export.ipc_forget(number)
    waiting[number] = nil
end

--- Whether alerts of this name are for Python.
function rt.export.ipc_listen(name, on)
    if on then
        handlers[name] = PYTHON
    elseif handlers[name] == PYTHON then
        handlers[name] = nil
    end
end
