-- The short way: a plain request to a known location that has nothing but handlers is read, run and
-- answered in one crossing. The engine teaches the answers of its searches (which server a host name
-- belongs to, which location a path); what is not known here takes the engine's way, and so does
-- whatever does not simply end.

local rt = ...

local S, requests, locations = rt.S, rt.requests, rt.locations
local pairs, select, sub = pairs, select, string.sub
local band = require("bit").band
local closure, start_thread, conclude = rt.closure, rt.start_thread, rt.conclude
local recognise, new_request, clean_up = rt.recognise, rt.new_request, rt.clean_up
local EXIT, LOAD_FAILED, CONCLUDED = rt.outcome.EXIT, rt.outcome.LOAD_FAILED, rt.outcome.CONCLUDED
local READ, STARTED = 9, 10
rt.outcome.READ, rt.outcome.STARTED = READ, STARTED

local routes = {}    -- server -> path -> route
local endpoints = {} -- endpoint -> its only server's routes, and those of servers by host name

local function routes_of(server)
    local known = routes[server]
    if not known then
        known = {}
        routes[server] = known
    end
    return known
end

-- head_limit: bytes of a head that always fit its buffers; longer ones are measured line by line.
-- server: the one that answers for every host name, if there is such a one.
function rt.export.define_endpoint(number, head_limit, server)
    endpoints[number] = { head_limit = head_limit, only = server and routes_of(server), hosts = {} }
end

-- A host name of an endpoint belongs to a server.
function rt.export.remember_host(number, host, server)
    endpoints[number].hosts[host] = routes_of(server)
end

function rt.export.forget_hosts(number)
    endpoints[number].hosts = {}
end

-- handler, phase, handler, phase...: all that lies between the location search and the response.
function rt.export.remember(server, uri, location, max_requests, ...)
    routes_of(server)[uri] = {
        loc = locations[location], number = location, max_requests = max_requests, n = select("#", ...), ...,
    }
end

-- Forget the paths of a server; without one, those of all.
function rt.export.forget(server)
    for number, known in pairs(routes) do
        if number == server or not server then
            for uri in pairs(known) do
                known[uri] = nil
            end
        end
    end
end

local run_step

local function after_step(r, head_len, route, i, outcome, ...)
    if outcome ~= 0 then
        return STARTED, r.id, head_len, r.host, route.number, i, outcome, ...
    end
    if i + 2 < route.n and not r.header_sent then
        return run_step(r, head_len, route, i + 2)
    end
    S.r = r
    local data, keepalive, code = conclude(r)
    S.r = nil
    if code then
        return STARTED, r.id, head_len, r.host, route.number, i, EXIT, code
    elseif not route.loc.released_early then
        return STARTED, r.id, head_len, r.host, route.number, i, CONCLUDED, data, keepalive
    end
    requests[r.id] = nil
    if r.cleanup then
        clean_up(r)
    end
    return CONCLUDED, data, keepalive, head_len, route.number
end

run_step = function(r, head_len, route, i)
    local fn, err, missing = closure(r, route[i])
    if not fn then
        return STARTED, r.id, head_len, r.host, route.number, i, LOAD_FAILED, err, missing
    end
    r.phase = route[i + 1]
    return after_step(r, head_len, route, i, start_thread(r, fn))
end

-- Read a head and, where its location is known, run its handlers:
-- 0: no plain head; 9, id, head length, content length, host, path (nil: to be normalised): it is read;
-- 7, bytes, keep-alive, head length, location: it is answered;
-- 10, id, head length, host, location, step, outcome, ...: a handler did not simply end.
function rt.export.serve(data, cid, now, endpoint, count)
    local head_len, flags, clen, method, target, host, qpos = recognise(data)
    local point = endpoints[endpoint]
    if head_len == 0 or head_len > point.head_limit then
        return 0
    end
    local uri, args
    if band(flags, 4) == 0 then
        if qpos > 0 then
            uri = sub(target, 1, qpos - 1)
            if qpos < #target then
                args = sub(target, qpos + 1)
            end
        else
            uri = target
        end
    end
    local id, r = new_request(cid, method, target, uri, args, host, band(flags, 1), band(flags, 2) ~= 0, data,
        head_len, clen, now)
    if clen == 0 and uri then
        local known = point.only or point.hosts[host]
        local route = known and known[uri]
        if route and count < route.max_requests then
            r.loc = route.loc
            S.now = now
            return run_step(r, head_len, route, 1)
        end
    end
    return READ, id, head_len, clen, host, uri
end
