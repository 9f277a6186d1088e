-- thread.exdata: where OpenResty keeps the request. The pointer tells requests apart and is NULL
-- outside of them; it points nowhere.

local slot = require "trio_lua.thread_slot"

return slot(function(id)
    return id
end)
