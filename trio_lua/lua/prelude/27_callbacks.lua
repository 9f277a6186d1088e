-- Functions of Lua's library that call back, in Lua: nothing can yield across a C function that called it.
--
-- table.sort with an order function compares in the order in which Lua's own does, so it has the same results; LuaJIT
-- compiles it together with the order function, which makes it the faster one. load reads everything before it compiles.
-- string.gsub cannot be matched in Lua as fast as in C, so it is exchanged only with lua_strict_phases off, which is for
-- waiting everywhere; without it OpenResty's error stays. All else goes to the originals, by tail calls: errors then have
-- the place and the name of the call.

local rt = ...

local type, error, pcall, select, rawget, rawset = type, error, pcall, select, rawget, rawset
local raw_load, raw_sort, raw_gsub = load, table.sort, string.gsub
local find, sub, concat, floor = string.find, string.sub, table.concat, math.floor

-- ------------------------------------------------------------------ table.sort

-- Sort t[low] to t[high]; true if the order function contradicts itself.
local function quicksort(t, low, high, less)
    while low < high do
        -- the first, the last and the one in the middle
        local a, z = rawget(t, low), rawget(t, high)
        if less(z, a) then
            rawset(t, low, z)
            rawset(t, high, a)
        end
        if high - low == 1 then
            return false
        end
        local middle = floor((low + high) / 2)
        local pivot = rawget(t, middle)
        a = rawget(t, low)
        if less(pivot, a) then
            rawset(t, middle, a)
            rawset(t, low, pivot)
        else
            z = rawget(t, high)
            if less(z, pivot) then
                rawset(t, middle, z)
                rawset(t, high, pivot)
            end
        end
        if high - low == 2 then
            return false
        end
        pivot = rawget(t, middle)
        rawset(t, middle, rawget(t, high - 1))
        rawset(t, high - 1, pivot)
        -- smaller ones to the left of it, larger ones to the right
        local i, j = low, high - 1
        while true do
            i = i + 1
            a = rawget(t, i)
            while less(a, pivot) do
                if i >= high then
                    return true
                end
                i = i + 1
                a = rawget(t, i)
            end
            j = j - 1
            z = rawget(t, j)
            while less(pivot, z) do
                if j <= low then
                    return true
                end
                j = j - 1
                z = rawget(t, j)
            end
            if j < i then
                break
            end
            rawset(t, i, z)
            rawset(t, j, a)
        end
        pivot = rawget(t, high - 1)
        rawset(t, high - 1, rawget(t, i))
        rawset(t, i, pivot)
        -- the smaller part first, so that the stack stays small
        local wrong
        if i - low < high - i then
            wrong = quicksort(t, low, i - 1, less)
            low = i + 1
        else
            wrong = quicksort(t, i + 1, high, less)
            high = i - 1
        end
        if wrong then
            return true
        end
    end
    return false
end

function table.sort(t, less)
    if type(less) ~= "function" or type(t) ~= "table" then
        if less == nil then
            return raw_sort(t)
        end
        return raw_sort(t, less)
    end
    if quicksort(t, 1, #t, less) then
        error("invalid order function for sorting", 2)
    end
end

-- ------------------------------------------------------------------ load

local function read_all(reader)
    local pieces, n = {}, 0
    while true do
        local piece = reader()
        if piece == nil or piece == "" then
            return concat(pieces, "", 1, n)
        elseif type(piece) ~= "string" and type(piece) ~= "number" then
            error("reader function must return a string", 0)
        end
        n = n + 1
        pieces[n] = piece
    end
end

function load(code, name, ...)
    if type(code) ~= "function" then
        return raw_load(code, name, ...)
    end
    local ok, text = pcall(read_all, code)
    if not ok then
        return nil, text
    end
    return raw_load(text, name or "=(load)", ...)
end

-- ------------------------------------------------------------------ string.gsub

local function gsub(s, pattern, replace, limit)
    local init, last, count = 1, #s + 1, 0
    -- what is done: pieces, and s up to `from`
    local out, n, from = nil, 0, 1
    local anchored = sub(pattern, 1, 1) == "^"
    while init <= last and count < limit do
        local i, j, first, second = find(s, pattern, init)
        if not i then
            break
        end
        count = count + 1
        local value
        if second ~= nil then
            value = replace(select(3, find(s, pattern, init)))
        elseif first ~= nil then
            value = replace(first)
        else
            value = replace(sub(s, i, j))
        end
        if value then
            local kind = type(value)
            if kind ~= "string" and kind ~= "number" then
                error("invalid replacement value (a " .. kind .. ")", 3)
            end
            out = out or {}
            out[n + 1], out[n + 2] = sub(s, from, i - 1), value
            n = n + 2
            from = j + 1
        end
        init = j < i and i + 1 or j + 1
        if anchored then
            break
        end
    end
    if not out then
        return s, count
    end
    out[n + 1] = sub(s, from)
    return concat(out, "", 1, n + 1), count
end

if rt.strict_phases == false then
    function string.gsub(s, pattern, replace, limit)
        if type(replace) == "function" and type(s) == "string" and type(pattern) == "string"
            and (limit == nil or type(limit) == "number") then
            local text, count = gsub(s, pattern, replace, limit or #s + 1)
            return text, count
        elseif limit ~= nil then
            return raw_gsub(s, pattern, replace, limit)
        elseif replace ~= nil then
            return raw_gsub(s, pattern, replace)
        end
        return raw_gsub(s, pattern)
    end
end
