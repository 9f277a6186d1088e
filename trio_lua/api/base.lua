-- The ngx table itself: fields with getters and setters, ngx.config, ngx.worker, ngx.get_phase.

local rt = ...

local S, ngx, py = rt.S, rt.ngx, rt.py
local error, type, tonumber, tostring, setmetatable, rawset = error, type, tonumber, tostring, setmetatable, rawset
local request = rt.request
local phase_names = rt.phase_names

local function status_of(r)
    local status = r.err_status or r.status
    if status == 0 and r.minor == -1 then
        -- what nginx has in the place of a status that HTTP/0.9 does not know
        return 9
    end
    return status
end

local fields = {
    ctx = rt.get_ctx,
    status = function()
        return status_of(request())
    end,
    headers_sent = function()
        local r = request()
        return r.header_sent or false
    end,
    is_subrequest = function()
        return request().main ~= false
    end,
}

local setters = {
    ctx = rt.set_ctx,
    status = function(value)
        local r = request()
        if r.header_sent then
            rt.raw_log(4, "attempt to set ngx.status after sending out response headers", r)
            return
        end
        local code = tonumber(value)
        if not code then
            error("number expected, got " .. type(value), 2)
        end
        r.status = code
        r.err_status = nil
        r.status_line = nil
    end,
}

setmetatable(ngx, {
    __index = function(_, key)
        local getter = fields[key]
        if getter then
            return getter()
        end
    end,
    __newindex = function(t, key, value)
        local setter = setters[key]
        if setter then
            return setter(value)
        end
        rawset(t, key, value)
    end,
})

-- ngx.arg: the arguments of set_by_lua, the chunk and eof flag of body_filter_by_lua
local SET, BODY_FILTER = 0x01, 0x40
local filter_arg = rt.filter_arg

rawset(ngx, "arg", setmetatable({}, {
    __index = function(_, key)
        local r = request()
        if r.phase == SET then
            if type(key) ~= "number" then
                return nil
            end
            return r.set_args and r.set_args[key]
        elseif r.phase == BODY_FILTER then
            return filter_arg[key]
        end
        error("API disabled in the current context", 2)
    end,
    __newindex = function(_, key, value)
        local r = request()
        if r.phase ~= BODY_FILTER then
            error("API disabled in the current context", 2)
        end
        if key == 1 then
            local kind = type(value)
            if kind == "table" then
                value = rt.join_output(value)
            elseif value == nil then
                value = ""
            elseif kind == "number" then
                value = tostring(value)
            elseif kind ~= "string" then
                error("bad chunk data type: " .. kind, 2)
            end
            filter_arg[1] = value
        elseif key == 2 then
            filter_arg[2] = value and true or false
        else
            error("bad field name", 2)
        end
    end,
}))

-- Arguments of set_by_lua, given as evaluated templates.
function rt.export.set_args(id, ...)
    rt.requests[id].set_args = { ... }
end

function ngx.get_phase()
    local r = S.r
    if not r then
        return "init"
    end
    return phase_names[r.phase]
end

-- The phase's bit; nil where there is no request.
function ngx._phase_ctx()
    local r = S.r
    return r and r.phase
end

function ngx.get_raw_phase()
    local r = S.r
    if not r then
        error("no request found", 2)
    end
    return r.phase
end
