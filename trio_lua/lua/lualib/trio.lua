-- Trio's structured concurrency for Lua: nurseries, cancel scopes, deadlines, channels and locks, under Trio's names.
--
-- What is a `with` block in Python is a function here: trio.open_nursery(function(nursery) ... end). Errors are strings
-- that the module has as fields, so that they can be compared: err == trio.EndOfChannel.

local rt = require "trio_lua.rt"

local S, py = rt.S, rt.py
local error, pcall, rawset, select, setmetatable, tonumber, type =
    error, pcall, rawset, select, setmetatable, tonumber, type
local huge, floor, max = math.huge, math.floor, math.max
local yield = coroutine.yield
local enter, park, unpark, unpark_thread = rt.enter_scope, rt.park, rt.unpark, rt.unpark_thread

local check = rt.checker("ngx.sleep")

local trio = {
    TooSlowError = "trio.TooSlowError: the time is over",
    WouldBlock = "trio.WouldBlock: this would have to wait",
    EndOfChannel = "trio.EndOfChannel: nothing more will come",
    ClosedResourceError = "trio.ClosedResourceError: this end has been closed",
    BrokenResourceError = "trio.BrokenResourceError: the other end has been closed",
}

-- A new class: its constructor's table and the metatable of its objects.
local function class()
    local methods = {}
    return methods, { __index = methods }
end

-- A point at which the running thread can be cancelled although it need not wait.
local function cancel_point()
    check()
    local scope = S.th.scope
    if scope and rt.cancelled_scope(scope) then
        yield()
    end
end

-- ------------------------------------------------------------------------ time

--- Seconds on the clock of deadlines.
function trio.current_time()
    return py.monotonic()
end

--- Wait.
function trio.sleep(seconds)
    check()
    if type(seconds) ~= "number" or not (seconds >= 0) then
        error("bad argument #1 to 'sleep' (non-negative number expected)", 2)
    end
    if seconds == huge then
        return trio.sleep_forever()
    end
    rt.sleep(seconds)
end

function trio.sleep_until(at)
    check()
    rt.sleep(max(0, at - py.monotonic()))
end

function trio.sleep_forever()
    check()
    park {}
end

--- Let others run; the place where a thread that computes for long can be cancelled.
function trio.checkpoint()
    check()
    rt.sleep(0)
end

-- ---------------------------------------------------------------- cancel scopes

local scope_methods = {}
local SCOPE = {}

function SCOPE.__index(self, key)
    if key == "deadline" then
        return self.at
    elseif key == "shield" then
        return self.shielded or false
    elseif key == "cancel_called" then
        return self.cancelled or false
    elseif key == "cancelled_caught" then
        return self.caught or false
    end
    return scope_methods[key]
end

local function set_field(self, key, value)
    if key == "deadline" then
        rt.set_deadline(self, tonumber(value) or error("a deadline is a number", 2))
    elseif key == "shield" then
        rt.set_shield(self, value and true or false)
    else
        rawset(self, key, value)
    end
end
SCOPE.__newindex = set_field

local function new_scope(deadline, shield)
    return setmetatable({ at = deadline or huge, shielded = shield or false }, SCOPE)
end

--- A scope: options deadline (on trio.current_time) and shield (what is outside cannot cancel the inside).
function trio.CancelScope(options)
    return new_scope(options and options.deadline, options and options.shield)
end

-- What enter has returned, for who entered.
local function results(how, ...)
    if how == false then
        error((...), 0)
    elseif how then
        return ...
    end
end

--- Run f(...) inside the scope: its results, or nothing when it was cancelled.
function scope_methods:run(f, ...)
    check()
    return results(enter(self, f, ...))
end

--- Cancel what runs inside.
function scope_methods:cancel()
    rt.cancel_scope(self)
end

local function and_scope(scope, ...)
    return scope, results(...)
end

local function run_until(at, f, ...)
    check()
    local scope = new_scope(at)
    return and_scope(scope, enter(scope, f, scope, ...))
end

--- Run f(scope, ...) for at most so many seconds: the scope and the results. scope.cancelled_caught tells.
function trio.move_on_after(seconds, f, ...)
    return run_until(py.monotonic() + seconds, f, ...)
end

--- The same until a time.
function trio.move_on_at(at, f, ...)
    return run_until(at, f, ...)
end

local function in_time(scope, ...)
    if scope.caught then
        error(trio.TooSlowError, 0)
    end
    return ...
end

--- Run f(scope, ...) for at most so many seconds: its results, or the error trio.TooSlowError.
function trio.fail_after(seconds, f, ...)
    return in_time(run_until(py.monotonic() + seconds, f, ...))
end

--- The same until a time.
function trio.fail_at(at, f, ...)
    return in_time(run_until(at, f, ...))
end

--- When the innermost scope of the running thread is left, however that happens, call f(...).
function trio.defer(f, ...)
    check()
    local scope = S.th.scope
    if not scope then
        error("trio.defer outside of any scope", 2)
    end
    local defers = scope.defers or {}
    scope.defers = defers
    defers[#defers + 1] = { f = f, n = select("#", ...), ... }
end

-- -------------------------------------------------------------------- nurseries

local nursery_methods = {}
local NURSERY = { __index = nursery_methods }

--- Run f(...) as a child, beside what follows. The nursery ends with the last of its children.
function nursery_methods:start_soon(f, ...)
    local scope = self.cancel_scope
    if not scope.th then
        error("the nursery is closed", 2)
    end
    rt.start_child(scope, f, ...)
end

local function closed(scope, how, ...)
    if scope.failed then
        if how == false and select("#", ...) > 0 then
            rt.raw_log(4, "another error in a nursery: " .. rt.error_text((...)))
        end
        error(scope.failure, 0)
    end
    return results(how, ...)
end

--- Run f(nursery) and the children that it starts; returns what f returns when all have ended. The first error
--- cancels the others and is raised here.
function trio.open_nursery(f)
    check()
    local scope = new_scope()
    scope.pending, scope.children = 0, {}
    local nursery = setmetatable({ cancel_scope = scope }, NURSERY)
    return closed(scope, enter(scope, f, nursery))
end

-- ----------------------------------------------------------------------- Event

local event_methods, EVENT = class()

--- Something that happens once.
function trio.Event()
    return setmetatable({ lot = {} }, EVENT)
end

function event_methods:is_set()
    return self.happened or false
end

--- It happens: all who wait go on.
function event_methods:set()
    self.happened = true
    while unpark(self.lot) do
    end
end

function event_methods:wait()
    cancel_point()
    if not self.happened then
        park(self.lot)
    end
end

-- --------------------------------------------------- Semaphore, Lock, limiter

local semaphore_methods, SEMAPHORE = class()

--- Units to acquire and release; options: max_value.
function trio.Semaphore(value, options)
    if type(value) ~= "number" or value < 0 then
        error("bad argument #1 to 'Semaphore' (non-negative number expected)", 2)
    end
    return setmetatable({ value = value, max_value = options and options.max_value, lot = {} }, SEMAPHORE)
end

function semaphore_methods:acquire_nowait()
    if self.value == 0 then
        error(trio.WouldBlock, 0)
    end
    self.value = self.value - 1
end

function semaphore_methods:acquire()
    cancel_point()
    if self.value > 0 then
        self.value = self.value - 1
    else
        park(self.lot)
    end
end

function semaphore_methods:release()
    if self.max_value and self.value >= self.max_value then
        error("semaphore released too many times", 2)
    end
    if not unpark(self.lot) then
        self.value = self.value + 1
    end
end

-- Run f(...) while holding something with acquire and release; cancelled or failed, it is released as well.
local function hold(self, f, ...)
    self:acquire()
    local scope = new_scope()
    scope.defers = { { f = self.release_for, n = 2, self, S.th } }
    return results(enter(scope, f, ...))
end

function semaphore_methods:release_for()
    self:release()
end
semaphore_methods.with = hold

local lock_methods, LOCK = class()

--- Held by one thread at a time.
function trio.Lock()
    return setmetatable({ lot = {} }, LOCK)
end

function lock_methods:locked()
    return self.owner ~= nil
end

function lock_methods:acquire_nowait()
    if self.owner == S.th then
        error("attempt to re-acquire an already held Lock", 2)
    elseif self.owner then
        error(trio.WouldBlock, 0)
    end
    self.owner = S.th
end

function lock_methods:acquire()
    cancel_point()
    if self.owner == S.th then
        error("attempt to re-acquire an already held Lock", 2)
    elseif self.owner then
        park(self.lot)
    else
        self.owner = S.th
    end
end

function lock_methods:release_for(th)
    if self.owner ~= th then
        error("can't release a Lock you don't own", 2)
    end
    self.owner = unpark(self.lot)
end

function lock_methods:release()
    return self:release_for(S.th)
end
lock_methods.with = hold

local limiter_methods, LIMITER = class()

--- At most so many holders at a time.
function trio.CapacityLimiter(tokens)
    if type(tokens) ~= "number" or tokens < 1 then
        error("bad argument #1 to 'CapacityLimiter' (positive number expected)", 2)
    end
    return setmetatable({ total_tokens = tokens, borrowed_tokens = 0, holders = {}, lot = {} }, LIMITER)
end

function limiter_methods:available_tokens()
    return self.total_tokens - self.borrowed_tokens
end

local function borrow(self, th)
    self.holders[th] = true
    self.borrowed_tokens = self.borrowed_tokens + 1
end

function limiter_methods:acquire_nowait()
    if self.holders[S.th] then
        error("this borrower is already holding one of this CapacityLimiter's tokens", 2)
    elseif self.borrowed_tokens >= self.total_tokens then
        error(trio.WouldBlock, 0)
    end
    borrow(self, S.th)
end

function limiter_methods:acquire()
    cancel_point()
    if self.holders[S.th] then
        error("this borrower is already holding one of this CapacityLimiter's tokens", 2)
    elseif self.borrowed_tokens >= self.total_tokens then
        park(self.lot)
    else
        borrow(self, S.th)
    end
end

function limiter_methods:release_for(th)
    if not self.holders[th] then
        error("this borrower isn't holding any of this CapacityLimiter's tokens", 2)
    end
    self.holders[th] = nil
    self.borrowed_tokens = self.borrowed_tokens - 1
    local next_one = unpark(self.lot)
    if next_one then
        borrow(self, next_one)
    end
end

function limiter_methods:release()
    return self:release_for(S.th)
end
limiter_methods.with = hold

-- ------------------------------------------------------------------- Condition

local condition_methods, CONDITION = class()

--- Wait for something about what a lock guards.
function trio.Condition(lock)
    return setmetatable({ lock = lock or trio.Lock(), lot = {} }, CONDITION)
end

function condition_methods:acquire()
    return self.lock:acquire()
end

function condition_methods:release()
    return self.lock:release()
end

function condition_methods:release_for(th)
    return self.lock:release_for(th)
end
condition_methods.with = hold

local function own(self)
    if self.lock.owner ~= S.th then
        error("must hold the lock", 3)
    end
end

--- Release the lock, wait to be notified, and acquire it again (also when cancelled).
function condition_methods:wait()
    own(self)
    self.lock:release()
    local scope = new_scope()
    scope.defers = {
        {
            f = function()
                new_scope(nil, true):run(self.lock.acquire, self.lock)
            end,
            n = 0,
        },
    }
    results(enter(scope, park, self.lot))
end

function condition_methods:notify(n)
    own(self)
    for _ = 1, n or 1 do
        unpark(self.lot)
    end
end

function condition_methods:notify_all()
    own(self)
    while unpark(self.lot) do
    end
end

-- ------------------------------------------------------------- memory channels

local send_methods, SEND = class()
local receive_methods, RECEIVE = class()

--- A channel of at most so many waiting values (math.huge for any number): its sending and its receiving end.
function trio.open_memory_channel(size)
    if type(size) ~= "number" or size < 0 or (size ~= huge and size ~= floor(size)) then
        error("bad argument #1 to 'open_memory_channel' (non-negative integer or math.huge expected)", 2)
    end
    local state = { size = size, first = 1, last = 0, values = {}, senders = 1, receivers = 1, sending = {}, receiving = {} }
    return setmetatable({ state = state }, SEND), setmetatable({ state = state }, RECEIVE)
end

-- Take a value that can be taken at once: true and the value.
local function take(state)
    if state.first <= state.last then
        local value = state.values[state.first]
        state.values[state.first] = nil
        state.first = state.first + 1
        local sender = state.sending.head
        if sender then
            state.last = state.last + 1
            state.values[state.last] = sender.sent
            sender.sent = nil
            unpark(state.sending, true)
        end
        return true, value
    end
    local sender = state.sending.head
    if sender then
        local value = sender.sent
        sender.sent = nil
        unpark(state.sending, true)
        return true, value
    end
    return false
end

-- Whether a value could be handed over at once; throws when nobody can receive it.
local function give(self, value)
    local state = self.state
    if self.closed then
        error(trio.ClosedResourceError, 0)
    elseif state.receivers == 0 then
        error(trio.BrokenResourceError, 0)
    elseif unpark(state.receiving, true, value) then
        return true
    elseif state.last - state.first + 1 < state.size then
        state.last = state.last + 1
        state.values[state.last] = value
        return true
    end
    return false
end

function send_methods:send_nowait(value)
    if not give(self, value) then
        error(trio.WouldBlock, 0)
    end
end

function send_methods:send(value)
    cancel_point()
    if not give(self, value) then
        local th = S.th
        th.sent, th.channel = value, self
        local ok = park(self.state.sending)
        th.channel = nil
        if not ok then
            error(ok == nil and trio.ClosedResourceError or trio.BrokenResourceError, 0)
        end
    end
end

function receive_methods:receive_nowait()
    if self.closed then
        error(trio.ClosedResourceError, 0)
    end
    local ok, value = take(self.state)
    if ok then
        return value
    end
    error(self.state.senders == 0 and trio.EndOfChannel or trio.WouldBlock, 0)
end

function receive_methods:receive()
    cancel_point()
    if self.closed then
        error(trio.ClosedResourceError, 0)
    end
    local ok, value = take(self.state)
    if not ok and self.state.senders > 0 then
        local th = S.th
        th.channel = self
        ok, value = park(self.state.receiving)
        th.channel = nil
    end
    if not ok then
        error(ok == nil and trio.ClosedResourceError or trio.EndOfChannel, 0)
    end
    return value
end

--- for value in channel:values() do ... end, up to the end of the channel. Values must not be nil.
function receive_methods:values()
    return function()
        local ok, value = pcall(self.receive, self)
        if ok then
            return value
        elseif value ~= trio.EndOfChannel then
            error(value, 0)
        end
    end
end

function send_methods:clone()
    if self.closed then
        error(trio.ClosedResourceError, 0)
    end
    self.state.senders = self.state.senders + 1
    return setmetatable({ state = self.state }, SEND)
end

function receive_methods:clone()
    if self.closed then
        error(trio.ClosedResourceError, 0)
    end
    self.state.receivers = self.state.receivers + 1
    return setmetatable({ state = self.state }, RECEIVE)
end

-- Threads that wait at an end which is closed get nil.
local function turn_away(lot, channel)
    local th = lot.head
    while th do
        local behind = th.lot_behind
        if th.channel == channel then
            unpark_thread(th, nil)
        end
        th = behind
    end
end

--- Close this end. Behind the last sender receivers see the end of the channel.
function send_methods:close()
    if not self.closed then
        self.closed = true
        local state = self.state
        turn_away(state.sending, self)
        state.senders = state.senders - 1
        while state.senders == 0 and unpark(state.receiving, false) do
        end
    end
end

function receive_methods:close()
    if not self.closed then
        self.closed = true
        local state = self.state
        turn_away(state.receiving, self)
        state.receivers = state.receivers - 1
        while state.receivers == 0 and unpark(state.sending, false) do
        end
    end
end

return trio
