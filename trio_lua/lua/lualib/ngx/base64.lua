-- base64 with the alphabet that is safe in URLs and file names.

local rt = require "trio_lua.rt"

local encode, decode = rt.encode_base64url, rt.decode_base64url
local type = type

local _M = { version = "0.1.25" }

function _M.encode_base64url(s)
    if type(s) ~= "string" then
        return nil, "must provide a string"
    end
    return (encode(s))
end

function _M.decode_base64url(s)
    if type(s) ~= "string" then
        return nil, "must provide a string"
    end
    local text = decode(s)
    if not text then
        return nil, "invalid input"
    end
    return text
end

return _M
