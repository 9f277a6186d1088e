-- Nothing: directives of other nginx modules, which ndk.set_var calls, do not exist here.

return { version = require("resty.core.base").version }
