-- ngx.encode_base64 and ngx.decode_base64 are there from the start.

return { version = require("resty.core.base").version }
