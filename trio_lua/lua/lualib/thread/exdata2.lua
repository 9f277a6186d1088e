-- thread.exdata2: a second pointer per coroutine, NULL until one is stored.

local slot = require "trio_lua.thread_slot"

return slot(function()
    return 0
end)
