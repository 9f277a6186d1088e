-- ngx.get_phase and ngx.get_raw_phase are there from the start.

return { version = require("resty.core.base").version }
