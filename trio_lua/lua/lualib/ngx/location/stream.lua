-- Subrequests whose response is read in pieces. OpenResty has none such, so they are no part of its ngx.location.

local rt = require "trio_lua.rt"

return { capture = rt.capture_stream }
