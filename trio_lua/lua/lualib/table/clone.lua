-- table.clone: a shallow copy, without the metatable.

local rt = require "trio_lua.rt"
local new_tab = require "table.new"

local next, select, type = next, select, type

local function clone(...)
    local t = ...
    if type(t) ~= "table" then
        rt.arg_error(1, "table expected, got " .. (select("#", ...) == 0 and "no value" or type(t)))
    end
    local copy = new_tab(#t, 0)
    for key, value in next, t do
        copy[key] = value
    end
    return copy
end

table.clone = clone

return clone
