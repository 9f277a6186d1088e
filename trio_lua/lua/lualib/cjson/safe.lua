-- cjson.safe: encode and decode return nil and a message instead of raising.

return require("trio_lua.json").new_safe()
