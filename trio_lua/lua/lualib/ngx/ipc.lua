-- ngx.ipc: named alerts between worker processes. The functions are a family of the API, as Python uses them, too.

return require("trio_lua.rt").ipc
