-- Nothing: ndk.set_var is there from the start.

return { version = require("resty.core.base").version }
