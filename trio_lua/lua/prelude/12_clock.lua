-- Time and events of the VM: what wakes threads that wait without I/O.
--
-- Everything that is due at a time (a sleeping thread, the timeout of a semaphore, a timer) is a node of one
-- heap; everything that happens "soon" (a semaphore was posted) is an event of one list. Python's part is one
-- task that sleeps until the first of them and then takes them one at a time (rt.export.tick). So they come in the
-- order of their times and, at the same time, of their beginnings, across all requests of the worker; Trio has
-- no such order. As in nginx, what is due comes before what was posted, and what a turn adds waits for the next one.

local rt = ...

local S, threads = rt.S, rt.threads
local suspend, proceed, resume_thread = rt.suspend, rt.proceed, rt.resume_thread
local floor, huge = math.floor, math.huge

-- ------------------------------------------------------------------ the heap
--
-- Nodes are ordered by `at` (microseconds) and, at the same time, `seq`; `place` is their index. Whole
-- microseconds, so that equal times are equal.

local heap, size, last_seq = {}, 0, 0

local function before(a, b)
    local x, y = a.at, b.at
    return x < y or (x == y and a.seq < b.seq)
end

local function up(node, i)
    while i > 1 do
        local j = floor(i / 2)
        local parent = heap[j]
        if before(parent, node) then
            break
        end
        heap[i], parent.place = parent, i
        i = j
    end
    heap[i], node.place = node, i
end

local function down(node, i)
    while true do
        local j = 2 * i
        if j > size then
            break
        end
        local child = heap[j]
        if j < size and before(heap[j + 1], child) then
            j = j + 1
            child = heap[j]
        end
        if before(node, child) then
            break
        end
        heap[i], child.place = child, i
        i = j
    end
    heap[i], node.place = node, i
end

-- When Python's task wakes; before all times while it is at work.
local armed = -huge

local function alarm(at)
    if at < armed then
        armed = at
        rt.py.alarm(at / 1e6)
    end
end

-- Put a node in: node.expire(node) is called after so many microseconds. It returns what rt.export.tick does.
local function add(node, delay)
    last_seq = last_seq + 1
    local at = floor(rt.py.monotonic() * 1e6 + 0.5) + delay
    node.at, node.seq = at, last_seq
    size = size + 1
    up(node, size)
    alarm(at)
end
rt.clock_add = add

local function remove(node)
    local i = node.place
    node.place = nil
    local last = heap[size]
    heap[size] = nil
    size = size - 1
    if last ~= node then
        if i > 1 and before(last, heap[floor(i / 2)]) then
            up(last, i)
        else
            down(last, i)
        end
    end
end
rt.clock_remove = remove

-- Nodes for which keep(node) is true, in their order.
function rt.clock_nodes(keep)
    local list, n = {}, 0
    for i = 1, size do
        if keep(heap[i]) then
            n = n + 1
            list[n] = heap[i]
        end
    end
    table.sort(list, before)
    return list, n
end

-- ------------------------------------------------------------------ events

local posted, first, last = {}, 1, 0

-- Call event.step(event) in the next turn until it returns nothing. It returns what rt.export.tick does.
local function post(event)
    last = last + 1
    posted[last] = event
    alarm(-1)
end
rt.post_event = post

-- A run whose threads have gone on for long enough continues in the next turn.
local function continue(event)
    local run = event.run
    if run and threads[run.id] == run then
        event.run = nil
        return run.id, rt.continue_run(run)
    end
end

function rt.defer(run)
    post { run = run, step = continue }
end

-- ------------------------------------------------------------------ turns

local turn_at, turn_seq, turn_last

-- A new turn begins.
function rt.export.turn()
    armed = -huge
    turn_at, turn_seq, turn_last = floor(rt.py.monotonic() * 1e6 + 0.5), last_seq, last
end

local tick

local function stepped(id, ...)
    if id then
        return id, ...
    end
    posted[first] = nil
    first = first + 1
    return tick()
end

-- The next thing of the turn: the id of a run and what running a thread of it has returned; the id of a timer's
-- request, negative, and what starting it has returned; 0 when it was something else; nil at the turn's end.
tick = function()
    local node = heap[1]
    if node and node.at <= turn_at and node.seq <= turn_seq then
        remove(node)
        return node.expire(node)
    elseif first <= turn_last then
        local event = posted[first]
        return stepped(event.step(event))
    end
end
rt.export.tick = tick

-- The turn is over: when the next one has to begin (seconds; the past when at once), or nil.
function rt.export.next_turn()
    if first <= last then
        armed = -1
        return -1
    end
    local node = heap[1]
    armed = node and node.at or huge
    return node and node.at / 1e6
end

-- ------------------------------------------------------------------ waiting

-- Resume a thread from rt.export.tick.
local function wake(th, ...)
    return (th.run or th).id, resume_thread(th, ...)
end
rt.wake_thread = wake

local function slept(th)
    th.cancel = nil
    return wake(th)
end

local SLEEP = rt.add_answer(function(th, run, delay)
    th.expire, th.cancel = slept, remove
    add(th, delay)
    return proceed(run)
end)

-- Suspend the running thread for so many seconds.
function rt.sleep(seconds)
    return suspend(SLEEP, floor(seconds * 1e6))
end
