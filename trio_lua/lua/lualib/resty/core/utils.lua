-- Replacing one byte by another.

local base = require "resty.core.base"

local find, gsub, sub = string.find, string.gsub, string.sub

local _M = { version = base.version }

--- `s` with the first byte of `replacement` in the place of every first byte of `wanted`; nothing
--- changes where `wanted` does not occur as a whole.
function _M.str_replace_char(s, wanted, replacement)
    if not find(s, wanted, 1, true) then
        return s
    end
    local by = sub(replacement, 1, 1)
    return (gsub(s, (gsub(sub(wanted, 1, 1), "%W", "%%%0")), (gsub(by, "%%", "%%%%"))))
end

return _M
