-- ngx.req.socket: the request body as a stream, or (raw) the client's connection itself.
--
-- The objects are those of ngx.socket.tcp with fewer methods; only what receives and sends is different.

local rt = ...

local ngx, py = rt.ngx, rt.py
local error, select, setmetatable = error, select, setmetatable
local checker, settings, own, tcp = rt.checker, rt.socket.settings, rt.socket.own, rt.tcp_methods

local function class(...)
    local methods = {}
    for i = 1, select("#", ...) do
        local name = select(i, ...)
        methods[name] = tcp[name]
    end
    methods.__index = methods
    return methods
end

local BODY = class("receive", "receiveany", "receiveuntil", "settimeout", "settimeouts")
local RAW = class("receive", "receiveany", "receiveuntil", "send", "settimeout", "settimeouts")

local function finalize(u)
    u.id, u.buf, u.pos, u.read_closed, u.write_closed = nil, "", 1, true, true
end

local fill_body, fill_raw = rt.socket.filler("body_receive"), rt.socket.filler("raw_receive")

local function new(r, methods, fill)
    local conf = settings(r)
    local u = {
        r = r, id = r.cid, buf = "", pos = 1, buffer_size = conf.buffer_size, downstream = true,
        send_timeout = conf.send_timeout, read_timeout = conf.read_timeout,
        fill = fill, finalize = finalize, py_send = "raw_send",
    }
    own(r, u)
    return setmetatable({ u }, methods)
end

local function raw_socket(r)
    if r.body_reader and rt.threads[r.body_reader] then
        return nil, "pending request body reading in some other thread"
    elseif r.raw_socket then
        return nil, "duplicate call"
    elseif r.http10 then
        return nil, "http 1.0 buffering"
    elseif (r.out and #r.out > 0) or not py.take_raw(r.cid) then
        return nil, "pending data to write"
    end
    -- nobody else may write to the client from now on
    r.raw_socket, r.header_sent, r.complete, r.eof, r.keepalive = true, true, true, true, false
    r.body_read = true
    local sock = new(r, RAW, fill_raw)
    sock[1].aborts = settings(r).check_client_abort
    return sock
end

local function body_socket(r)
    if r.clen == -1 then
        return nil, "chunked request bodies not supported yet"
    elseif r.body_read then
        return nil, "request body already exists"
    elseif r.body_discarded then
        return nil, "request body discarded"
    elseif r.clen == 0 then
        return nil, "no body"
    end
    r.body_read = true
    py.continue_body(r.cid)
    return new(r, BODY, fill_body)
end

local socket_check = checker("ngx.req.socket")

function ngx.req.socket(...)
    local n = select("#", ...)
    if n > 1 then
        error("expecting zero arguments, but got " .. n, 2)
    end
    local raw = ...
    local r = socket_check()
    if r.main then
        error("attempt to read the request body in a subrequest", 2)
    end
    if raw then
        return raw_socket(r)
    end
    return body_socket(r)
end
