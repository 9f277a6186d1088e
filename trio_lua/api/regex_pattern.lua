-- Patterns of ngx.re: options, compiling in PCRE1's manner, and what makes a table of a match's captures.
--
-- The reference is the lua module that Debian builds, which sits on PCRE1. Scripts and its
-- test suite compare its error texts and numbers, so PCRE2's are translated back, and where PCRE2
-- refuses what PCRE1 took (unknown escapes, \K in lookarounds), the pattern is compiled leniently.

local rt = ...

local pcre2 = rt.pcre2
if not pcre2 then
    return
end

local ffi = require "ffi"
local new_table = require "table.new"

local lib, o, STEP = pcre2.lib, pcre2.offsets, pcre2.step
local loadstring = loadstring
local sub, format = string.sub, string.format
local concat, max, floor = table.concat, math.max, math.floor
local gc = ffi.gc

-- Compile options
local ALLOW_EMPTY_CLASS, ALT_BSUX, CASELESS, DOTALL = 0x1, 0x2, pcre2.CASELESS, 0x20
local DUPNAMES, EXTENDED, MATCH_UNSET_BACKREF, MULTILINE = 0x40, 0x80, 0x200, 0x400
local UTF, MATCH_INVALID_UTF, ANCHORED = 0x80000, 0x4000000, 0x80000000
local EXTRA_BAD_ESCAPE_IS_LITERAL, EXTRA_ALLOW_LOOKAROUND_BSK = 0x2, 0x40
local NO_UTF_CHECK = 0x40000000
local INFO_ALLOPTIONS = 0

local DEBUG = 8

-- Executions after which a pattern without the `j` option has earned its machine code.
local JIT_AFTER = 32
-- Captures up to which a pattern gets a collector without loops.
local UNROLL_MAX = 20

-- ---------------------------------------------------------------------------
-- Errors

-- PCRE2's compile error -> PCRE1's words, and how much PCRE1 stops further right where that is the rule.
local COMPILE_ERRORS = {
    [107] = { "invalid escape sequence in character class", 0 },
    [109] = { "nothing to repeat", 0 },
    [114] = { "missing )", 0 },
    [115] = { "reference to non-existent subpattern", 1 },
    [118] = { "missing ) after comment", 0 },
    [121] = { "failed to get memory", 0 },
    [122] = { "unmatched parentheses", 0 },
    [124] = { "malformed number or name after (?(", 0 },
    [126] = { "a numbered reference must not be zero", 0 },
    [127] = { "conditional group contains more than two branches", 0 },
    [128] = { "assertion expected after (?( or (?(?C)", 1 },
    [129] = { "digit expected after (?+", 1 },
    [134] = { "character value in \\x{} or \\o{} is too large", 0 },
    [136] = { "\\C not allowed in lookbehind assertion", 0 },
    [137] = { "PCRE does not support \\L, \\l, \\N{name}, \\U, or \\u", -1 },
    [138] = { "number after (?C is > 255", 0 },
    [139] = { "closing ) for (?C expected", 0 },
    [142] = { "syntax error in subpattern name (missing terminator)", 0 },
    [143] = { "two named subpatterns have the same name", -1 },
    [144] = { "group name must start with a non-digit", 0 },
    [147] = { "unknown property name after \\P or \\p", -1 },
    [148] = { "subpattern name is too long (maximum 32 characters)", 0 },
    [150] = { "invalid range in character class", -1 },
    [151] = { "octal value is greater than \\377 in 8-bit non-UTF-8 mode", -1 },
    [154] = { "DEFINE group contains more than one branch", 0 },
    [155] = { "missing opening brace after \\o", -1 },
    [158] = { "(?R or (?[+-]digits must be followed by )", 0 },
    [161] = { "number is too big", 0 },
    [165] = { "different names for subpatterns of the same number are not allowed", -1 },
    [168] = { "\\c must be followed by an ASCII character", 0 },
    [169] = { "\\k is not followed by a braced, angle-bracketed, or quoted name", -1 },
    [171] = { "\\N is not supported in a class", -1 },
    [174] = { "setting UTF is disabled by the application", 0 },
    [177] = { "character value in \\u.... sequence is too large", 0 },
    [182] = { "closing ) for (?C expected", 0 },
    [185] = { "parentheses are too deeply nested", 0 },
}

-- PCRE2's match error -> PCRE1's number; the UTF-8 errors (-3 to -23) are all -10.
local MATCH_ERRORS = {
    [-33] = -24, [-34] = -3, [-36] = -11, [-39] = -20, [-40] = -17, [-41] = -16, [-42] = -16,
    [-43] = -19, [-44] = -14, [-46] = -27, [-47] = -8, [-48] = -6, [-51] = -2, [-52] = -26,
    [-53] = -21, [-63] = -21,
}

local function match_error(rc)
    if rc <= -3 and rc >= -23 then
        return -10
    end
    return MATCH_ERRORS[rc] or rc
end

local function compile_error(regex, code, offset)
    local text
    if code < 0 then
        text = "invalid UTF-8 string"
    else
        local known = COMPILE_ERRORS[code]
        if known then
            text, offset = known[1], max(0, offset + known[2])
        else
            text = pcre2.message(code)
        end
    end
    if offset >= #regex then
        return 'pcre_compile() failed: ' .. text .. ' in "' .. regex .. '"'
    end
    return 'pcre_compile() failed: ' .. text .. ' in "' .. regex .. '" at "' .. sub(regex, offset + 1) .. '"'
end

-- ---------------------------------------------------------------------------
-- Options

local option_cache, option_count = {}, 0

local OPTION_BITS = {
    a = ANCHORED, D = DUPNAMES, i = CASELESS, m = MULTILINE, s = DOTALL, u = UTF, U = UTF, x = EXTENDED,
    J = ALT_BSUX + ALLOW_EMPTY_CLASS + MATCH_UNSET_BACKREF, d = 0, j = 0, o = 0,
}

local function parse_options(letters)
    local flags = option_cache[letters]
    if flags then
        return flags
    end
    flags = { bits = 0 }
    for i = 1, #letters do
        local letter = sub(letters, i, i)
        local bits = OPTION_BITS[letter]
        if not bits then
            return nil, format('unknown flag "%s" (flags "%s")', letter, letters)
        end
        if not flags[letter] and not ((letter == "u" or letter == "U") and flags.utf) then
            flags.bits = flags.bits + bits
        end
        flags[letter] = true
        flags.utf = flags.u or flags.U
    end
    if option_count >= 500 then
        option_cache, option_count = {}, 0
    end
    option_cache[letters] = flags
    option_count = option_count + 1
    return flags
end

-- ---------------------------------------------------------------------------
-- Collectors: functions (subject, offsets) -> the table of captures.

local collectors, collector_count = {}, 0

local function loop_collector(ncap, names)
    return function(subject, o)
        local captures = new_table(ncap, 1 + #names)
        local at = 0
        for i = 0, ncap do
            local from = o[at]
            captures[i] = from >= 0 and sub(subject, from + 1, o[at + STEP]) or false
            at = at + 2 * STEP
        end
        for i = 1, #names, 2 do
            captures[names[i]] = captures[names[i + 1]]
        end
        return captures
    end
end

local function group_source(i)
    local from, to = 2 * i * STEP, (2 * i + 1) * STEP
    if i == 0 then
        return format("sub(subject, o[%d] + 1, o[%d])", from, to)
    end
    return format("o[%d] >= 0 and sub(subject, o[%d] + 1, o[%d]) or false", from, from, to)
end

-- Without inner loops a match and its captures become one straight trace.
local function unrolled_collector(ncap, names)
    local fields, named = {}, {}
    local head = ""
    if #names > 0 then
        for i = 1, ncap do
            head = head .. format("local g%d = %s\n", i, group_source(i))
            fields[i] = "g" .. i
        end
        for i = 1, #names, 2 do
            named[#named + 1] = format("[%q] = g%d", names[i], names[i + 1])
        end
    else
        for i = 1, ncap do
            fields[i] = group_source(i)
        end
    end
    fields[#fields + 1] = "[0] = " .. group_source(0)
    for i = 1, #named do
        fields[#fields + 1] = named[i]
    end
    return loadstring("local sub = ...\nreturn function(subject, o)\n" .. head .. "return { "
        .. concat(fields, ", ") .. " }\nend", "=ngx/regex.lua (captures)")(sub)
end

local function collector(ncap, names)
    if ncap > UNROLL_MAX or #names > 2 * UNROLL_MAX then
        return loop_collector(ncap, names)
    end
    local signature = ncap .. ":" .. concat(names, ",")
    local collect = collectors[signature]
    if not collect then
        if collector_count >= 500 then
            collectors, collector_count = {}, 0
        end
        collect = unrolled_collector(ncap, names)
        collectors[signature] = collect
        collector_count = collector_count + 1
    end
    return collect
end

-- Into a table that the caller brought, which is his to clear.
local function fill(c, subject, captures)
    local ncap, names = c.ncap, c.names
    local at = 0
    for i = 0, ncap do
        local from = o[at]
        captures[i] = from >= 0 and sub(subject, from + 1, o[at + STEP]) or false
        at = at + 2 * STEP
    end
    for i = 1, #names, 2 do
        local name, value = names[i], captures[names[i + 1]]
        if not c.dupnames then
            captures[name] = value
        elseif value then
            local values = captures[name]
            if values then
                values[#values + 1] = value
            else
                captures[name] = { value }
            end
        end
    end
    return captures
end

local function dup_collector(c)
    return function(subject)
        return fill(c, subject, new_table(c.ncap, #c.names))
    end
end

-- ---------------------------------------------------------------------------
-- Compiling

local compile_context

local LENIENT = { [103] = EXTRA_BAD_ESCAPE_IS_LITERAL, [199] = EXTRA_ALLOW_LOOKAROUND_BSK }

local function compile_as_pcre1(regex, bits)
    local code, failure, offset = pcre2.compile(regex, bits)
    local extra = failure and LENIENT[failure]
    if not extra then
        return code, failure, offset
    end
    compile_context = compile_context
        or gc(lib.trio_lua_pcre2_compile_context_create(nil), lib.trio_lua_pcre2_compile_context_free)
    lib.trio_lua_pcre2_set_compile_extra_options(compile_context, extra)
    code = pcre2.compile(regex, bits, compile_context)
    return code, failure, offset
end

local function jit(c)
    c.fresh = nil
    local done = pcre2.jit_compile(c.code)
    if done then
        c.fast = not c.checked
    end
    return done
end

-- A pattern ready to run:
--   code, ncap, names; collect(subject, offsets); the options dfa, dupnames, once, asked_jit;
--   utf: the subject is UTF-8; checked: and PCRE2 has to check it; again: match options for a subject
--   that has been checked; fast: machine code that pcre2_jit_match() may run without a check;
--   fresh: executions left before machine code is made.
local function new_pattern(code, flags, tolerant)
    local utf = floor(pcre2.info(code, INFO_ALLOPTIONS) / UTF) % 2 == 1
    local ncap = flags.d and 0 or pcre2.info(code, pcre2.INFO_CAPTURECOUNT)
    local c = {
        code = code, ncap = ncap, names = flags.d and {} or pcre2.names(code), collect = nil,
        dfa = flags.d or false, dupnames = flags.D or false, once = flags.o or false,
        asked_jit = flags.j or false, utf = utf, checked = utf and not tolerant,
        again = utf and not tolerant and NO_UTF_CHECK or 0, fast = false, fresh = nil,
    }
    if flags.D and #c.names > 0 then
        c.collect = dup_collector(c)
    else
        c.collect = collector(ncap, c.names)
    end
    if not flags.d then
        if flags.j then
            local done = jit(c)
            if rt.raw_log then
                rt.raw_log(DEBUG, "pcre JIT compiling result: " .. (done and 1 or 0))
            end
        elseif not (rt.lua_regex_match_limit and rt.lua_regex_match_limit > 0) then
            -- machine code counts fewer steps, which would blur a limit that somebody set
            c.fresh = JIT_AFTER
        end
    end
    return c
end

local function compile(regex, flags)
    local bits, text = flags.bits, regex
    local tolerant = flags.U and pcre2.version >= 10034 and not flags.d
    if tolerant then
        -- The promise that the subject is valid is not one that a server can rely on: invalid bytes
        -- never match then, instead of leading the matcher out of the string.
        bits = bits + MATCH_INVALID_UTF
    end
    if sub(text, 1, 7) == "(*UTF8)" then
        text = "(*UTF)" .. sub(text, 8)
    end
    local code, failure, offset = compile_as_pcre1(text, bits)
    if not code then
        return nil, compile_error(regex, failure, offset + #regex - #text)
    end
    return new_pattern(code, flags, tolerant)
end

rt.patterns = {
    parse_options = parse_options, compile = compile, jit = jit, fill = fill, match_error = match_error,
}
