-- The module ngx.re: splitting by a pattern, and the one option of the regex engine.
-- The engine itself is the family trio_lua/api/regex.lua.

local rt = require "trio_lua.rt"

local regex = rt.regex or {}
if regex.missing then
    error(regex.missing, 2)
end

local get, next_match = regex.get, regex.next
local sub, max = string.sub, math.max
local type, tostring, tonumber, error = type, tostring, tonumber, error

local _M = { version = "0.1.25" }

-- An array of the pieces of `subject` between matches, and the first capture of every separator, if
-- there is one. `ctx.pos` says where to start; `limit` > 0 is the number of pieces at most; `res` is
-- filled instead of a new table, and ends with nil.
function _M.split(subject, pattern, options, ctx, limit, res)
    subject = tostring(subject)
    limit = limit or 0
    local pos
    if ctx then
        pos = ctx.pos
        if not pos then
            pos = 1
            ctx.pos = 1
        end
    else
        pos = 1
    end
    if not res then
        res = {}
    elseif type(res) ~= "table" then
        error("res is not a table", 2)
    end

    local len = #subject
    if pos > len then
        res[1] = nil
        return res
    end
    local c, err = get(pattern, options, 2, "split")
    if not c then
        return nil, err
    end

    -- piece: where the current piece begins; empty_at: where the last empty match was, after which the
    -- following piece begins
    local piece, look = pos, max(pos - 1, 0)
    local n, count, empty_at = 0, 1, nil
    while limit <= 0 or count < limit do
        local from, to, look_on, capture = next_match(c, subject, look)
        if not from then
            if to then
                return nil, to
            end
            break
        end
        look = look_on
        from, to = from + 1, to + 1
        if empty_at then
            piece = empty_at
        end
        if from == to then
            empty_at = from
        end
        if from > piece or not empty_at then
            count = count + 1
            n = n + 1
            res[n] = sub(subject, piece, from - 1)
            if capture then
                n = n + 1
                res[n] = capture
            end
            piece = to
            if piece > len then
                break
            end
        end
        if look > len then
            break
        end
    end
    if ctx then
        ctx.pos = look
    end

    if limit <= 0 and piece > len then
        -- as in Perl, empty pieces at the end do not count
        while n > 0 and res[n] == "" do
            res[n] = nil
            n = n - 1
        end
    else
        n = n + 1
        res[n] = sub(subject, piece)
    end
    res[n + 1] = nil
    return res
end

function _M.opt(option, value)
    if option ~= "jit_stack_size" then
        error("unrecognized option name", 2)
    end
    if not regex.is_cache_empty() then
        error("changing jit stack size is not allowed when some regexs have already been compiled and cached", 2)
    end
    local size = tonumber(value)
    if not size then
        error("bad argument #2 to 'opt' (number expected, got " .. type(value) .. ")", 2)
    end
    local ok, err = regex.set_jit_stack(size)
    if not ok then
        error(err, 2)
    end
end

return _M
