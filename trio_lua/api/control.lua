-- What ends or redirects a handler: ngx.exit, ngx.exec, ngx.redirect; and ngx.sleep.
--
-- The functions that never return leave the coroutine by a yield that is not answered, so pcall
-- does not see them.

local rt = ...

local S, ngx = rt.S, rt.ngx
local type, tostring, tonumber, error, select = type, tostring, tonumber, error, select
local find, byte, format, sub, lower = string.find, string.byte, string.format, string.sub, string.lower
local match = string.match
local checker, leave, outcome = rt.checker, rt.leave, rt.outcome

ngx.OK, ngx.ERROR, ngx.AGAIN, ngx.DONE, ngx.DECLINED = 0, -1, -2, -4, -5

for name, code in pairs {
    HTTP_CONTINUE = 100, HTTP_SWITCHING_PROTOCOLS = 101,
    HTTP_OK = 200, HTTP_CREATED = 201, HTTP_ACCEPTED = 202, HTTP_NO_CONTENT = 204, HTTP_PARTIAL_CONTENT = 206,
    HTTP_SPECIAL_RESPONSE = 300, HTTP_MOVED_PERMANENTLY = 301, HTTP_MOVED_TEMPORARILY = 302, HTTP_SEE_OTHER = 303,
    HTTP_NOT_MODIFIED = 304, HTTP_TEMPORARY_REDIRECT = 307, HTTP_PERMANENT_REDIRECT = 308,
    HTTP_BAD_REQUEST = 400, HTTP_UNAUTHORIZED = 401, HTTP_PAYMENT_REQUIRED = 402, HTTP_FORBIDDEN = 403,
    HTTP_NOT_FOUND = 404, HTTP_NOT_ALLOWED = 405, HTTP_NOT_ACCEPTABLE = 406, HTTP_REQUEST_TIMEOUT = 408,
    HTTP_CONFLICT = 409, HTTP_GONE = 410, HTTP_UPGRADE_REQUIRED = 426, HTTP_TOO_MANY_REQUESTS = 429,
    HTTP_CLOSE = 444, HTTP_ILLEGAL = 451,
    HTTP_INTERNAL_SERVER_ERROR = 500, HTTP_NOT_IMPLEMENTED = 501, HTTP_METHOD_NOT_IMPLEMENTED = 501,
    HTTP_BAD_GATEWAY = 502, HTTP_SERVICE_UNAVAILABLE = 503, HTTP_GATEWAY_TIMEOUT = 504,
    HTTP_VERSION_NOT_SUPPORTED = 505, HTTP_INSUFFICIENT_STORAGE = 507,
} do
    ngx[name] = code
end

-- A request whose subrequests run must not end before them.
local function no_pending(r)
    if r.subrequests then
        error("attempt to abort with pending subrequests", 3)
    end
end
rt.no_pending_subrequests = no_pending

local exit_check = checker("ngx.exit")
local HEADER_FILTER, TIMER = 0x20, 0x80

function ngx.exit(status)
    local r = exit_check()
    local code = tonumber(status)
    if not code then
        rt.type_error(1, "exit", "number", status == nil and "nil" or type(status))
    end
    if code == -2 or code == -4 then
        error("bad argument to 'ngx.exit': does not accept NGX_AGAIN or NGX_DONE", 2)
    end
    if r.phase == HEADER_FILTER then
        r.filter_exit = code
        return
    end
    if code ~= -1 and code ~= 444 and code ~= 408 and code ~= 499 then
        no_pending(r)
    end
    if code ~= 444 and code ~= 408 and code ~= 499 then
        if r.http10 then
            -- output is kept back, so the response is what has been said
            return leave(outcome.EXIT, code == -1 and -1 or 0)
        elseif r.header_sent and code >= 300 then
            if code ~= r.status then
                rt.raw_log(4, "attempt to set status " .. code
                    .. " via ngx.exit after sending out the response status " .. r.status, r)
            end
            return leave(outcome.EXIT, 0)
        elseif code >= 200 and r.status == 0 then
            r.status = code
        end
    end
    return leave(outcome.EXIT, code)
end

local exec_check = checker("ngx.exec")

function ngx.exec(...)
    local n = select("#", ...)
    if n ~= 1 and n ~= 2 then
        error("expecting one or two arguments, but got " .. n, 2)
    end
    local uri, args = ...
    local r = exec_check()
    if type(uri) == "number" then
        uri = tostring(uri)
    elseif type(uri) ~= "string" then
        rt.type_error(1, "exec", "string", uri == nil and "nil" or type(uri))
    end
    if uri == "" then
        error("The uri argument is empty", 2)
    end
    local kind = type(args)
    if kind == "number" then
        args = tostring(args)
    elseif kind == "table" then
        local text, err = rt.encode_args(args)
        if not text then
            error(err, 2)
        end
        args = text
    elseif args ~= nil and kind ~= "string" then
        error("bad argument #2 to 'exec' (string, number, or table expected, but got " .. kind .. ")", 2)
    end
    if byte(uri) == 64 then -- @
        uri = match(uri, "^[^?]*")
    else
        local path, query = rt.py.parse_unsafe_uri(uri)
        if not path then
            rt.raw_log(4, 'unsafe URI "' .. uri .. '" was detected', r)
            error("unsafe uri", 2)
        end
        uri = path
        if query and query ~= "" then
            args = args and args ~= "" and query .. "&" .. args or query
        end
    end
    if r.header_sent then
        error("attempt to call ngx.exec after sending out response headers", 2)
    end
    no_pending(r)
    return leave(outcome.EXEC, uri, args)
end

local redirect_check = checker("ngx.redirect")

function ngx.redirect(...)
    local n = select("#", ...)
    if n ~= 1 and n ~= 2 then
        error("expecting one or two arguments", 2)
    end
    local uri, status = ...
    local r = redirect_check()
    if type(uri) == "number" then
        uri = tostring(uri)
    elseif type(uri) ~= "string" then
        rt.type_error(1, "redirect", "string", uri == nil and "nil" or type(uri))
    end
    if n == 2 then
        if type(status) ~= "number" then
            status = tonumber(status) or rt.type_error(2, "redirect", "number", status == nil and "nil" or type(status))
        end
        if status ~= 302 and status ~= 301 and status ~= 303 and status ~= 307 and status ~= 308 then
            error("only ngx.HTTP_MOVED_TEMPORARILY, ngx.HTTP_MOVED_PERMANENTLY, ngx.HTTP_PERMANENT_REDIRECT, "
                .. "ngx.HTTP_SEE_OTHER, and ngx.HTTP_TEMPORARY_REDIRECT are allowed", 2)
        end
    else
        status = 302
    end
    if r.header_sent then
        error("attempt to call ngx.redirect after sending out the headers", 2)
    end
    local at = find(uri, "[%z\1-\31\127]")
    if at then
        error(format('unsafe byte "0x%02x" in redirect uri "%s"', byte(uri, at),
            rt.visible(uri)), 2)
    end
    no_pending(r)
    rt.set_response_header(r, "Location", uri, true)
    r.status = status
    return leave(outcome.EXIT, status)
end

local sleep_check = checker("ngx.sleep")

function ngx.sleep(...)
    if select("#", ...) ~= 1 then
        error("attempt to pass " .. select("#", ...) .. " arguments, but accepted 1", 2)
    end
    local seconds = ...
    local n = tonumber(seconds)
    if not n then
        rt.type_error(1, "sleep", "number", type(seconds))
    end
    local ms = n * 1000
    if ms < 0 then
        error('invalid sleep duration "' .. format("%d", ms) .. '"', 2)
    end
    sleep_check()
    rt.sleep(ms / 1000)
end
