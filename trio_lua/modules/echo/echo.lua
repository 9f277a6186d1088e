-- The echo module: runs the program of a location, and adds output before and after any body.

local rt = ...

local ngx, py = rt.ngx, rt.py
local tonumber, tostring, pairs, unpack = tonumber, tostring, pairs, unpack
local format, find, gsub, match = string.format, string.find, string.gsub, string.match
local rep, sub = string.rep, string.sub
local concat = table.concat
local text, emit, send_header, leave, outcome = rt.text, rt.emit, rt.send_header, rt.leave, rt.outcome
local raw_log = rt.raw_log
-- as they are now: user code may replace the public ones
local sleep, flush, read_body, update_time = ngx.sleep, ngx.flush, ngx.req.read_body, ngx.update_time

local ERROR = 4

-- Bytes of output behind asynchronous subrequests that have not begun.
local MOST_KEPT = 65536

-- End the request with a status; what was sent stays, and the connection is closed then.
local function fail(r, status, message)
    if message then
        raw_log(ERROR, message, r)
    end
    return leave(outcome.EXIT, status)
end

-- The head, before the first output. Unlike ngx.say this never waits for the length of the body.
local function begin(r)
    if r.header_sent then
        return
    end
    local settings = r.loc.settings
    r.status = settings and settings.echo_status or 200
    if not r.ct_set then
        -- that of a file with this path
        r.ct = find(r.uri, ".", 1, true) and py.content_type(r.cid) or r.loc.default_type
    end
    r.cl = nil
    r.headers_started = true
    rt.remove_header(r, "accept-ranges")
    send_header(r)
end

-- What the module knows of a request.
local function state(r)
    local s = r.echo
    if not s then
        s = { counter = 0 }
        r.echo = s
    end
    return s
end

-- Asynchronous subrequests begin, in their order, when the program is about to wait.
local function start_placed(r)
    local s = r.echo
    local ids = s and s.placed
    if ids then
        s.placed, s.running = nil, s.running or {}
        for i = 1, #ids do
            s.running[#s.running + 1] = ids[i]
        end
        rt.start_subrequests(unpack(ids))
    end
end

local function output(r, data)
    begin(r)
    local s = r.echo
    if s and s.placed then
        -- their output comes first, so this is kept for as long as they have not begun
        s.kept = (s.kept or 0) + #data
        if s.kept > MOST_KEPT then
            start_placed(r)
        end
    end
    emit(r, data)
end

-- The output of echo, echo_before_body and echo_after_body.
local function line(r, command)
    local args = command.args
    local words = {}
    for i = 1, #args do
        words[i] = text(r, args[i])
    end
    if command.newline then
        return concat(words, " ") .. "\n"
    end
    return concat(words, " ")
end

-- ------------------------------------------------------------------------- commands
--
-- Each gets the request, the command, the program and the command's place in it; what it returns is the place
-- from which to go on, nil for the next one.

local commands = {}

function commands.echo(r, command)
    local data = line(r, command)
    if data ~= "" then
        output(r, data)
    end
end

function commands.echo_duplicate(r, command)
    local count = text(r, command.args[1] or "")
    local digits = gsub(count, "_", "")
    if count == "" or find(digits, "%D") then
        return fail(r, 500, 'invalid size specified: "' .. count .. '"')
    end
    output(r, rep(text(r, command.args[2] or ""), tonumber(digits) or 0))
end

function commands.echo_flush(r)
    begin(r)
    flush()
end

-- Seconds with three digits after the point at most.
local function seconds(r, command)
    local duration = text(r, command.args[1] or "")
    if duration == "" or not find(duration, "^%d*%.?%d?%d?%d?$") then
        return fail(r, 400, 'invalid sleep duration "' .. duration .. '"')
    end
    return tonumber(duration) or 0
end

function commands.echo_sleep(r, command)
    local duration = seconds(r, command)
    start_placed(r)
    sleep(duration)
end

-- A sleep that blocked would stop all other requests of the worker.
commands.echo_blocking_sleep = commands.echo_sleep

function commands.echo_reset_timer(r)
    update_time()
    state(r).timer = rt.now()
end

function commands.echo_read_request_body(r)
    read_body()
end

function commands.echo_request_body(r)
    local body = r.body
    if not body and r.body_file then
        body = py.read_file(r.body_file)
    end
    if body then
        output(r, body)
    end
end

function commands.echo_abort_parent(r)
    -- the module has the directive, but nothing that carries it out
    return fail(r, 500, "echo_abort_parent is not supported")
end

function commands.echo_foreach_split(r, command, program, at)
    local s = state(r)
    if s.items then
        return fail(r, 500, "Nested echo_foreach not supported yet.")
    end
    if #command.args < 2 then
        return fail(r, 500, 'echo_foreach should take at least two arguments. (if your delimiter starts with "-", '
            .. 'preceding it with a "--".)')
    end
    local delimiter, whole = text(r, command.args[1]), text(r, command.args[2])
    local items, n, from = {}, 0, 1
    while true do
        local first, last
        if delimiter ~= "" then
            first, last = find(whole, delimiter, from, true)
        end
        local item = sub(whole, from, first and first - 1)
        if item ~= "" then
            n = n + 1
            items[n] = item
        end
        if not first then
            break
        end
        from = last + 1
    end
    s.items, s.item, s.loop = items, 1, at + 1
    if n == 0 then
        for i = at + 1, #program do
            if program[i].name == "echo_end" then
                return i
            end
        end
        return #program + 1
    end
end

function commands.echo_end(r)
    local s = state(r)
    if not s.items then
        return fail(r, -1, "Found a echo_end that has no corresponding echo_foreach before it.")
    end
    s.item = s.item + 1
    if s.item <= #s.items then
        return s.loop
    end
    s.items = nil
end

function commands.echo_exec(r, command)
    local uri = text(r, command.args[1] or "")
    local args = command.args[2] and text(r, command.args[2])
    if uri == "" then
        return fail(r, 400)
    end
    if r.header_sent then
        return fail(r, -1, "attempt to call echo_exec after sending out response headers")
    end
    r.echo = nil
    if sub(uri, 1, 1) == "@" then
        local name, query = match(uri, "^([^?]*)%??(.*)$")
        args = args or query
        if args ~= "" then
            raw_log(5, "querystring " .. args .. " ignored when exec'ing named location " .. name, r)
        end
        return leave(outcome.EXEC, name)
    end
    local path, query = py.parse_unsafe_uri(uri)
    if not path then
        return fail(r, -1)
    end
    return leave(outcome.EXEC, path, args or query)
end

-- ---------------------------------------------------------------------- subrequests
--
-- Their output has its place where the command stands; the asynchronous ones run beside the rest of the program,
-- which ends when they have ended.

local function subrequest(r, asynchronous, method, uri, args, body)
    local path, query
    if uri ~= "" then
        path, query = py.parse_unsafe_uri(uri)
    end
    if not path then
        return fail(r, -1)
    end
    read_body()
    begin(r)
    if r.header_only or r.pending_special then
        return
    end
    local id = rt.open_subrequest(r, path, args or query, method, body, true, "new")
    if not id then
        return fail(r, -1)
    end
    if method == "HEAD" then
        rt.requests[id].body_dropped = true
    end
    if not asynchronous then
        start_placed(r)
        rt.run_subrequests(id)
        return
    end
    local s = state(r)
    s.placed = s.placed or {}
    s.placed[#s.placed + 1] = id
end

local function location(r, command, asynchronous)
    local args = command.args
    return subrequest(r, asynchronous, "GET", text(r, args[1] or ""), args[2] and text(r, args[2]))
end

function commands.echo_location(r, command)
    return location(r, command, false)
end

function commands.echo_location_async(r, command)
    return location(r, command, true)
end

local OPTIONS = { ["-q"] = "query", ["-b"] = "body", ["-f"] = "file" }

local function any_subrequest(r, command, asynchronous)
    local args = {}
    for i = 1, #command.args do
        args[i] = text(r, command.args[i])
    end
    local given = {}
    for i = 3, #args, 2 do
        local option = OPTIONS[args[i]]
        if not option then
            return fail(r, -1, "unknown option for echo_subrequest*: " .. args[i])
        end
        given[option] = args[i + 1] or ""
    end
    local body = given.body ~= "" and given.body or nil
    local file = given.file
    if not body and file and file ~= "" then
        if sub(file, 1, 1) ~= "/" then
            file = rt.prefix .. file
        end
        local err
        body, err = py.read_file(file)
        if not body then
            return fail(r, -1, 'open() "' .. file .. '" failed (' .. err .. ")")
        end
    end
    return subrequest(r, asynchronous, args[1] or "", args[2] or "", given.query, body)
end

function commands.echo_subrequest(r, command)
    return any_subrequest(r, command, false)
end

function commands.echo_subrequest_async(r, command)
    return any_subrequest(r, command, true)
end

rt.hook("content", "echo", function(r, program)
    local n, at = #program, 1
    if r.echo then
        r.echo.items, r.echo.placed, r.echo.running = nil, nil, nil
    end
    while at <= n do
        local command = program[at]
        at = commands[command.name](r, command, program, at) or at + 1
        if r.pending_special then
            -- a filter asked for another response
            return
        elseif r.broken then
            return fail(r, -1)
        end
    end
    begin(r)
    start_placed(r)
    local running = r.echo and r.echo.running
    if running then
        rt.wait_subrequests(unpack(running))
    end
end)

-- ------------------------------------------------------------------------- filters

local function unknown_length(r)
    r.cl = nil
    rt.remove_header(r, "accept-ranges")
end

rt.hook("header_filter", "echo_before_body", unknown_length)
rt.hook("header_filter", "echo_after_body", unknown_length)

local function lines(r, list)
    local out = {}
    for i = 1, #list do
        out[i] = line(r, list[i])
    end
    return concat(out)
end

rt.hook("body_filter", "echo_before_body", function(r, list, data)
    if r.echo_began then
        return data
    end
    r.echo_began = true
    return lines(r, list) .. data
end)

rt.hook("body_filter", "echo_after_body", function(r, list, data, last)
    return last and data .. lines(r, list) or data
end)

-- ----------------------------------------------------------------------- variables

local function main(r)
    return r.main or r
end

for name, getter in pairs {
    echo_timer_elapsed = function(r)
        update_time()
        local elapsed = rt.now() - (r.echo and r.echo.timer or r.start)
        return format("%.3f", elapsed > 0 and elapsed or 0)
    end,
    echo_request_method = function(r) return r.method end,
    echo_client_request_method = function(r) return main(r).method end,
    echo_request_uri = function(r) return r.uri end,
    echo_cacheable_request_uri = function(r) return r.uri end,
    echo_request_body = function(r) return r.body end,
    echo_client_request_headers = function(r)
        r = main(r)
        return sub(r.raw, 1, r.head_len)
    end,
    echo_it = function(r)
        local s = r.echo
        return s and s.items and s.items[s.item]
    end,
    echo_incr = function(r)
        local s = state(main(r))
        s.counter = s.counter + 1
        return tostring(s.counter)
    end,
    echo_response_status = function(r)
        return r.status ~= 0 and tostring(r.status) or nil
    end,
} do
    rt.define_variable(name, getter)
end
