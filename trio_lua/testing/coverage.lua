-- Which lines of Lua code run. LuaJIT calls line hooks for interpreted code only, so its compiler is off.

local rt = ...

local py = rt.py
local getinfo, sethook, setmetatable, pairs, type = debug.getinfo, debug.sethook, setmetatable, pairs, type
local sub, concat = string.sub, table.concat
local loadfile, loadstring, pcall = loadfile, loadstring, pcall
local util = require "jit.util"
local funcinfo, funck, funcbc = util.funcinfo, util.funck, util.funcbc

local sources = {} -- source -> line -> times
local counts_of = setmetatable({}, { __mode = "k" }) -- function -> the same, false for code that is not the user's

local function counts_for(f)
    local source = getinfo(f, "S").source
    local counts = false
    if sub(source, 1, 5) ~= "=ngx/" then
        counts = sources[source]
        if not counts then
            counts = {}
            sources[source] = counts
        end
    end
    counts_of[f] = counts
    return counts
end

local function hook(_, line)
    local f = getinfo(2, "f").func
    local counts = counts_of[f]
    if counts == nil then
        counts = counts_for(f)
    end
    if counts then
        counts[line] = (counts[line] or 0) + 1
    end
end

function rt.export.cover_start()
    jit.off()
    jit.flush()
    sethook(hook, "l")
end

-- The lines with code of a function and of those in it.
local function collect(f, lines)
    local info = funcinfo(f)
    for pc = 1, info.bytecodes - 1 do
        -- a return at the end has no line of its own
        local line = funcinfo(f, pc).currentline
        if line and line > 0 and funcbc(f, pc) then
            lines[line] = true
        end
    end
    for i = -1, -1e6, -1 do
        local constant = funck(f, i)
        if constant == nil then
            break
        elseif type(constant) == "proto" then
            collect(constant, lines)
        end
    end
end

-- Lines with code, from a file or from the text of a chunk: "1,2,5"; nil when that does not compile.
function rt.export.cover_lines(path, text)
    local f
    if text then
        f = loadstring(text, "=")
    else
        f = loadfile(path)
    end
    if not f then
        return nil
    end
    local lines, list = {}, {}
    collect(f, lines)
    for line in pairs(lines) do
        list[#list + 1] = line
    end
    return concat(list, ",")
end

-- Give what has run to py.cover_source(source, "LINE:TIMES,..."), and stop.
function rt.export.cover_stop()
    sethook()
    for source, counts in pairs(sources) do
        local list = {}
        for line, times in pairs(counts) do
            list[#list + 1] = line .. ":" .. times
        end
        py.cover_source(source, concat(list, ","))
    end
end
