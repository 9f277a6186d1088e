-- What `trio-lua run` changes: there is no client, so that ngx.say and its kin write to standard
-- output, as they do under OpenResty's command `resty`. print is ngx.say there, too.

local rt = ...

local ngx, S = rt.ngx, rt.S
local join, write = rt.join_arguments, rt.py.write
local loadstring, pcall, error, require, package = loadstring, pcall, error, require, package

local TIMER = 0x80

local function output(name, newline)
    return function(...)
        local ok, text = pcall(join, name, newline, ...)
        if not ok then
            error(text, 2)
        end
        write(text)
        return 1
    end
end

ngx.print, ngx.say = output("print", false), output("say", true)
print = output("print", true)

-- Everything is written at once.
function ngx.flush()
    return 1
end

function ngx.eof()
    return 1
end

local code, names, libraries, arguments = {}, {}, {}, {}

function rt.export.add_chunk(text, name)
    code[#code + 1], names[#names + 1] = text, name
end

function rt.export.add_library(name)
    libraries[#libraries + 1] = name
end

function rt.export.add_argument(index, value)
    arguments[index] = value
end

--- Compile everything, then run it as one light thread.
function rt.export.run_script(path)
    package.path = path .. package.path
    arg = arguments
    local chunks = {}
    for i = 1, #code do
        local fn, err = loadstring(code[i], names[i])
        if not fn then
            return rt.outcome.LOAD_FAILED, err
        end
        chunks[i] = fn
    end
    local owner = { id = 0, fake = true, phase = TIMER, loc = rt.main_location, start = rt.py.now() }
    return rt.start_thread(owner, function()
        for i = 1, #libraries do
            _G[libraries[i]] = require(libraries[i])
        end
        for i = 1, #chunks do
            chunks[i](unpack(arguments))
        end
    end)
end
