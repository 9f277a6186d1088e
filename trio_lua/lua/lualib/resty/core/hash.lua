-- ngx.md5, ngx.md5_bin, ngx.sha1_bin, ngx.crc32_short and ngx.crc32_long are there from the start.

return { version = require("resty.core.base").version }
