---@meta ngx.location.stream

---Subrequests whose response is read in pieces; not in OpenResty.
local stream = {}

---A response whose body comes in pieces.
---@class ngx.stream
---@field status integer
---@field header table<string, string|string[]>
---@field truncated boolean? Known at the end.
---@field read fun(self): string? The next piece; nil at the end.
---@field pieces fun(self): (fun(self): string?), ngx.stream For `for piece in stream:pieces() do`.
---@field close fun(self) Ends the subrequest now.

---As `ngx.location.capture`, but returns when the head of the response is there; its `read()` and `pieces()` give the body.
---@param uri string
---@param options? ngx.capture_options
---@return ngx.stream response
function stream.capture(uri, options) end

return stream
