-- Request bodies: ngx.req.read_body, get_body_data, get_body_file, get_post_args, set_body_*.
--
-- Python reads the body; what is there already is taken without suspending. A body in memory is
-- the string r.body, a large one the file r.body_file.

local rt = ...

local S, ngx, py = rt.S, rt.ngx, rt.py
local type, tostring, tonumber, error, select = type, tostring, tonumber, error, select
local concat, sub = table.concat, string.sub
local checker, suspend, leave, outcome = rt.checker, rt.suspend, rt.leave, rt.outcome
local req = ngx.req

local FILE, FAILED = 1, 2

-- Keep a body that was read. One that is longer than a Content-Length set by Lua ends there; what the client sent
-- beyond that is dropped, for nginx would take it for another request.
local function keep(r, kind, data)
    r.body_read = true
    local length = r.clen_in and tonumber(r.clen_in)
    if kind == FILE then
        if length then
            py.shorten(data, length)
        end
        r.body_file = data
    else
        if length and length < #data then
            data = sub(data, 1, length)
        end
        if data ~= "" then
            r.body = data
        end
    end
end

-- Store what the reader gave: kind, data.
local function store(r, kind, data)
    if kind == FAILED then
        r.body_read = true
        return leave(outcome.EXIT, data)
    end
    return keep(r, kind, data)
end

local function read_body(r)
    if r.body_read or r.body_discarded then
        return
    end
    if r.clen == 0 then
        r.body_read = true
        return
    end
    local kind, data = py.read_body(r.cid)
    if not kind then
        r.body_reader = S.th.id
        kind, data = suspend(rt.ops.read_body, r.cid)
        r.body_reader = nil
    end
    return store(r, kind, data)
end

-- lua_need_request_body, and Python's own use.
function rt.export.store_body(id, kind, data)
    keep(rt.requests[id], kind, data)
end

local read_check = checker("ngx.req.read_body")
function req.read_body()
    return read_body(read_check())
end

local discard_check = checker("ngx.req.discard_body", true)
function req.discard_body()
    local r = discard_check()
    if not r.body_read then
        r.body_discarded = true
    end
end

local data_check = checker("ngx.req.get_body_data", true)
function req.get_body_data(max)
    local r = data_check()
    local body = r.body
    if body and max and max > 0 and #body > max then
        return sub(body, 1, max)
    end
    return body
end

local file_check = checker("ngx.req.get_body_file", true)
function req.get_body_file()
    return file_check().body_file
end

local post_check = checker("ngx.req.get_post_args", true)
function req.get_post_args(max)
    local r = post_check()
    if r.body_discarded then
        return {}
    end
    if not r.body_read then
        error("no request body found; maybe you should turn on lua_need_request_body?", 2)
    end
    if r.body_file then
        return nil, "request body in temp file not supported"
    end
    if not r.body then
        return {}
    end
    return rt.decode_args(r.body, max == nil and 100 or max)
end

local function body_ready(r)
    if r.body_discarded then
        error("request body already discarded asynchronously", 3)
    end
    if not r.body_read then
        error("request body not read yet", 3)
    end
end

local function drop_file(r)
    if r.body_file and not r.body_file_kept then
        py.unlink(r.cid, r.body_file)
    end
    r.body_file, r.body_file_kept = nil, nil
end

local function set_length(r, n)
    rt.set_request_header(r, "Content-Length", tostring(n), true)
end

local set_data_check = checker("ngx.req.set_body_data", true)
function req.set_body_data(...)
    local n = select("#", ...)
    if n ~= 1 then
        error("expecting 1 arguments but seen " .. n, 2)
    end
    local data = ...
    if type(data) == "number" then
        data = tostring(data)
    elseif type(data) ~= "string" then
        rt.type_error(1, "set_body_data", "string", data == nil and "nil" or type(data))
    end
    local r = set_data_check()
    body_ready(r)
    drop_file(r)
    r.body = data ~= "" and data or nil
    set_length(r, #data)
end

local set_file_check = checker("ngx.req.set_body_file", true)
function req.set_body_file(...)
    local n = select("#", ...)
    if n ~= 1 and n ~= 2 then
        error("expecting 1 or 2 arguments but seen " .. n, 2)
    end
    local path, clean = ...
    if type(path) ~= "string" then
        rt.type_error(1, "set_body_file", "string", path == nil and "nil" or type(path))
    end
    local r = set_file_check()
    body_ready(r)
    if path == "" then
        error("empty file name", 2)
    end
    local size, err = py.file_size(path)
    if not size then
        error(err, 2)
    end
    drop_file(r)
    r.body = nil
    r.body_file, r.body_file_kept = path, not clean
    if clean then
        py.own_file(r.cid, path)
    end
    set_length(r, size)
end

local init_check = checker("ngx.req.init_body", true)
function req.init_body(size)
    local r = init_check()
    if size ~= nil then
        size = tonumber(size) or rt.type_error(1, "init_body", "number", type(size))
        if size < 0 then
            error("bad size argument: " .. size, 2)
        end
    end
    body_ready(r)
    drop_file(r)
    r.body = nil
    r.new_body, r.new_body_n = {}, 0
    r.new_body_limit = size or r.loc.body_buffer_size or 16384
end

local append_check = checker("ngx.req.append_body", true)
function req.append_body(data)
    local r = append_check()
    if type(data) == "number" then
        data = tostring(data)
    elseif type(data) ~= "string" then
        rt.type_error(1, "append_body", "string", data == nil and "nil" or type(data))
    end
    local body = r.new_body
    if not body then
        error("request_body not initialized", 2)
    end
    body[#body + 1] = data
    r.new_body_n = r.new_body_n + #data
    if r.new_body_n > r.new_body_limit then
        local path, err = py.spool(r.cid, concat(body), r.new_body_file)
        if not path then
            error(err, 2)
        end
        if not r.new_body_file then
            rt.raw_log(5, "a client request body is buffered to a temporary file " .. path, r)
        end
        r.new_body_file = path
        r.new_body, r.new_body_spooled = {}, (r.new_body_spooled or 0) + r.new_body_n
        r.new_body_n = 0
    end
end

local finish_check = checker("ngx.req.finish_body", true)
function req.finish_body()
    local r = finish_check()
    local body = r.new_body
    if not body then
        error("request_body not initialized", 2)
    end
    local total = r.new_body_n + (r.new_body_spooled or 0)
    if r.new_body_file then
        if r.new_body_n > 0 then
            py.spool(r.cid, concat(body), r.new_body_file)
        end
        r.body_file = r.new_body_file
    else
        local data = concat(body)
        r.body = data ~= "" and data or nil
    end
    r.new_body, r.new_body_file, r.new_body_spooled = nil, nil, nil
    set_length(r, total)
end
