-- PCRE2 through LuaJIT's FFI: a call costs nothing there once a trace is compiled; a crossing to Python would cost more
-- than the match.
--
-- rt.pcre2 has what the families on top need (trio_lua/api/regex.lua, regex_replace.lua, config_regex.lua); it is
-- nil when there is no library.

local rt = ...

local ffi = require "ffi"

local pcall, tonumber = pcall, tonumber
local max = math.max
local ffi_string, gc, cast = ffi.string, ffi.gc, ffi.cast

-- Names of our own (through asm labels) cannot collide with declarations that a user's module makes for the
-- same functions, and void * needs no type names.
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
    for i = 1, #names do
        -- global, so that ffi.C finds the library's own names, as it does inside nginx
        local ok, lib = pcall(ffi.load, names[i], true)
        if ok and pcall(function() return lib.trio_lua_pcre2_compile end) then
            return lib
        end
    end
end

local lib = load_library()
if not lib then
    return
end

local c_info = lib.trio_lua_pcre2_pattern_info

-- pcre2_pattern_info()
local INFO_CAPTURECOUNT, INFO_NAMECOUNT, INFO_NAMEENTRYSIZE, INFO_NAMETABLE = 4, 17, 18, 19
local CONFIG_VERSION = 11
local JIT_COMPLETE = 0x1

local JIT_STACK_MIN = 32 * 1024
-- PCRE1 recursed on the C stack and died; PCRE2 takes heap, which has to end somewhere (in KiB).
local HEAP_LIMIT = 32 * 1024
-- No pattern has more groups. The offsets of 1 MB are memory only where they have been written.
local PAIRS = 65536

local int_out, size_out = ffi.new "int[1]", ffi.new "size_t[1]"
local u32_out, ptr_out = ffi.new "uint32_t[1]", ffi.new "const unsigned char *[1]"

local version
do
    local text = ffi.new "char[64]"
    lib.trio_lua_pcre2_config(CONFIG_VERSION, text)
    local major, minor = ffi_string(text):match("^(%d+)%.(%d+)")
    version = major and major * 1000 + minor or 0
end

-- Compiling

-- The code, or nil, error number, offset.
local function compile_code(regex, bits, context)
    local code = lib.trio_lua_pcre2_compile(regex, #regex, bits, int_out, size_out, context)
    if code ~= nil then
        return gc(code, lib.trio_lua_pcre2_code_free)
    end
    return nil, int_out[0], tonumber(size_out[0])
end

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

-- A number of pcre2_pattern_info().
local function info(code, what)
    c_info(code, what, u32_out)
    return u32_out[0]
end

local function jit_compile(code)
    return lib.trio_lua_pcre2_jit_compile(code, JIT_COMPLETE) == 0
end

local message_buffer = ffi.new "char[256]"

local function message(code)
    lib.trio_lua_pcre2_get_error_message(code, message_buffer, 256)
    return ffi_string(message_buffer)
end

-- Matching. Only one match runs at a time in a VM, and its offsets are read before anything else can run, so all share
-- their room.

-- Offsets are size_t; read as int32_t they are plain Lua numbers, and "unset" is -1. o[LOW + i * STEP]
-- is offset i. LuaJIT has no strings above 2 GB.
local STEP = ffi.sizeof "size_t" / 4
local LOW = ffi.abi "le" and 0 or STEP - 1
local int32_ptr = ffi.typeof "int32_t *"

-- Room for matches, and its offsets.
local function new_match_data(pairs)
    local data = gc(lib.trio_lua_pcre2_match_data_create(pairs, nil), lib.trio_lua_pcre2_match_data_free)
    return data, cast(int32_ptr, lib.trio_lua_pcre2_get_ovector_pointer(data)) + LOW
end

local match_data, o = new_match_data(PAIRS)

-- steps: how many a match may take; nil or 0 for the library's own limit.
local function match_context(steps)
    local context = gc(lib.trio_lua_pcre2_match_context_create(nil), lib.trio_lua_pcre2_match_context_free)
    lib.trio_lua_pcre2_set_heap_limit(context, HEAP_LIMIT)
    if steps and steps > 0 then
        lib.trio_lua_pcre2_set_match_limit(context, steps)
    end
    return context
end

local jit_stack

-- The stack of machine code run with a context.
local function set_jit_stack(context, size)
    size = max(JIT_STACK_MIN, size)
    local stack = lib.trio_lua_pcre2_jit_stack_create(JIT_STACK_MIN, size, nil)
    if stack == nil then
        return nil, "pcre jit stack allocation failed"
    end
    local old = jit_stack
    jit_stack = gc(stack, lib.trio_lua_pcre2_jit_stack_free)
    lib.trio_lua_pcre2_jit_stack_assign(context, nil, jit_stack)
    if old then
        lib.trio_lua_pcre2_jit_stack_free(gc(old, nil))
    end
    return true
end

rt.pcre2 = {
    lib = lib, version = version, compile = compile_code, names = read_names, info = info, jit_compile = jit_compile,
    message = message, match_data = match_data, new_match_data = new_match_data, match_context = match_context,
    set_jit_stack = set_jit_stack,
    -- offset i of the last match is offsets[i * step]
    offsets = o, step = STEP,
    INFO_CAPTURECOUNT = INFO_CAPTURECOUNT, CASELESS = 0x8, NO_JIT = 0x2000, NOMATCH = -1, ERROR_JIT_STACKLIMIT = -46,
}
