-- The headers-more module: runs a location's commands on the headers of a response or of the request.

local rt = ...

local lower, match, sub = string.lower, string.match, string.sub
local remove = table.remove
local text, set_response_header, set_request_header = rt.text, rt.set_response_header, rt.set_request_header
local headers_in, header_in = rt.headers_in, rt.header_in

local function without_parameters(content_type)
    return content_type and match(content_type, "^[^; ]*")
end

local function applies(list, value)
    return not list or (value and list[value])
end

-- --------------------------------------------------------------------- responses

-- Remove every line of a flat list {name, value, ...} whose name begins so; the first of them, and the length.
local function remove_beginning(list, n, beginning)
    local length, first = #beginning, nil
    for i = n - 1, 1, -2 do
        if lower(sub(list[i], 1, length)) == beginning then
            first = remove(list, i)
            remove(list, i)
            n = n - 2
        end
    end
    return first, n
end

local function set(r, header, value, append)
    local name, key = header.name, header.key
    if header.wildcard then
        local list = r.hout
        local first = list and remove_beginning(list, #list, key)
        if value ~= "" then
            set_response_header(r, first or name .. "*", value, true)
        end
    elseif value == "" then
        set_response_header(r, name, nil, true)
    else
        set_response_header(r, name, value, not append)
    end
end

rt.hook("header_filter", "more_set_headers", function(r, commands)
    local content_type = without_parameters(r.ct)
    for i = 1, #commands do
        local command = commands[i]
        if applies(command.statuses, r.status) and applies(command.types, content_type) then
            local headers = command.headers
            for k = 1, #headers do
                set(r, headers[k], text(r, headers[k].value), command.append)
            end
        end
    end
end)

-- ---------------------------------------------------------------------- requests

local function set_input(r, header, value, replace)
    if header.wildcard then
        if value == "" then
            local list = headers_in(r)
            local _
            _, list.n = remove_beginning(list, list.n, header.key)
            r.hin_index = nil
        end
    elseif value == "" then
        set_request_header(r, header.name, nil, true)
    elseif not replace or header_in(r, header.key) then
        set_request_header(r, header.name, value, true)
    end
end

rt.hook("rewrite", "more_set_input_headers", function(r, commands)
    for i = 1, #commands do
        local command = commands[i]
        if applies(command.types, header_in(r, "content-type")) then
            local headers = command.headers
            for k = 1, #headers do
                set_input(r, headers[k], text(r, headers[k].value), command.replace)
            end
        end
    end
end)
