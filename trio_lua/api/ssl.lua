-- The handlers that run in front of a TLS handshake. What they may ask and decide is in lualib/ngx/ssl.lua.

local rt = ...

local py, requests = rt.py, rt.requests

-- What stands in for a request while such handlers run: its number.
function rt.export.begin_tls(cid, location)
    local id = rt.new_id()
    requests[id] = {
        id = id, fake = true, phase = 0, cid = cid, start = 0, main = false, status = 0, began = py.now(),
        origin = ", client: " .. py.connection(cid) .. ", server: " .. py.listen_address(cid),
    }
    rt.export.enter(id, location)
    return id
end
