-- In the VMs of thread pools: the rest of ngx.*.
--
-- The functions that need no request and no event loop are the worker's own files. Every other name of
-- the worker's ngx table is here, too, and fails when it is used, not before: modules keep such functions in
-- locals when they load, whether they call them or not.

local rt = ...

local ffi = require "ffi"

local ngx = rt.ngx
local error, type, tostring, setmetatable, rawget, rawset, next, pairs
    = error, type, tostring, setmetatable, rawget, rawset, next, pairs
local match = string.match

for name, value in next, rt.constants do
    ngx[name] = value
end

function ngx.get_phase()
    return "init"
end

rt.export.set_worker(rt.worker_id, rt.worker_count)
ngx.worker.exiting, ngx.worker.pids = nil, nil

-- C's system() lets the whole process ignore SIGINT and SIGQUIT while the command runs, and here that is the server.
-- The command's standard input is empty.
ffi.cdef [[
void *trio_lua_popen(const char *, const char *) __asm__("popen");
int trio_lua_pclose(void *) __asm__("pclose");
]]

function os.execute(command)
    if command == nil then
        return 1
    elseif type(command) ~= "string" and type(command) ~= "number" then
        error("bad argument #1 to 'execute' (string expected, got " .. type(command) .. ")", 2)
    end
    local process = ffi.C.trio_lua_popen(tostring(command), "w")
    if process == nil then
        return -1
    end
    return ffi.C.trio_lua_pclose(process)
end

-- It would end the server, whose other threads still run.
function os.exit()
    error("os.exit is not available in a thread pool: it would end the server", 2)
end

local function unavailable(name)
    error(name .. " is not available in a thread pool: it needs a request or the event loop", 3)
end

local function stub(name)
    return function()
        unavailable(name)
    end
end

local function guard(name)
    return {
        __index = function(_, key)
            unavailable(type(key) == "string" and name .. "." .. key or name)
        end,
        __newindex = function()
            unavailable(name)
        end,
        __call = stub(name),
    }
end

-- Tables of the worker's ngx, then their functions ("socket.tcp") and its own ("sleep").
local guarded = {}
for i = 1, #rt.tables do
    local name = rt.tables[i]
    if rawget(ngx, name) == nil then
        ngx[name] = {}
        guarded[name] = guard("ngx." .. name)
    end
end
for i = 1, #rt.functions do
    local name = rt.functions[i]
    local outer, inner = match(name, "^(.-)%.(.*)$")
    local t = outer and ngx[outer] or ngx
    inner = inner or name
    if rawget(t, inner) == nil then
        t[inner] = stub("ngx." .. name)
    end
end
for name, meta in pairs(guarded) do
    setmetatable(ngx[name], meta)
end

-- Fields that are values of the request
local FIELDS = { ctx = true, status = true, headers_sent = true, is_subrequest = true }

setmetatable(ngx, {
    __index = function(_, key)
        if FIELDS[key] then
            unavailable("ngx." .. key)
        end
    end,
    __newindex = function(t, key, value)
        if FIELDS[key] then
            unavailable("ngx." .. key)
        end
        rawset(t, key, value)
    end,
})

-- Modules of ours that are about requests or the event loop; they, too, load and then fail.
local MODULES = {
    "ngx.ipc", "ngx.location.stream", "ngx.pipe", "ngx.process", "ngx.req", "ngx.resp", "ngx.semaphore", "ngx.ssl",
    "ngx.ssl.clienthello", "ngx.ssl.session", "resty.threadpool", "trio",
}

for i = 1, #MODULES do
    local name = MODULES[i]
    package.preload[name] = function()
        return setmetatable({}, {
            __index = function(_, key)
                return stub(name .. "." .. tostring(key))
            end,
        })
    end
end
