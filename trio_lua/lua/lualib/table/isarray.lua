-- table.isarray: whether all keys are whole numbers (holes, zero and negative ones do not
-- matter, and an empty table is an array).

local rt = require "trio_lua.rt"

local next, select, type = next, select, type
local floor = math.floor

local function isarray(...)
    local t = ...
    if type(t) ~= "table" then
        rt.arg_error(1, "table expected, got " .. (select("#", ...) == 0 and "no value" or type(t)))
    end
    for key in next, t do
        if type(key) ~= "number" or floor(key) ~= key then
            return false
        end
    end
    return true
end

table.isarray = isarray

return isarray
