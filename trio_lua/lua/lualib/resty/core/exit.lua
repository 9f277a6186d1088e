-- ngx.exit is there from the start.

return { version = require("resty.core.base").version }
