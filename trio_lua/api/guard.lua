-- Bounds on what Lua code uses between two waits: processor time, and the memory of the VM.
--
-- LuaJIT's profiler samples the VM's thread every few milliseconds that it computes, machine code included. A sample (tick,
-- below) sees how long the present *slice* has run, the stretch from one resume to the next wait. When it has
-- run for too long, a thread of ours (guard.py) sets a hook, which fires at the next instruction: the profiler's own callback must
-- neither fail nor set hooks. The hook looks again, and then ends the handler by an error at every
-- instruction, so that no pcall can catch it. A server pays for this 50 times in a second of computing, and idle
-- servers not at all.
--
-- No slice announces its beginning. All of them set S.now, the cached time, so a sample marks the slice by a value of S.now
-- that no other has: if it finds its mark, the slice is the same.

local rt = ...

local ffi = require "ffi"
local profile = require "jit.profile"

local S = rt.S
local error, tonumber, tostring, collectgarbage = error, tonumber, tostring, collectgarbage
local format, match, sub = string.format, string.match, string.sub
local getinfo, setlocal, sethook, flush = debug.getinfo, debug.setlocal, debug.sethook, jit.flush
local frames, raw_log = rt.frames, rt.raw_log
local LIBRARY = "@" .. rt.lualib

ffi.cdef [[
struct trio_lua_time { long seconds; long nanoseconds; };
int trio_lua_clock(int, struct trio_lua_time *) __asm__("clock_gettime");
long trio_lua_wake(int, const void *, size_t) __asm__("write");
void *trio_lua_gethook(void *) __asm__("lua_gethook");
int trio_lua_sethook(void *, void *, int, int) __asm__("lua_sethook");
]]
local C = ffi.C

local WARN = 5
-- CLOCK_THREAD_CPUTIME_ID
local CLOCK = ffi.os == "OSX" and 16 or 3
-- One step of a time in seconds since 1970.
local STEP = 2.4e-7

-- Hooks belong to all coroutines of a VM, so any stands for it.
local anchor = coroutine._create(function() end)
local state

local wake_fd, memory_limit
local since = 0 -- when the marked slice was seen first, in processor time
local warned  -- whether it was in the log

local now_is = ffi.new("struct trio_lua_time")
local function cpu_time()
    C.trio_lua_clock(CLOCK, now_is)
    return tonumber(now_is.seconds) + tonumber(now_is.nanoseconds) * 1e-9
end

local function disarm()
    C.trio_lua_sethook(state, nil, 0, 0)
end

-- The bounds of the running code: seconds to be ended after, and to be named in the log after; 0 for none.
local function bounds()
    local r = S.r
    local loc = r and r.loc or rt.main_location
    return loc.cpu_budget or 0, loc.cpu_warning or 0
end

-- The profiler's callback: it must not fail.
local function tick()
    local now, cpu = S.now, cpu_time()
    if now == nil or now ~= S.mark then
        now = now and now + STEP or false
        S.now, S.mark = now, now
        since, warned = cpu, false
    end
    local budget, warning = bounds()
    local used = cpu - since
    if (budget > 0 and used >= budget) or (warning > 0 and used >= warning and not warned)
        or (memory_limit and collectgarbage("count") > memory_limit) then
        C.trio_lua_wake(wake_fd, "x", 1)
    end
end

-- The handler has ended, or it goes on with a new budget.
function rt.end_interruption()
    rt.interrupted, S.mark = nil, nil
    disarm()
end

-- Let go of what an interrupted coroutine has in its variables: something may still refer to the coroutine, if only a
-- register of Lua's stack that nobody uses any more, and what it has may be more than the VM is to have.
function rt.forget_locals(co)
    local level = 0
    while getinfo(co, level, "l") do
        local i = 1
        while setlocal(co, level, i, nil) do
            i = i + 1
        end
        level = level + 1
    end
end

local function place(level)
    local info = getinfo(level + 1, "Sl")
    return info.short_src .. ":" .. info.currentline
end

-- Whether the slice has to end, and why; `level` is the code that runs.
local function verdict(level)
    local used = cpu_time() - since
    local budget, warning = bounds()
    if budget > 0 and used >= budget then
        return format("it has computed for %.3f s without waiting (lua_cpu_budget)", used)
    elseif memory_limit and collectgarbage("count") > memory_limit then
        collectgarbage()
        local kilobytes = collectgarbage("count")
        if kilobytes > memory_limit then
            return format("the VM has %.0f KB of memory (lua_memory_limit)", kilobytes)
        end
    end
    if warning > 0 and used >= warning and not warned then
        warned = true
        local r = S.r
        raw_log(WARN, format("Lua code of %s has computed for %.3f s without waiting, it is at %s",
            r and rt.context_names[r.phase] or "the worker", used, place(level + 1)), r)
    end
end

-- Code of ours is let go on: it may be in the middle of something.
local function is_ours(source)
    return sub(source, 1, 5) == "=ngx/" or sub(source, 1, #LIBRARY) == LIBRARY
end

-- It moves the mark, in more than one instruction.
local update_time = rt.ngx.update_time

-- Instructions of code of ours to look at. By then there was code of the handler, or machine code hides it: the hook
-- does not see what a trace calls. So there are none any more. At the end of patience the next sample is awaited: where
-- threads by the hundred thousand end, there is nothing else for a long time, and the hook makes that many times slower.
local PATIENCE, HIDDEN = 5000, 4000
local patience, flushed = PATIENCE, nil

local function wait_for_user_code()
    patience = patience - 1
    if patience == HIDDEN and flushed ~= S.mark then
        flushed = S.mark
        flush()
    elseif patience <= 0 and not rt.interrupted then
        patience = PATIENCE
        disarm()
    end
end

local function hook()
    local info = getinfo(2, "Sf")
    if info.func == update_time then
        return
    elseif S.mark == nil or S.now ~= S.mark then
        return rt.end_interruption()
    elseif is_ours(info.source) then
        return wait_for_user_code()
    elseif not rt.interrupted then
        local reason = verdict(2)
        if not reason then
            return disarm()
        end
        patience = PATIENCE
        rt.interrupted = place(2) .. ": interrupted: " .. reason
        rt.interrupted_at = frames(nil, 1)
    end
    error(rt.interrupted, 0)
end

-- The traceback of an error is that of the interruption, however often it was raised since.
local load_trace = rt.load_trace
function rt.load_trace(err)
    if rt.interrupted then
        return rt.interrupted_at
    end
    return load_trace(err)
end

-- Begin to sample; a byte in `fd` asks for the hook. Returns the addresses of a Lua state and of the hook.
-- interval: milliseconds from one sample to the next; limit: kilobytes for the VM, or nil.
function rt.export.start_guard(fd, interval, limit)
    wake_fd, memory_limit = fd, limit
    local address = tonumber(match(tostring(anchor), "0x(%x+)"), 16)
    state = ffi.cast("void *", address)
    -- the C function that calls a Lua hook is reachable only while one is set
    sethook(hook, "", 1e9)
    local pointer = C.trio_lua_gethook(state)
    disarm()
    profile.start("li" .. interval, tick)
    return address, tonumber(ffi.cast("intptr_t", pointer))
end

function rt.export.stop_guard()
    profile.stop()
    rt.end_interruption()
end
