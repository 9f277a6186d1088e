-- ngx.worker is there from the start.

return { _VERSION = require("resty.core.base").version }
