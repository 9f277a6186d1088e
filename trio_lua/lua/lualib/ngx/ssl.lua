-- ngx.ssl: certificates and keys, for tcpsock:setclientcert and for the handshakes of clients.
--
-- What would need OpenSSL's structures of a connection (pointers to them, key material) is not within Python's reach.

local rt = require "trio_lua.rt"

local S, py, certificate = rt.S, rt.py, rt.certificate
local type, error = type, error

local _M = {
    version = require("resty.core.base").version,
    SSL3_VERSION = 0x0300, TLS1_VERSION = 0x0301, TLS1_1_VERSION = 0x0302, TLS1_2_VERSION = 0x0303,
    TLS1_3_VERSION = 0x0304,
}

local NAMES = {
    [0x0300] = "SSLv3", [0x0301] = "TLSv1", [0x0302] = "TLSv1.1", [0x0303] = "TLSv1.2", [0x0304] = "TLSv1.3",
}

local SSL_CERT = 0x0400

-- The number of the connection that the running code is about.
local function connection(phase)
    local r = S.r or error("no request found", 3)
    local client = r.main or r
    if not client.cid or (phase and r.phase ~= phase) then
        error("API disabled in the current context", 3)
    end
    return client.cid
end

-- ------------------------------------------------------------------ the client

--- The name of the server that the client wants, nil when it names none.
function _M.server_name()
    return py.ssl_server_name(connection())
end

--- The number of the version: the one that is spoken, or before the handshake the client's highest.
function _M.get_tls1_version()
    return py.ssl_version(connection())
end

--- The same by name, such as "TLSv1.3".
function _M.get_tls1_version_str()
    local number, err = py.ssl_version(connection())
    if not number then
        return nil, err
    end
    local name = NAMES[number]
    if not name then
        return nil, "unknown version"
    end
    return name
end

--- The client's address: bytes, and "inet", "inet6" or "unix".
function _M.raw_client_addr()
    local address, kind = py.ssl_address(connection(), false)
    return address, kind
end

--- The same of this side.
function _M.raw_server_addr()
    local address, kind = py.ssl_address(connection(), true)
    return address, kind
end

--- The port of this side; nil for Unix sockets.
function _M.server_port()
    local _, kind, port = py.ssl_address(connection(), true)
    if not port then
        return nil, kind .. " domain"
    end
    return port
end

--- The random bytes of the client, `length` of them; their number for 0.
function _M.get_client_random(length)
    local random, err = py.ssl_random(connection())
    if not random then
        return nil, err
    elseif length == 0 then
        return #random
    end
    return random:sub(1, length or -1)
end

-- ------------------------------------------------------------------ certificates

--- Forget the certificates of the directives.
function _M.clear_certs()
    return py.ssl_clear(connection(SSL_CERT))
end

--- Answer with this certificate and its chain (DER).
function _M.set_der_cert(der)
    return py.ssl_use_der(connection(SSL_CERT), "chain", der)
end

--- Its key (DER).
function _M.set_der_priv_key(der)
    return py.ssl_use_der(connection(SSL_CERT), "key", der)
end

local function pem_of(object, convert, what)
    if type(object) ~= "cdata" then
        error("bad #1 arg: " .. what .. " expected, got " .. type(object), 3)
    end
    return convert(object)
end

--- Answer with a certificate of parse_pem_cert or parse_der_cert.
function _M.set_cert(cert)
    local pem = pem_of(cert, certificate.to_pem, "certificate")
    if not pem then
        return nil, "invalid certificate chain"
    end
    return py.ssl_use(connection(SSL_CERT), "chain", pem)
end

--- Its key, of parse_pem_priv_key or parse_der_priv_key.
function _M.set_priv_key(key)
    local pem = pem_of(key, certificate.key_to_pem, "key")
    if not pem then
        return nil, "SSL_use_PrivateKey() failed"
    end
    return py.ssl_use(connection(SSL_CERT), "key", pem)
end

--- Ask for a certificate that comes from these authorities, with so many between.
function _M.verify_client(authorities, depth)
    local pem = authorities and pem_of(authorities, certificate.to_pem, "certificate")
    return py.ssl_authorities(connection(SSL_CERT), pem or "", depth or -1)
end

-- Whoever looks into these with OpenSSL's functions finds STACK_OF(X509) * and EVP_PKEY *.

--- A certificate with its chain as an object.
function _M.parse_pem_cert(pem)
    return certificate.of_pem(pem)
end

--- A private key as an object.
function _M.parse_pem_priv_key(pem)
    return certificate.key_of_pem(pem)
end

--- A certificate with its chain as an object.
function _M.parse_der_cert(der)
    return certificate.of_der(der)
end

--- A private key as an object.
function _M.parse_der_priv_key(der)
    return certificate.key_of_der(der)
end

--- A chain of certificates as DER.
function _M.cert_pem_to_der(pem)
    local der = type(pem) == "string" and py.der_of_chain(pem)
    if not der then
        return nil, "PEM_read_bio_X509_AUX() failed"
    end
    return der
end

--- A private key as DER.
function _M.priv_key_pem_to_der(pem, passphrase)
    local key, err = certificate.key_of_pem(pem, passphrase)
    if not key then
        return nil, err
    end
    return certificate.key_to_der(key)
end

-- ------------------------------------------------------------------ not here

for name in ("export_keying_material export_keying_material_early get_req_ssl_pointer get_upstream_ssl_pointer "
    .. "get_server_random get_session_master_key get_shared_ssl_ciphers ssl_session_reused"):gmatch("%S+") do
    _M[name] = function()
        return nil, "not supported by Python's ssl module"
    end
end

return _M
