-- ngx.re.match, find and gmatch: Perl-compatible regular expressions.
--
-- Everything between the user's code and pcre2_match() (trio_lua/api/pcre2.lua) is Lua. Patterns
-- (regex_pattern.lua) live in a cache of two generations: a hit is two table reads, and when the young
-- generation is full, it becomes the old one and the old one is dropped. The `o` option asks for
-- that cache; patterns without it go there too, because nobody can tell the difference.

local rt = ...

local ffi = require "ffi"

local ngx, pcre2, patterns = rt.ngx, rt.pcre2, rt.patterns
local type, tostring, error, setmetatable = type, tostring, error, setmetatable
local sub, byte = string.sub, string.byte
local max, floor = math.max, math.floor

local re = {}
ngx.re = re

if not pcre2 then
    local message = "no support for 'ngx.re': the PCRE2 library (libpcre2-8) was not found"
    for _, name in ipairs { "match", "find", "gmatch", "sub", "gsub" } do
        re[name] = function()
            error(message, 2)
        end
    end
    rt.regex = { missing = message }
    return
end

local lib, o, STEP = pcre2.lib, pcre2.offsets, pcre2.step
local FROM, TO = 0, STEP
local c_match, c_jit_match, c_dfa_match
    = lib.trio_lua_pcre2_match, lib.trio_lua_pcre2_jit_match, lib.trio_lua_pcre2_dfa_match
local match_data, match_context = pcre2.match_data, pcre2.match_context(rt.lua_regex_match_limit)
local parse_options, compile, jit, fill, match_error
    = patterns.parse_options, patterns.compile, patterns.jit, patterns.fill, patterns.match_error

local NO_JIT, NOMATCH = pcre2.NO_JIT, pcre2.NOMATCH
local ERROR_DFA_WSSIZE, ERROR_JIT_STACKLIMIT = -43, pcre2.ERROR_JIT_STACKLIMIT
local PCRE1_BADOFFSET = -24

local CACHE_ENTRIES = 1024
local DFA_WORKSPACE, DFA_WORKSPACE_MAX = 1024, 128 * 1024

-- ---------------------------------------------------------------------------
-- The cache

local young, old, young_count = {}, {}, 0
local capacity
local cached_once = false

local function remember(regex, letters, c)
    if not capacity then
        capacity = rt.lua_regex_cache_max_entries or CACHE_ENTRIES
    end
    if capacity <= 0 or (not c.once and #regex > 4096) then
        return
    end
    if young_count >= max(1, floor(capacity / 2)) then
        young, old, young_count = {}, young, 0
    end
    local by_regex = young[letters]
    if not by_regex then
        by_regex = {}
        young[letters] = by_regex
    end
    by_regex[regex] = c
    young_count = young_count + 1
    if c.once then
        cached_once = true
    end
end

-- The pattern, or nil and an error; throws at `level`.
local function get(regex, letters, level, name)
    if letters == nil or letters == false then
        letters = ""
    elseif type(letters) ~= "string" then
        error("bad argument #" .. (name == "sub" and 4 or 3) .. " to '" .. name
            .. "' (string expected, got " .. type(letters) .. ")", level + 1)
    end
    if type(regex) ~= "string" then
        if type(regex) ~= "number" then
            error("bad argument #2 to '" .. name .. "' (string expected, got "
                .. (regex == nil and "nil" or type(regex)) .. ")", level + 1)
        end
        regex = tostring(regex)
    end
    local by_regex = young[letters]
    local c = by_regex and by_regex[regex]
    if c then
        return c
    end
    by_regex = old[letters]
    c = by_regex and by_regex[regex]
    if c then
        by_regex[regex] = nil
        remember(regex, letters, c)
        return c
    end
    local flags, err = parse_options(letters)
    if not flags then
        error(err, level + 1)
    end
    c, err = compile(regex, flags)
    if c then
        remember(regex, letters, c)
    end
    return c, err
end

-- A pattern of the young generation, for callers in a hurry.
local function cached(regex, letters)
    local by_regex = young[letters or ""]
    return by_regex and by_regex[regex]
end

-- ---------------------------------------------------------------------------
-- Matching. The result is PCRE1's: 1 or more, -1 for no match, other negative numbers for errors.

-- The shorter matches that this algorithm finds as well are moved up for each longer one: few places for them.
local dfa_data, dfa_offsets = pcre2.new_match_data(2)
local workspace, workspace_room = ffi.new("int[?]", DFA_WORKSPACE), DFA_WORKSPACE

local function exec_dfa(c, subject, len, pos, options)
    local rc
    repeat
        rc = c_dfa_match(c.code, subject, len, pos, options, dfa_data, nil, workspace, workspace_room)
        local again = rc == ERROR_DFA_WSSIZE and workspace_room < DFA_WORKSPACE_MAX
        if again then
            workspace_room = workspace_room * 2
            workspace = ffi.new("int[?]", workspace_room)
        end
    until not again
    if rc >= 0 then
        o[FROM], o[TO] = dfa_offsets[FROM], dfa_offsets[TO]
        return 1
    end
    return match_error(rc)
end

local function exec_failed(c, rc, subject, len, pos, options)
    if rc == ERROR_JIT_STACKLIMIT and not c.asked_jit then
        rc = c_match(c.code, subject, len, pos, options + NO_JIT, match_data, match_context)
        if rc >= NOMATCH then
            return rc
        end
    end
    return match_error(rc)
end

local function exec(c, subject, len, pos, options)
    -- not "pos > len", so that NaN is refused
    if not (pos <= len) then
        return PCRE1_BADOFFSET
    end
    local rc
    if c.fast then
        rc = c_jit_match(c.code, subject, len, pos, 0, match_data, match_context)
    elseif c.dfa then
        return exec_dfa(c, subject, len, pos, options)
    else
        if c.fresh then
            c.fresh = c.fresh - 1
            if c.fresh == 0 then
                jit(c)
            end
        end
        rc = c_match(c.code, subject, len, pos, options, match_data, match_context)
    end
    if rc >= NOMATCH then
        return rc
    end
    return exec_failed(c, rc, subject, len, pos, options)
end

-- Where to look for the next match after [from, to).
local function next_start(c, subject, from, to, pos)
    if to > from and to > pos then
        return to
    end
    to = max(from, to, pos) + 1
    if c.utf then
        local b = byte(subject, to + 1)
        while b and b >= 0x80 and b < 0xc0 do
            to = to + 1
            b = byte(subject, to + 1)
        end
    end
    return to
end

local function start_of(ctx)
    local pos = ctx.pos
    if not pos or pos <= 0 then
        return 0
    end
    return floor(pos - 1)
end

-- ---------------------------------------------------------------------------
-- The public functions

local function start_of(ctx)
    local pos = ctx.pos
    if not pos or pos <= 0 then
        return 0
    end
    return floor(pos - 1)
end

-- ---------------------------------------------------------------------------
-- The public functions

function re.match(subject, regex, options, ctx, captures)
    if type(subject) ~= "string" then
        subject = tostring(subject)
    end
    local by_regex = young[options or ""]
    local c = by_regex and by_regex[regex]
    if not c then
        local err
        c, err = get(regex, options, 2, "match")
        if not c then
            return nil, err
        end
    end
    local pos = 0
    if ctx then
        pos = start_of(ctx)
    end
    local rc = exec(c, subject, #subject, pos, 0)
    if rc < 0 then
        if rc == NOMATCH then
            return nil
        end
        return nil, "pcre_exec() failed: " .. rc
    end
    if ctx then
        ctx.pos = o[TO] + 1
    end
    if captures then
        return fill(c, subject, captures)
    end
    return c.collect(subject, o)
end

function re.find(subject, regex, options, ctx, nth)
    if type(subject) ~= "string" then
        subject = tostring(subject)
    end
    local by_regex = young[options or ""]
    local c = by_regex and by_regex[regex]
    if not c then
        local err
        c, err = get(regex, options, 2, "find")
        if not c then
            return nil, nil, err
        end
    end
    local pos = 0
    if ctx then
        pos = start_of(ctx)
    end
    local rc = exec(c, subject, #subject, pos, 0)
    if rc < 0 then
        if rc == NOMATCH then
            return nil
        end
        return nil, nil, "pcre_exec() failed: " .. rc
    end
    if ctx then
        ctx.pos = o[TO] + 1
    end
    if not nth or nth <= 0 then
        return o[FROM] + 1, o[TO]
    end
    nth = floor(nth)
    if nth > c.ncap then
        return nil, nil, "nth out of bound"
    end
    local from = o[2 * nth * STEP]
    if from < 0 then
        return nil, nil
    end
    return from + 1, o[(2 * nth + 1) * STEP]
end

local function iterate(it)
    local pos = it.pos
    if not pos then
        return nil
    end
    local c, subject = it.pattern, it.subject
    local rc = exec(c, subject, #subject, pos, it.options)
    if rc < 0 then
        it.pos = nil
        if rc == NOMATCH then
            return nil
        end
        return nil, "pcre_exec() failed: " .. rc
    end
    it.options = c.again
    pos = next_start(c, subject, o[FROM], o[TO], pos)
    if pos > #subject and o[FROM] >= o[TO] then
        it.pos = nil
    else
        it.pos = pos
    end
    return c.collect(subject, o)
end

local iterator = { __call = iterate }

function re.gmatch(subject, regex, options)
    if type(subject) ~= "string" then
        subject = tostring(subject)
    end
    local c, err = get(regex, options, 2, "gmatch")
    if not c then
        return nil, err
    end
    return setmetatable({ pattern = c, subject = subject, pos = 0, options = 0 }, iterator)
end

-- ---------------------------------------------------------------------------
-- For ngx.re's split and opt, and for replacements (regex_replace.lua)

rt.regex = {
    get = get, cached = cached, exec = exec, next_start = next_start,
    set_jit_stack = function(size)
        return pcre2.set_jit_stack(match_context, size)
    end,
    is_cache_empty = function()
        return not cached_once
    end,
    -- start and end of the next match (zero-based), where to look on, the first capture; or nil, error
    next = function(c, subject, pos)
        local rc = exec(c, subject, #subject, pos, 0)
        if rc == NOMATCH then
            return nil
        elseif rc < 0 then
            return nil, "pcre_exec() failed: " .. rc
        end
        local from, to = o[FROM], o[TO]
        local first
        if c.ncap > 0 and o[2 * STEP] >= 0 then
            first = sub(subject, o[2 * STEP] + 1, o[3 * STEP])
        end
        return from, to, next_start(c, subject, from, to, pos), first
    end,
}
