-- table.nkeys: how many keys a table holds, in its array and its hash part.

local rt = require "trio_lua.rt"

local next, select, type = next, select, type

local function nkeys(...)
    local t = ...
    if type(t) ~= "table" then
        rt.arg_error(1, "table expected, got " .. (select("#", ...) == 0 and "no value" or type(t)))
    end
    local count = 0
    for _ in next, t do
        count = count + 1
    end
    return count
end

table.nkeys = nkeys

return nkeys
