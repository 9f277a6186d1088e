-- tcpsock:sslhandshake, setclientcert and their kin.
--
-- Sessions, certificates and keys are Python's, by number; what Lua code holds is a C struct with the number in it,
-- because OpenResty's are cdata and libraries look at that. When such a struct is collected, Python lets go of what it
-- stands for with the next handshake: a finalizer must not leave the VM.

local rt = ...

local ffi = require "ffi"

local S, py, ops = rt.S, rt.py, rt.ops
local type, error, select, tonumber, tostring, ffi_gc, istype = type, error, select, tonumber, tostring, ffi.gc, ffi.istype
local settings, suspend, suspended, raw_log = rt.socket.settings, rt.suspend, rt.socket.suspended, rt.raw_log
local methods, object = rt.tcp_methods, rt.socket.object

-- Places in the object.
local CERTIFICATE, KEY = 8, 9

local session_type = ffi.typeof("struct { uint32_t session; }")
local pem_type = ffi.typeof("struct { uint32_t pem; }")

local garbage, n_garbage = {}, 0

local function collector(call, field)
    return function(object)
        n_garbage = n_garbage + 1
        garbage[n_garbage] = { call, tonumber(object[field]) }
    end
end

local drop_session, drop_pem = collector("tcp_forget_session", "session"), collector("forget_pem", "pem")

local function sweep()
    while n_garbage > 0 do
        local item = garbage[n_garbage]
        garbage[n_garbage] = nil
        n_garbage = n_garbage - 1
        py[item[1]](item[2])
    end
end

-- A certificate chain or a key as PEM, for setclientcert.
function rt.new_pem(text)
    sweep()
    return ffi_gc(pem_type(py.keep_pem(text)), drop_pem)
end

local function session_of(u)
    local number = py.tcp_session(u.id)
    if number then
        return ffi_gc(session_type(number), drop_session)
    end
end

function methods.sslhandshake(sock, reused, name, verify, status, ...)
    if not sock or select("#", ...) > 0 then
        error("ngx.socket sslhandshake: expecting 1 ~ 5 arguments (including the object), but seen "
            .. (sock and 5 + select("#", ...) or 0), 2)
    end
    local r = S.r or error("no request found", 2)
    local u = object(sock)
    if not u or not u.id or u.read_closed or u.write_closed then
        return nil, "closed"
    elseif u.r ~= r then
        return nil, "bad request"
    end
    local err = rt.socket.busy(u)
    if err then
        return nil, err
    elseif status then
        return nil, "no OCSP support"
    end
    local session = istype(session_type, reused) and reused or nil
    if not py.tcp_encrypted(u.id) then
        sweep()
        local cert, key = sock[CERTIFICATE], sock[KEY]
        local done, why, line, level = py.tcp_tls(u.id, settings(r).tls or 0, name and tostring(name), not not verify,
            session and session.session or 0, cert and cert.pem or 0, key and key.pem or 0)
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
    elseif not istype(pem_type, cert) or not istype(pem_type, key) then
        return nil, "bad cert arg: a value of ngx.ssl expected"
    end
    sock[CERTIFICATE], sock[KEY] = cert, key
    return true
end
