-- The objects in ngx.shared have their methods from the start.

return { version = require("resty.core.base").version }
