-- The memc module: one question to memcached for each request, in its text protocol.

local rt = ...

local ngx, methods = rt.ngx, rt.tcp_methods
local tonumber, setmetatable = tonumber, setmetatable
local format, gsub, byte, match, concat = string.format, string.gsub, string.byte, string.match, table.concat
local min = math.min
local text_of, emit, leave, outcome, raw_log = rt.text, rt.emit, rt.leave, rt.outcome, rt.raw_log
local flush, read_body, get_body_data, get_body_file =
    ngx.flush, ngx.req.read_body, ngx.req.get_body_data, ngx.req.get_body_file

local ERROR = 4

-- Bytes of a value that are handed on at once.
local PIECE = 65536
local BAD_REQUEST, FORBIDDEN, NOT_FOUND, BAD_GATEWAY, TIMED_OUT = 400, 403, 404, 502, 504
local OK, CREATED = 200, 201

local BY_METHOD = { GET = "get", HEAD = "get", POST = "add", PUT = "set", DELETE = "delete" }

local function variable(r, name)
    local value = r.vars and r.vars["memc_" .. name]
    return value ~= "" and value or nil
end

-- memcached's keys have no spaces and no control characters.
local function escape(key)
    return (gsub(key, "[%z\1-\32%%\127]", function(char)
        return format("%%%02x", byte(char))
    end))
end

local function number(r, name, default)
    local text = variable(r, name)
    if not text then
        return default
    end
    return match(text, "^%d+$") or leave(outcome.EXIT, BAD_REQUEST)
end

local REASONS = {
    closed = "upstream prematurely closed connection",
    timeout = "upstream timed out (110: Connection timed out)",
}

local function broken(r, err, sock)
    if sock then
        methods.close(sock)
    end
    raw_log(ERROR, REASONS[err] or err, r)
    return leave(outcome.EXIT, err == "timeout" and TIMED_OUT or BAD_GATEWAY)
end

local function receive(r, sock)
    local data, err = methods.receive(sock)
    return data or broken(r, err, sock)
end

local function missing(sock)
    methods.close(sock)
    return leave(outcome.EXIT, NOT_FOUND)
end

local function respond(r, status, body)
    r.status = status
    emit(r, body)
end

-- The answer to what changes something, or asks for one line.
local STATUS = {
    STORED = CREATED, NOT_STORED = OK, EXISTS = OK, DELETED = OK, OK = OK, NOT_FOUND = NOT_FOUND, TOUCHED = OK,
}

local function one_line(r, sock)
    local line = receive(r, sock)
    local word = match(line, "^%S+") or ""
    local status = STATUS[word] or (tonumber(word) or word == "VERSION") and OK
    if not status then
        return broken(r, 'unexpected answer "' .. line .. '"', sock)
    elseif status == NOT_FOUND then
        return missing(sock)
    end
    respond(r, status, line .. "\r\n")
end

local answers = {}

function answers.get(r, sock)
    local line = receive(r, sock)
    if line == "END" then
        return missing(sock)
    end
    local flags, size = match(line, "^VALUE %S+ (%d+) (%d+)")
    if not size then
        return broken(r, 'unexpected answer "' .. line .. '"', sock)
    end
    r.vars = r.vars or {}
    r.vars.memc_flags = flags
    local left = tonumber(size)
    r.status = OK
    while left > 0 do
        local piece, err = methods.receiveany(sock, min(left, PIECE))
        if not piece then
            -- the client sees that a part is missing
            return broken(r, err, sock)
        end
        left = left - #piece
        emit(r, piece)
        if left > 0 then
            flush(true)
        end
    end
    if size == "0" then
        emit(r, "")
    end
    receive(r, sock)
    receive(r, sock)
end

function answers.stats(r, sock)
    local lines, n = {}, 0
    repeat
        local line = receive(r, sock)
        n = n + 1
        lines[n] = line .. "\r\n"
    until line == "END"
    respond(r, OK, concat(lines))
end

local STORING = { set = true, add = true, replace = true, append = true, prepend = true }
local KEYED = { get = true, delete = true, incr = true, decr = true }

local function request_body(r)
    read_body()
    local file = get_body_file()
    if not file then
        return get_body_data() or ""
    end
    local data, err = rt.py.read_file(file)
    return data or broken(r, err)
end

-- What is sent for a command.
local function question(r, command)
    local key
    if STORING[command] or KEYED[command] then
        key = variable(r, "key")
        if not key then
            raw_log(ERROR, 'the "$memc_key" variable is not set', r)
            return leave(outcome.EXIT, BAD_REQUEST)
        end
        key = escape(key)
    end
    if STORING[command] then
        local value = variable(r, "value")
        if not value then
            value = request_body(r)
        end
        return format("%s %s %s %s %d\r\n", command, key, number(r, "flags", 0), number(r, "exptime", 0), #value)
            .. value .. "\r\n"
    elseif command == "incr" or command == "decr" then
        return command .. " " .. key .. " " .. number(r, "value", 1) .. "\r\n"
    elseif key then
        return command .. " " .. key .. "\r\n"
    elseif command == "flush_all" then
        return "flush_all " .. number(r, "exptime", 0) .. "\r\n"
    elseif command == "verbosity" then
        return "verbosity " .. number(r, "value", 1) .. "\r\n"
    end
    return command .. "\r\n"
end

local KNOWN = { flush_all = true, stats = true, version = true, verbosity = true }

local function milliseconds(settings, name)
    local seconds = settings and settings[name] or 60
    return seconds * 1000
end

rt.hook("content", "memc", function(r, address)
    local settings = r.loc.settings
    local command = variable(r, "cmd") or BY_METHOD[r.method]
    if not command or not (STORING[command] or KEYED[command] or KNOWN[command]) then
        return leave(outcome.EXIT, BAD_REQUEST)
    end
    local allowed = settings and settings.memc_cmds_allowed
    if allowed and not allowed[command] then
        return leave(outcome.EXIT, FORBIDDEN)
    end
    local text = question(r, command)
    local sock = setmetatable({}, methods)
    methods.settimeouts(sock, milliseconds(settings, "memc_connect_timeout"),
        milliseconds(settings, "memc_send_timeout"), milliseconds(settings, "memc_read_timeout"))
    local where = text_of(r, address)
    local host, port = match(where, "^(.*):(%d+)$")
    local ok, err
    if host then
        ok, err = methods.connect(sock, host, tonumber(port))
    else
        ok, err = methods.connect(sock, where, 11211)
    end
    if ok then
        ok, err = methods.send(sock, text)
    end
    if not ok then
        return broken(r, err, sock)
    end
    local answer = answers[command] or one_line
    -- in nginx's words, for the lines that are logged from here on
    local client = r.main or r
    client.doing = " while sending to client"
    answer(r, sock)
    methods.close(sock)
end)
