-- What libraries take from resty.core.base: the request pointer, scratch memory for FFI calls, table
-- helpers, nginx's return codes, and the C types of nginx that their cdefs name.
--
-- The functions of nginx behind those types are not there; a cdef of one is accepted, a call is not.

local rt = require "trio_lua.rt"
local ffi = require "ffi"
local new_tab = require "table.new"
local clear_tab = require "table.clear"

local S = rt.S
local cast, new, typeof = ffi.cast, ffi.new, ffi.typeof
local error, pcall, select = error, pcall, select
local ceil = math.ceil

local SUBSYSTEM = "http"
local DEFAULT_BUFFER = 4096

-- Declared by name elsewhere, too: a second declaration of a struct would be an error.
for name, declaration in pairs {
    ngx_str_t = "typedef struct { size_t len; const unsigned char *data; } ngx_str_t;",
    ngx_http_request_t = "typedef struct ngx_http_request_s ngx_http_request_t;",
    ngx_http_lua_ffi_str_t = "typedef struct { int len; const unsigned char *data; } ngx_http_lua_ffi_str_t;",
    u_char = "typedef unsigned char u_char;",
} do
    if not pcall(typeof, name) then
        ffi.cdef(declaration)
    end
end

local _M = {
    version = "0.1.25",
    new_tab = new_tab,
    clear_tab = clear_tab,
    FFI_OK = 0,
    FFI_ERROR = -1,
    FFI_AGAIN = -2,
    FFI_BUSY = -3,
    FFI_DONE = -4,
    FFI_DECLINED = -5,
    FFI_ABORT = -6,
    FFI_NO_REQ_CTX = -100,
    FFI_BAD_CONTEXT = -101,
}

local void_ptr = typeof("void *")

--- A pointer that tells this request from others and leads nowhere; nil where there is no request
--- (init_by_lua). Timers and worker phases have one, as in nginx.
function _M.get_request()
    local r = S.r
    if r then
        local id = r.id
        return cast(void_ptr, id > 0 and id or -1)
    end
    return nil
end

--- Raise unless one of the named subsystems is this one, which is "http".
function _M.allows_subsystem(...)
    for i = 1, select("#", ...) do
        if select(i, ...) == SUBSYSTEM then
            return
        end
    end
    error("unsupported subsystem: " .. SUBSYSTEM, 2)
end

-- ------------------------------------------------------------------ scratch memory

local bytes = typeof("char[?]")
local buffer, buffer_size = nil, DEFAULT_BUFFER
local size_ptr, errmsg_ptr

--- At least `size` bytes: the shared buffer, or memory of its own when that is too small or
--- `must_alloc` says so.
function _M.get_string_buf(size, must_alloc)
    if must_alloc or size > buffer_size then
        return bytes(size)
    end
    if not buffer then
        buffer = bytes(buffer_size)
    end
    return buffer
end

function _M.get_string_buf_size()
    return buffer_size
end

--- Size of the shared buffer from now on; what is not positive changes nothing.
function _M.set_string_buf_size(size)
    if size > 0 then
        buffer, buffer_size = nil, ceil(size)
    end
end

function _M.get_size_ptr()
    size_ptr = size_ptr or new("size_t[1]")
    return size_ptr
end

function _M.get_errmsg_ptr()
    errmsg_ptr = errmsg_ptr or new("char *[1]")
    return errmsg_ptr
end

-- ------------------------------------------------------------------------- tables

--- Put a value into the first free place of an array; its index, -1 for nil. t[0] heads the list of free
--- places, as in luaL_ref.
function _M.ref_in_table(t, value)
    if value == nil then
        return -1
    end
    local index = t[0]
    if index and index ~= 0 then
        t[0] = t[index]
    else
        index = #t + 1
    end
    t[index] = value
    return index
end

return _M
