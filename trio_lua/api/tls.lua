-- tcpsock:sslhandshake, setclientcert and their kin.
--
-- Sessions are Python's, by number; what Lua code holds is a C struct with the number in it, because OpenResty's are
-- cdata and libraries look at that. When such a struct is collected, Python lets go of its session with the next
-- handshake: a finalizer must not leave the VM.

local rt = ...

local ffi = require "ffi"

local S, py, ops = rt.S, rt.py, rt.ops
local type, error, select, tonumber, setmetatable = type, error, select, tonumber, setmetatable
local ffi_gc, istype = ffi.gc, ffi.istype
local settings, suspend, suspended, raw_log = rt.socket.settings, rt.suspend, rt.socket.suspended, rt.raw_log
local methods, object, certificate = rt.tcp_methods, rt.socket.object, rt.certificate

-- Places in the object, of the client's certificate and its key (PEM).
local CERTIFICATE, KEY = 8, 9

local session_type = ffi.typeof("struct { uint32_t session; }")
local garbage, n_garbage = {}, 0

local function drop_session(object)
    n_garbage = n_garbage + 1
    garbage[n_garbage] = tonumber(object.session)
end

local function sweep()
    while n_garbage > 0 do
        py.tcp_forget_session(garbage[n_garbage])
        garbage[n_garbage] = nil
        n_garbage = n_garbage - 1
    end
end

-- The session of a connection, which may have begun as another one's.
local function session_of(u, reused)
    local known = reused and reused.session or 0
    local number = py.tcp_session(u.id, known)
    if number == known then
        return reused
    elseif number then
        return ffi_gc(session_type(number), drop_session)
    end
end

-- That an OCSP response is asked for (the fifth argument) changes nothing: Lua code would not get to see it.
function methods.sslhandshake(sock, reused, name, verify, _status, ...)
    if not sock or select("#", ...) > 0 then
        error("ngx.socket sslhandshake: expecting 1 ~ 5 arguments (including the object), but seen "
            .. (sock and 5 + select("#", ...) or 0), 2)
    end
    local r = S.r or error("no request found", 2)
    if name ~= nil and type(name) ~= "string" then
        error("cannot convert '" .. type(name) .. "' to 'const unsigned char *'", 2)
    end
    local u = object(sock) or error("socket is never created nor connected", 2)
    if not u.id or u.read_closed or u.write_closed then
        return nil, "closed"
    elseif u.r ~= r then
        return nil, "bad request"
    end
    local err = rt.socket.busy(u)
    if err then
        return nil, err
    end
    local session = istype(session_type, reused) and reused or nil
    if not py.tcp_encrypted(u.id) then
        sweep()
        local done, why, line, level = py.tcp_tls(u.id, settings(r).tls or 0, name, not not verify,
            session and session.session or 0, sock[CERTIFICATE], sock[KEY])
        if done == false then
            suspended()
            u.connecting = S.th.id
            done, why, line, level = suspend(ops.tcp_tls, u.id, u.connect_timeout)
            u.connecting = nil
        end
        if not done then
            u.finalize(u)
            if line and settings(r).log_errors then
                raw_log(level, line, r)
            end
            return nil, why
        end
    elseif session then
        return reused
    end
    if reused == false then
        return true
    end
    return session_of(u, session)
end

-- Methods that OpenResty got later, behind those that its metatable has had from the beginning.
local later = {}
setmetatable(methods, { __index = later })

function later.getsslsession(sock)
    local u = object(sock) or error("socket is never created nor connected", 2)
    if not u.id or u.read_closed or u.write_closed then
        return nil, "closed"
    elseif not py.tcp_encrypted(u.id) then
        return nil, "no ssl connection"
    end
    local resumable = py.tcp_resumable(u.id)
    if not resumable then
        return nil, resumable == nil and "no session" or "not resumable"
    end
    sweep()
    return session_of(u)
end

function methods.setclientcert(sock, cert, key)
    object(sock)
    if not cert and not key then
        sock[CERTIFICATE], sock[KEY] = nil, nil
        return true
    elseif not cert or not key then
        return nil, "client certificate must be supplied with corresponding private key"
    elseif type(cert) ~= "cdata" then
        return nil, "bad cert arg: cdata expected, got " .. type(cert)
    elseif type(key) ~= "cdata" then
        return nil, "bad pkey arg: cdata expected, got " .. type(key)
    end
    local chain = certificate.to_pem(cert)
    if not chain then
        return nil, "invalid client certificate chain"
    end
    local pem = certificate.key_to_pem(key)
    if not pem then
        return nil, "ssl set client private key failed"
    end
    sock[CERTIFICATE], sock[KEY] = chain, pem
    return true
end
