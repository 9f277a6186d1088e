-- cjson, for when no C lua-cjson is installed. See trio_lua.json.

return require("trio_lua.json").new()
