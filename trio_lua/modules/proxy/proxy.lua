-- The proxy module: what is known of the upstream server, in variables and log lines, and the client's headers for it.

local rt = ...

local requests, export = rt.requests, rt.export
local find, gmatch, lower, concat = string.find, string.gmatch, string.lower, table.concat
local headers_in = rt.headers_in

-- A fact about the upstream server: the value of a variable, or "url", which log lines name.
function export.proxy_note(id, name, value)
    local r = requests[id]
    local facts = r.upstream
    if not facts then
        facts = {}
        r.upstream = facts
    end
    facts[name] = value
end

-- What is done now, for log lines (" while connecting to upstream").
function export.proxy_stage(id, text)
    local r = requests[id]
    local client = r.main or r
    client.doing = text
end

for name in gmatch(
    "proxy_host proxy_port upstream_addr upstream_status upstream_response_time upstream_response_length "
        .. "upstream_connect_time upstream_header_time",
    "%S+"
) do
    rt.define_variable(name, function(r)
        local facts = r.upstream
        return facts and facts[name]
    end)
end

-- The client's header lines, without those whose lower-case names are in `without` ("\nhost\nconnection\n").
function export.proxy_headers(id, without)
    local h = headers_in(requests[id])
    local lines, n = {}, 0
    for i = 1, h.n, 2 do
        if not find(without, "\n" .. lower(h[i]) .. "\n", 1, true) then
            lines[n + 1], lines[n + 2], lines[n + 3], lines[n + 4] = h[i], ": ", h[i + 1], "\r\n"
            n = n + 4
        end
    end
    return concat(lines)
end
