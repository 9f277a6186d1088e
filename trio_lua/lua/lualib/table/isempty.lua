-- table.isempty: whether a table holds no key at all.

local rt = require "trio_lua.rt"

local next, select, type = next, select, type

local function isempty(...)
    local t = ...
    if type(t) ~= "table" then
        rt.arg_error(1, "table expected, got " .. (select("#", ...) == 0 and "no value" or type(t)))
    end
    return next(t) == nil
end

table.isempty = isempty

return isempty
