-- ngx.ssl: what of it does not need a TLS handshake of this server's own: certificates and keys for
-- tcpsock:setclientcert.

local rt = require "trio_lua.rt"

local type, find = type, string.find

local _M = {
    version = require("resty.core.base").version,
    SSL3_VERSION = 0x0300, TLS1_VERSION = 0x0301, TLS1_1_VERSION = 0x0302, TLS1_2_VERSION = 0x0303,
    TLS1_3_VERSION = 0x0304,
}

--- A certificate chain for setclientcert.
function _M.parse_pem_cert(pem)
    if type(pem) ~= "string" or not find(pem, "-----BEGIN CERTIFICATE-----", 1, true) then
        return nil, "PEM_read_bio_X509_AUX() failed"
    end
    return rt.new_pem(pem)
end

--- A private key for setclientcert.
function _M.parse_pem_priv_key(pem)
    if type(pem) ~= "string" or not find(pem, "-----BEGIN [A-Z ]*PRIVATE KEY-----") then
        return nil, "PEM_read_bio_PrivateKey() failed"
    end
    return rt.new_pem(pem)
end

return _M
