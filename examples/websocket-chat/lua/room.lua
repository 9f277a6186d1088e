-- Who is in the chat, and what each of them has still to be told.
--
-- A socket belongs to its request, so nobody writes to another's: a line goes into the outbox of every member, and a
-- semaphore wakes the light thread that empties it. Modules are shared by all requests of a worker.

local semaphore = require "ngx.semaphore"

local M = {}

-- Lines that wait for a slow reader; whoever has more is shown the door.
local MAX_WAITING = 100

local Member = {}
Member.__index = Member

local members = {}

local function tell_all(line)
    for member in pairs(members) do
        local outbox = member.outbox
        if #outbox < MAX_WAITING then
            outbox[#outbox + 1] = line
        else
            member.gone = true
        end
        member.news:post()
    end
end

--- An iterator over the lines for a member, which waits for each.
function Member:lines()
    return function()
        while true do
            local line = table.remove(self.outbox, 1)
            if line then
                return line
            elseif self.gone then
                return nil
            end
            self.news:wait(3600)
        end
    end
end

function M.enter(name)
    local member = setmetatable({ name = name, outbox = {}, news = semaphore.new() }, Member)
    members[member] = true
    tell_all(name .. " came in")
    return member
end

function M.leave(member)
    members[member] = nil
    tell_all(member.name .. " left")
end

function M.say(member, text)
    tell_all(member.name .. ": " .. text)
end

return M
