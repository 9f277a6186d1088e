-- Loads the rules, and asks them about each request.
--
-- A rule is a file that returns a function of a request ({ method, path, args, headers }). The function returns the name of
-- an endpoint and a table of arguments for it; or a number, which is a status; or nil, and the next rule is asked.

local cjson = require "cjson"

local _M = {}

local rules = {}

function _M.load(paths)
    for _, path in ipairs(paths) do
        local rule = assert(assert(loadfile(path))(), path .. " returns no rule")
        -- a trial: what fails for a plain request would fail for every one
        rule { method = "GET", path = "/", args = {}, headers = {} }
        rules[#rules + 1] = rule
    end
end

local function answer(status, value)
    ngx.status = status
    ngx.header.content_type = "application/json"
    ngx.say(cjson.encode(value))
end

function _M.handle()
    local request = {
        method = ngx.req.get_method(),
        path = ngx.var.uri,
        args = ngx.req.get_uri_args(),
        headers = ngx.req.get_headers(),
    }
    for _, rule in ipairs(rules) do
        local target, arguments = rule(request)
        if type(target) == "number" then
            return answer(target, { error = target })
        elseif target then
            return answer(200, require("python.endpoints")[target](arguments or {}))
        end
    end
    answer(404, { error = 404 })
end

return _M
