-- ngx.escape_uri and ngx.unescape_uri are there from the start.

return { version = require("resty.core.base").version }
