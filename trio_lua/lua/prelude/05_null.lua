-- ngx.null: the light userdata NULL, the value that C modules push with
-- lua_pushlightuserdata(L, NULL), so that cjson.null of a C cjson is the very same value.
-- Plain Lua cannot make one; the serialisation format of string.buffer has a tag for it.

local rt = ...

rt.ngx.null = require("string.buffer").decode("\3")
