-- Fields of ngx that are computed: other modules can add their own.

local base = require "resty.core.base"

local getmetatable, next = getmetatable, next

local _M = { _VERSION = base.version }

local getters, setters = {}, {}

-- Only once somebody registers a field, so that reading ngx.status has no further step until then.
local function watch(event, functions)
    local meta = getmetatable(ngx)
    local builtin = meta[event]
    if event == "__index" then
        meta[event] = function(t, key)
            local getter = functions[key]
            if getter then
                return getter()
            end
            return builtin(t, key)
        end
    else
        meta[event] = function(t, key, value)
            local setter = functions[key]
            if setter then
                return setter(value)
            end
            return builtin(t, key, value)
        end
    end
end

--- `ngx[key]` is what `getter()` returns.
function _M.register_ngx_magic_key_getter(key, getter)
    if next(getters) == nil then
        watch("__index", getters)
    end
    getters[key] = getter
end

--- `ngx[key] = value` calls `setter(value)`.
function _M.register_ngx_magic_key_setter(key, setter)
    if next(setters) == nil then
        watch("__newindex", setters)
    end
    setters[key] = setter
end

return _M
