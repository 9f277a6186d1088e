-- resty.core itself: there is nothing to switch on, every function of ngx.* is complete from the start.

local base = require "resty.core.base"

return { version = base.version }
