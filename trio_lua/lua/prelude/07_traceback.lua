-- Tracebacks in the form of OpenResty's.
--
-- Frames of this package stand for what is C there: a call into it is
-- one line "[C]: in function 'NAME'", what lies below the user's outermost frame is left out,
-- and a handler, which is a function(...) here, is a main chunk.

local rt = ...

local getinfo = debug.getinfo
local concat, sub = table.concat, string.sub

local MAX_FRAMES, MAX_BLOCKS = 22, 5

local function describe(info, outermost)
    local text = "\n\t" .. info.short_src .. ":"
    if info.currentline > 0 then
        text = text .. info.currentline .. ":"
    end
    if info.namewhat ~= "" then
        return text .. " in function '" .. info.name .. "'"
    elseif info.what == "main" or (outermost and info.linedefined == 1 and info.isvararg) then
        return text .. " in main chunk"
    elseif info.what == "C" then
        return text .. " ?"
    end
    return text .. " in function <" .. info.short_src .. ":" .. info.linedefined .. ">"
end

-- "\n\tFILE:LINE: in function 'NAME'" for each frame of coroutine co; without co of the running
-- one, from `level` outwards (0 is who calls this).
local function frames(co, level)
    level = co and 0 or level + 2
    local lines, n = {}, 0
    local waiting, n_waiting = {}, 0 -- frames of C and of this package, until a user's frame follows
    local last -- the user's outermost frame so far, and the place of its line
    local last_at
    while true do
        local info
        if co then
            info = getinfo(co, level, "Snlfu")
        else
            info = getinfo(level, "Snlfu")
        end
        if not info or info.func == rt.run_sync then
            -- a filter may run on the stack of the handler whose output it filters
            break
        end
        level = level + 1
        if sub(info.source, 1, 5) == "=ngx/" then
            n_waiting = 1
            waiting[1] = info.namewhat ~= "" and "\n\t[C]: in function '" .. info.name .. "'" or "\n\t[C]: ?"
        elseif info.what == "C" then
            n_waiting = n_waiting + 1
            waiting[n_waiting] = describe(info)
        else
            for i = 1, n_waiting do
                lines[n + i] = waiting[i]
            end
            n = n + n_waiting
            n_waiting = 0
            n = n + 1
            lines[n] = describe(info)
            last, last_at = info, n
            if n > MAX_FRAMES then
                -- an overflown stack has frames without end
                break
            end
        end
    end
    if last then
        lines[last_at] = describe(last, true)
    end
    if n > MAX_FRAMES then
        return concat(lines, "", 1, MAX_FRAMES) .. "\n\t..."
    end
    return concat(lines, "", 1, n)
end
rt.frames = frames

-- A list of frames(), from the coroutine where it happened to the light thread.
local function blocks_text(blocks)
    local text = "coroutine 0:" .. blocks[1]
    for i = 2, #blocks < MAX_BLOCKS and #blocks or MAX_BLOCKS do
        text = text .. "\ncoroutine " .. i - 1 .. ":" .. blocks[i]
    end
    return text
end
rt.blocks_text = blocks_text
