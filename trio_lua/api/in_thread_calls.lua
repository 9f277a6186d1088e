-- In the VMs of thread pools: what a worker's VM gets from Python, over the system's libraries.
--
-- A call into Python waits for its interpreter, which the event loop needs; that would take the threads'
-- advantage away from whoever computes digests in them.

local rt = ...

local ffi = require "ffi"

local py, S = rt.py, rt.S
local format, byte, gsub = string.format, string.byte, string.gsub
local bit = require "bit"
local bxor, band, rshift, tobit = bit.bxor, bit.band, bit.rshift, bit.tobit
local rawset, setmetatable, pcall, tonumber = rawset, setmetatable, pcall, tonumber

ffi.cdef [[
int trio_lua_clock_gettime(int, int64_t *) __asm__("clock_gettime");
unsigned char *trio_lua_md5(const char *, size_t, unsigned char *) __asm__("MD5");
unsigned char *trio_lua_sha1(const char *, size_t, unsigned char *) __asm__("SHA1");
const void *trio_lua_evp_sha1(void) __asm__("EVP_sha1");
unsigned char *trio_lua_hmac(const void *, const char *, int, const char *, size_t, unsigned char *, unsigned int *)
    __asm__("HMAC");
]]

local C = ffi.C

-- Time goes on while a thread is at work, so it is not kept.
local timespec = ffi.new("int64_t[2]")

function py.now()
    C.trio_lua_clock_gettime(0, timespec)
    return tonumber(timespec[0]) + tonumber(timespec[1]) * 1e-9
end

setmetatable(S, {
    __newindex = function(t, key, value)
        if key ~= "now" then
            rawset(t, key, value)
        end
    end,
})

local table_of = {}
for value = 0, 255 do
    local crc = value
    for _ = 1, 8 do
        crc = bxor(rshift(crc, 1), band(crc, 1) * 0xedb88320)
    end
    table_of[value] = tobit(crc)
end

function py.crc32(s)
    local crc = -1
    for i = 1, #s do
        crc = bxor(rshift(crc, 8), table_of[band(bxor(crc, byte(s, i)), 255)])
    end
    return bxor(crc, -1) % 4294967296
end

local function has_digests()
    return C.trio_lua_md5 and C.trio_lua_sha1 and C.trio_lua_hmac and C.trio_lua_evp_sha1
end

if pcall(has_digests) then
    local result = ffi.new("unsigned char[64]")
    local length = ffi.new("unsigned int[1]")

    function py.md5_bin(s)
        C.trio_lua_md5(s, #s, result)
        return ffi.string(result, 16)
    end

    function py.md5(s)
        return (gsub(py.md5_bin(s), ".", function(c)
            return format("%02x", byte(c))
        end))
    end

    function py.sha1_bin(s)
        C.trio_lua_sha1(s, #s, result)
        return ffi.string(result, 20)
    end

    function py.hmac_sha1(key, s)
        C.trio_lua_hmac(C.trio_lua_evp_sha1(), key, #key, s, #s, result, length)
        return ffi.string(result, length[0])
    end
end
