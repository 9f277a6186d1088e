-- ngx.re.*: Perl-compatible regular expressions, and the matcher behind regex locations.
--
-- PCRE2 is called through LuaJIT's FFI, because a call costs nothing there once a trace is
-- compiled; a crossing to Python would cost more than the match. Everything between the user's
-- code and pcre2_match() is Lua, so a replacement callback may yield.
--
-- The reference is the lua module that Debian builds, which sits on PCRE1. Scripts and its
-- test suite compare its error texts and numbers, so PCRE2's are translated back, and where PCRE2
-- refuses what PCRE1 took (unknown escapes, \K in lookarounds), the pattern is compiled leniently.
--
-- Patterns live in a cache of two generations: a hit is two table reads, and when the young
-- generation is full, it becomes the old one and the old one is dropped. The `o` option asks for
-- that cache; patterns without it go there too, because nobody can tell the difference.

local rt = ...

local ffi = require "ffi"
local new_table = require "table.new"

local ngx, export = rt.ngx, rt.export
local type, tostring, tonumber, error, pcall, setmetatable, loadstring
    = type, tostring, tonumber, error, pcall, setmetatable, loadstring
local sub, byte, find, format = string.sub, string.byte, string.find, string.format
local concat, unpack, max, floor = table.concat, unpack, math.max, math.floor
local copy, ffi_string, gc, cast = ffi.copy, ffi.string, ffi.gc, ffi.cast

-- ---------------------------------------------------------------------------
-- The library. Names of our own (through asm labels) cannot collide with declarations that a
-- user's module makes for the same functions, and void * needs no type names.

ffi.cdef [[
void *trio_lua_pcre2_compile(const char *, size_t, uint32_t, int *, size_t *, void *)
    __asm__("pcre2_compile_8");
void trio_lua_pcre2_code_free(void *) __asm__("pcre2_code_free_8");
int trio_lua_pcre2_jit_compile(void *, uint32_t) __asm__("pcre2_jit_compile_8");
int trio_lua_pcre2_match(void *, const char *, size_t, size_t, uint32_t, void *, void *)
    __asm__("pcre2_match_8");
int trio_lua_pcre2_jit_match(void *, const char *, size_t, size_t, uint32_t, void *, void *)
    __asm__("pcre2_jit_match_8");
int trio_lua_pcre2_dfa_match(void *, const char *, size_t, size_t, uint32_t, void *, void *, int *, size_t)
    __asm__("pcre2_dfa_match_8");
int trio_lua_pcre2_pattern_info(void *, uint32_t, void *) __asm__("pcre2_pattern_info_8");
int trio_lua_pcre2_get_error_message(int, char *, size_t) __asm__("pcre2_get_error_message_8");
int trio_lua_pcre2_config(uint32_t, void *) __asm__("pcre2_config_8");
void *trio_lua_pcre2_match_data_create(uint32_t, void *) __asm__("pcre2_match_data_create_8");
void trio_lua_pcre2_match_data_free(void *) __asm__("pcre2_match_data_free_8");
void *trio_lua_pcre2_get_ovector_pointer(void *) __asm__("pcre2_get_ovector_pointer_8");
void *trio_lua_pcre2_match_context_create(void *) __asm__("pcre2_match_context_create_8");
void trio_lua_pcre2_match_context_free(void *) __asm__("pcre2_match_context_free_8");
int trio_lua_pcre2_set_match_limit(void *, uint32_t) __asm__("pcre2_set_match_limit_8");
int trio_lua_pcre2_set_heap_limit(void *, uint32_t) __asm__("pcre2_set_heap_limit_8");
void *trio_lua_pcre2_compile_context_create(void *) __asm__("pcre2_compile_context_create_8");
void trio_lua_pcre2_compile_context_free(void *) __asm__("pcre2_compile_context_free_8");
int trio_lua_pcre2_set_compile_extra_options(void *, uint32_t)
    __asm__("pcre2_set_compile_extra_options_8");
void *trio_lua_pcre2_jit_stack_create(size_t, size_t, void *) __asm__("pcre2_jit_stack_create_8");
void trio_lua_pcre2_jit_stack_free(void *) __asm__("pcre2_jit_stack_free_8");
void trio_lua_pcre2_jit_stack_assign(void *, void *, void *) __asm__("pcre2_jit_stack_assign_8");
]]

local function load_library()
    local names = { "libpcre2-8.so.0", "libpcre2-8.so", "libpcre2-8.0.dylib", "libpcre2-8.dylib" }
    if rt.pcre2_library then
        names = { rt.pcre2_library }
    end
    for i = 1, #names do
        -- global, so that ffi.C finds the library's own names, as it does inside nginx
        local ok, lib = pcall(ffi.load, names[i], true)
        if ok and pcall(function() return lib.trio_lua_pcre2_compile end) then
            return lib
        end
    end
end

local lib = load_library()

local re = {}
ngx.re = re

if not lib then
    local message = "no support for 'ngx.re': the PCRE2 library (libpcre2-8) was not found"
    for _, name in ipairs { "match", "find", "gmatch", "sub", "gsub" } do
        re[name] = function()
            error(message, 2)
        end
    end
    rt.regex = { missing = message }
    function export.regex_compile()
        return nil, message, 0
    end
    return
end

local c_compile, c_match, c_jit_match, c_dfa_match
    = lib.trio_lua_pcre2_compile, lib.trio_lua_pcre2_match, lib.trio_lua_pcre2_jit_match,
    lib.trio_lua_pcre2_dfa_match
local c_info = lib.trio_lua_pcre2_pattern_info

-- Compile options
local ALLOW_EMPTY_CLASS, ALT_BSUX, CASELESS, DOTALL = 0x1, 0x2, 0x8, 0x20
local DUPNAMES, EXTENDED, MATCH_UNSET_BACKREF, MULTILINE = 0x40, 0x80, 0x200, 0x400
local UTF, MATCH_INVALID_UTF, ANCHORED = 0x80000, 0x4000000, 0x80000000
local JIT_COMPLETE = 0x1
local EXTRA_BAD_ESCAPE_IS_LITERAL, EXTRA_ALLOW_LOOKAROUND_BSK = 0x2, 0x40
-- Match options
local NO_JIT, NO_UTF_CHECK = 0x2000, 0x40000000
-- pcre2_pattern_info()
local INFO_ALLOPTIONS, INFO_CAPTURECOUNT = 0, 4
local INFO_NAMECOUNT, INFO_NAMEENTRYSIZE, INFO_NAMETABLE = 17, 18, 19
local CONFIG_VERSION = 11
-- Return codes
local NOMATCH, ERROR_DFA_WSSIZE, ERROR_JIT_STACKLIMIT = -1, -43, -46
local PCRE1_BADOFFSET = -24

local CACHE_ENTRIES = 1024
local JIT_STACK_MIN = 32 * 1024
local DFA_WORKSPACE, DFA_WORKSPACE_MAX = 1024, 128 * 1024
-- PCRE1 recursed on the C stack and died; PCRE2 takes heap, which has to end somewhere (in KiB).
local HEAP_LIMIT = 32 * 1024
-- Executions after which a pattern without the `j` option has earned its machine code.
local JIT_AFTER = 32
-- Captures up to which a pattern gets a collector without loops.
local UNROLL_MAX = 20

local int_out, size_out = ffi.new "int[1]", ffi.new "size_t[1]"
local u32_out, ptr_out = ffi.new "uint32_t[1]", ffi.new "const unsigned char *[1]"

local version
do
    local text = ffi.new "char[64]"
    lib.trio_lua_pcre2_config(CONFIG_VERSION, text)
    local major, minor = ffi_string(text):match("^(%d+)%.(%d+)")
    version = major and major * 1000 + minor or 0
end

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

local message_buffer = ffi.new "char[256]"

local function library_message(code)
    lib.trio_lua_pcre2_get_error_message(code, message_buffer, 256)
    return ffi_string(message_buffer)
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
            text = library_message(code)
        end
    end
    if offset >= #regex then
        return 'pcre_compile() failed: ' .. text .. ' in "' .. regex .. '"'
    end
    return 'pcre_compile() failed: ' .. text .. ' in "' .. regex .. '" at "' .. sub(regex, offset + 1) .. '"'
end

local ERROR, DEBUG = 4, 8

-- ---------------------------------------------------------------------------
-- What all matches share. Only one match runs at a time in a VM, and its offsets are
-- read before anything else can run.

local match_data, match_context, jit_stack
local pairs_room = 0
local workspace, workspace_room = ffi.new("int[?]", DFA_WORKSPACE), DFA_WORKSPACE

-- Offsets are size_t; read as int32_t they are plain Lua numbers, and "unset" is -1. o[LOW + i * STEP]
-- is offset i. LuaJIT has no strings above 2 GB.
local STEP = ffi.sizeof "size_t" / 4
local LOW = ffi.abi "le" and 0 or STEP - 1
local int32_ptr = ffi.typeof "int32_t *"
local bytes_ptr = ffi.typeof "const unsigned char *"
local o
local FROM, TO = 0, STEP

local function reserve_pairs(n)
    if n <= pairs_room then
        return
    end
    local room = max(16, n)
    match_data = gc(lib.trio_lua_pcre2_match_data_create(room, nil), lib.trio_lua_pcre2_match_data_free)
    o = cast(int32_ptr, lib.trio_lua_pcre2_get_ovector_pointer(match_data)) + LOW
    pairs_room = room
end

local function setup()
    match_context = gc(lib.trio_lua_pcre2_match_context_create(nil), lib.trio_lua_pcre2_match_context_free)
    lib.trio_lua_pcre2_set_heap_limit(match_context, HEAP_LIMIT)
    local limit = rt.lua_regex_match_limit
    if limit and limit > 0 then
        lib.trio_lua_pcre2_set_match_limit(match_context, limit)
    end
    if jit_stack then
        lib.trio_lua_pcre2_jit_stack_assign(match_context, nil, jit_stack)
    end
    reserve_pairs(1)
end

local function set_jit_stack(size)
    size = max(JIT_STACK_MIN, size)
    local stack = lib.trio_lua_pcre2_jit_stack_create(JIT_STACK_MIN, size, nil)
    if stack == nil then
        return nil, "pcre jit stack allocation failed"
    end
    local old = jit_stack
    jit_stack = gc(stack, lib.trio_lua_pcre2_jit_stack_free)
    if match_context then
        lib.trio_lua_pcre2_jit_stack_assign(match_context, nil, jit_stack)
    end
    if old then
        lib.trio_lua_pcre2_jit_stack_free(gc(old, nil))
    end
    return true
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

-- names[1], names[2]: a name and its group's number, and so on, in the library's order (alphabetical).
local function read_names(code)
    local names = {}
    c_info(code, INFO_NAMECOUNT, u32_out)
    local count = u32_out[0]
    if count == 0 then
        return names
    end
    c_info(code, INFO_NAMEENTRYSIZE, u32_out)
    local size = u32_out[0]
    c_info(code, INFO_NAMETABLE, ptr_out)
    local entry = ptr_out[0]
    for i = 1, count do
        names[2 * i - 1] = ffi_string(entry + 2)
        names[2 * i] = entry[0] * 256 + entry[1]
        entry = entry + size
    end
    return names
end

local compile_context

-- The code, or nil, error number, offset.
local function compile_code(regex, bits)
    local code = c_compile(regex, #regex, bits, int_out, size_out, nil)
    if code ~= nil then
        return gc(code, lib.trio_lua_pcre2_code_free)
    end
    return nil, int_out[0], tonumber(size_out[0])
end

local LENIENT = { [103] = EXTRA_BAD_ESCAPE_IS_LITERAL, [199] = EXTRA_ALLOW_LOOKAROUND_BSK }

local function compile_as_pcre1(regex, bits)
    local code, failure, offset = compile_code(regex, bits)
    local extra = failure and LENIENT[failure]
    if not extra then
        return code, failure, offset
    end
    compile_context = compile_context
        or gc(lib.trio_lua_pcre2_compile_context_create(nil), lib.trio_lua_pcre2_compile_context_free)
    lib.trio_lua_pcre2_set_compile_extra_options(compile_context, extra)
    local lenient = c_compile(regex, #regex, bits, int_out, size_out, compile_context)
    if lenient ~= nil then
        return gc(lenient, lib.trio_lua_pcre2_code_free)
    end
    return nil, failure, offset
end

local function jit(c)
    c.fresh = nil
    local done = lib.trio_lua_pcre2_jit_compile(c.code, JIT_COMPLETE) == 0
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
    c_info(code, INFO_ALLOPTIONS, u32_out)
    local utf = floor(u32_out[0] / UTF) % 2 == 1
    c_info(code, INFO_CAPTURECOUNT, u32_out)
    local ncap = flags.d and 0 or u32_out[0]
    local c = {
        code = code, ncap = ncap, names = flags.d and {} or read_names(code), collect = nil,
        dfa = flags.d or false, dupnames = flags.D or false, once = flags.o or false,
        asked_jit = flags.j or false, utf = utf, checked = utf and not tolerant,
        again = utf and not tolerant and NO_UTF_CHECK or 0, fast = false, fresh = nil,
    }
    if flags.D and #c.names > 0 then
        c.collect = dup_collector(c)
    else
        c.collect = collector(ncap, c.names)
    end
    if not match_context then
        setup()
    end
    reserve_pairs(ncap + 1)
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
    local tolerant = flags.U and version >= 10034 and not flags.d
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

-- ---------------------------------------------------------------------------
-- Matching. The result is PCRE1's: 1 or more, -1 for no match, other negative numbers for errors.

local function exec_dfa(c, subject, len, pos, options)
    local rc
    repeat
        rc = c_dfa_match(c.code, subject, len, pos, options, match_data, nil, workspace, workspace_room)
        local again = rc == ERROR_DFA_WSSIZE and workspace_room < DFA_WORKSPACE_MAX
        if again then
            workspace_room = workspace_room * 2
            workspace = ffi.new("int[?]", workspace_room)
        end
    until not again
    if rc >= 0 then
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
-- Replacement

local templates, template_count = {}, 0

-- A list of strings and group numbers, or nil and what to log.
local function parse_template(text)
    local parts, n, i, len = { n = 0 }, 0, 1, #text
    local invalid = 'lua script: invalid capturing variable name found in "' .. text .. '"'
    while i <= len do
        local dollar = find(text, "$", i, true)
        if dollar ~= i then
            n = n + 1
            parts[n] = sub(text, i, (dollar or len + 1) - 1)
            i = dollar or len + 1
        elseif i == len then
            return nil, invalid
        elseif byte(text, i + 1) == 36 then
            n = n + 1
            parts[n] = "$"
            i = i + 2
        else
            local braced = byte(text, i + 1) == 123
            local start = braced and i + 2 or i + 1
            if start > len then
                return nil, invalid
            end
            local _, stop = find(text, "^%d+", start)
            local number = stop ~= nil
            if not stop then
                _, stop = find(text, "^[%w_]*", start)
            end
            local name = sub(text, start, stop)
            if braced and byte(text, stop + 1) ~= 125 then
                return nil, 'the closing bracket in "' .. name .. '" variable is missing'
            elseif name == "" then
                return nil, invalid
            elseif not number then
                return nil, 'attempt to use named capturing variable "' .. name
                    .. '" (named captures not supported yet)'
            end
            n = n + 1
            parts[n] = tonumber(name)
            i = stop + (braced and 2 or 1)
        end
    end
    parts.n = n
    return parts
end

local function template(text)
    local parts = templates[text]
    if parts then
        return parts
    end
    local err
    parts, err = parse_template(text)
    if not parts then
        if rt.raw_log then
            rt.raw_log(ERROR, err)
        end
        return nil
    end
    if #text <= 4096 then
        if template_count >= 500 then
            templates, template_count = {}, 0
        end
        templates[text] = parts
        template_count = template_count + 1
    end
    return parts
end

-- The output of one replacement with a string: nothing else runs meanwhile, so one buffer is enough.
local OUTPUT_KEEP = 256 * 1024
local output, output_room = ffi.new("unsigned char[?]", 4096), 4096

local function grow(used, need)
    local room = max(need, output_room * 2)
    local larger = ffi.new("unsigned char[?]", room)
    copy(larger, output, used)
    output, output_room = larger, room
end

local function finish(used)
    local result = ffi_string(output, used)
    if output_room > OUTPUT_KEEP then
        output, output_room = ffi.new("unsigned char[?]", 4096), 4096
    end
    return result
end

local function substitute(c, subject, text, global)
    local parts
    if find(text, "$", 1, true) then
        parts = template(text)
        if not parts then
            return nil, nil, "failed to compile the replacement template"
        end
    end
    local len, text_len, options = #subject, #text, 0
    local pos, copied, used, count = 0, 0, 0, 0
    local source = cast(bytes_ptr, subject)
    repeat
        local rc = exec(c, subject, len, pos, options)
        if rc < 0 then
            if rc == NOMATCH then
                break
            end
            return nil, nil, "pcre_exec() failed: " .. rc
        end
        count = count + 1
        local from, to = o[FROM], o[TO]
        local gap = from - copied
        if gap > 0 then
            if used + gap > output_room then
                grow(used, used + gap)
            end
            copy(output + used, source + copied, gap)
            used = used + gap
        end
        if parts then
            for i = 1, parts.n do
                local part = parts[i]
                if type(part) == "string" then
                    local n = #part
                    if used + n > output_room then
                        grow(used, used + n)
                    end
                    copy(output + used, part, n)
                    used = used + n
                elseif part <= c.ncap then
                    local start = o[2 * part * STEP]
                    local n = o[(2 * part + 1) * STEP] - start
                    if start >= 0 and n > 0 then
                        if used + n > output_room then
                            grow(used, used + n)
                        end
                        copy(output + used, source + start, n)
                        used = used + n
                    end
                end
            end
        elseif text_len > 0 then
            if used + text_len > output_room then
                grow(used, used + text_len)
            end
            copy(output + used, text, text_len)
            used = used + text_len
        end
        copied = to
        pos = next_start(c, subject, from, to, pos)
        options = c.again
    until not global or (pos > len and from >= to)
    if count == 0 then
        return subject, 0
    end
    local rest = len - copied
    if rest > 0 then
        if used + rest > output_room then
            grow(used, used + rest)
        end
        copy(output + used, source + copied, rest)
        used = used + rest
    end
    return finish(used), count
end

-- The callback may yield, call this again, and keep what it gets: every call has its own pieces.
local function substitute_with(c, subject, replace, global)
    local len, options = #subject, 0
    local pos, copied, n, count = 0, 0, 0, 0
    local pieces = {}
    repeat
        local rc = exec(c, subject, len, pos, options)
        if rc < 0 then
            if rc == NOMATCH then
                break
            end
            return nil, nil, "pcre_exec() failed: " .. rc
        end
        count = count + 1
        local from, to = o[FROM], o[TO]
        local piece = tostring(replace(c.collect(subject, o)))
        pieces[n + 1] = from > copied and sub(subject, copied + 1, from) or ""
        pieces[n + 2] = piece
        n = n + 2
        copied = to
        pos = next_start(c, subject, from, to, pos)
        options = c.again
    until not global or (pos > len and from >= to)
    if count == 0 then
        return subject, 0
    end
    pieces[n + 1] = sub(subject, copied + 1)
    return concat(pieces, "", 1, n + 1), count
end

local function replacer(global, name)
    return function(subject, regex, replace, options)
        if type(subject) ~= "string" then
            subject = tostring(subject)
        end
        local by_regex = young[options or ""]
        local c = by_regex and by_regex[regex]
        if not c then
            local err
            c, err = get(regex, options, 2, name)
            if not c then
                return nil, nil, err
            end
        end
        if type(replace) == "function" then
            return substitute_with(c, subject, replace, global)
        end
        if type(replace) ~= "string" then
            replace = tostring(replace)
        end
        return substitute(c, subject, replace, global)
    end
end

re.sub = replacer(false, "sub")
re.gsub = replacer(true, "gsub")

-- ---------------------------------------------------------------------------
-- For ngx.re's split and opt

rt.regex = {
    get = get,
    set_jit_stack = set_jit_stack,
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

-- ---------------------------------------------------------------------------
-- For the Python side: the patterns of a configuration (locations, rewrite, if, server_name). They
-- are nginx's own, which Debian builds on PCRE2: no translation, no UTF, and they live as
-- long as the VM.

local configured, configured_count = {}, 0
local config_context

-- id, or nil, message, offset
function export.regex_compile(pattern, caseless)
    local code, failure, offset = compile_code(pattern, caseless and CASELESS or 0)
    if not code then
        return nil, library_message(failure), offset
    end
    if not config_context then
        config_context = gc(lib.trio_lua_pcre2_match_context_create(nil), lib.trio_lua_pcre2_match_context_free)
        lib.trio_lua_pcre2_set_heap_limit(config_context, HEAP_LIMIT)
    end
    lib.trio_lua_pcre2_jit_compile(code, JIT_COMPLETE)
    c_info(code, INFO_CAPTURECOUNT, u32_out)
    local ncap = u32_out[0]
    reserve_pairs(ncap + 1)
    configured_count = configured_count + 1
    configured[configured_count] = { code = code, ncap = ncap, names = read_names(code) }
    return configured_count
end

-- nil for no match; nil and a number for an error; else the whole match and every group, nil for
-- groups that took no part
function export.regex_exec(id, subject)
    local c = configured[id]
    local len = #subject
    local rc = c_match(c.code, subject, len, 0, 0, match_data, config_context)
    if rc == ERROR_JIT_STACKLIMIT then
        rc = c_match(c.code, subject, len, 0, NO_JIT, match_data, config_context)
    end
    if rc < 0 then
        if rc == NOMATCH then
            return nil
        end
        return nil, rc
    end
    local ncap = c.ncap
    if ncap == 0 then
        return sub(subject, o[FROM] + 1, o[TO])
    end
    local captures = {}
    for i = 0, ncap do
        local from = o[2 * i * STEP]
        captures[i] = from >= 0 and sub(subject, from + 1, o[(2 * i + 1) * STEP]) or nil
    end
    return unpack(captures, 0, ncap)
end

-- name, group number, name, group number, ...
function export.regex_names(id)
    return unpack(configured[id].names)
end
