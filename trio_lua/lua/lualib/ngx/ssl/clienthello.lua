-- ngx.ssl.clienthello: the client's first message, in ssl_client_hello_by_lua*.

local rt = require "trio_lua.rt"

local S, py = rt.S, rt.py
local error, byte, type, select, floor, unpack = error, string.byte, type, select, math.floor, unpack

local _M = { version = require("resty.core.base").version }

local SSL_CLIENT_HELLO = 0x4000
local SUPPORTED_VERSIONS = 43

local VERSIONS = {
    [0x0300] = "SSLv3", [0x0301] = "TLSv1", [0x0302] = "TLSv1.1", [0x0303] = "TLSv1.2", [0x0304] = "TLSv1.3",
}

local function connection()
    local r = S.r or error("no request found", 3)
    if r.phase ~= SSL_CLIENT_HELLO then
        error("API disabled in the current context", 3)
    end
    return r.cid
end

-- Numbers that clients send to see whether servers ignore what they do not know (RFC 8701).
local function without_grease(...)
    local list, n = {}, 0
    for i = 1, select("#", ...) do
        local number = select(i, ...)
        local high, low = floor(number / 0x100), number % 0x100
        if high ~= low or low % 0x10 ~= 0xA then
            n = n + 1
            list[n] = number
        end
    end
    return list
end

--- The name of the server that the client wants, nil when it names none.
function _M.get_client_hello_server_name()
    return py.ssl_server_name(connection())
end

--- The content of an extension by its number, nil when it is not there.
function _M.get_client_hello_ext(kind)
    return py.ssl_extension(connection(), kind)
end

--- The numbers of the extensions.
function _M.get_client_hello_ext_present()
    return { py.ssl_extensions(connection()) }
end

--- The numbers of the cipher suites.
function _M.get_client_hello_ciphers()
    return without_grease(py.ssl_ciphers(connection()))
end

--- The names of the versions that the client lists; nil when it lists none.
function _M.get_supported_versions()
    local content = py.ssl_extension(connection(), SUPPORTED_VERSIONS)
    if not content then
        return nil
    end
    local names = {}
    for at = 2, #content - 1, 2 do
        names[#names + 1] = VERSIONS[byte(content, at) * 256 + byte(content, at + 1)]
    end
    return names
end

--- Speak only these versions, such as { "TLSv1.2", "TLSv1.3" }.
function _M.set_protocols(protocols)
    if type(protocols) ~= "table" then
        error("bad #1 arg: table expected, got " .. type(protocols), 2)
    end
    return py.ssl_protocols(connection(), unpack(protocols))
end

return _M
