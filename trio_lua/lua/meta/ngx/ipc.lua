---@meta ngx.ipc

---Named alerts with data between worker processes, as in ngx_lua_ipc.
local ipc = {}

---In a function of `receive`: the pid of the worker that sent the alert. nil elsewhere.
---@type integer?
ipc.sender = nil

---A worker process.
---@class ngx.ipc.worker
---@field pid integer
---@field id integer? `ngx.worker.id()`; nil for the privileged agent.
---@field own true? This process.
---@field leaving true? It finishes its requests after a reload.
---@field agent true? The privileged agent.

---A pid, or a table with `pid` or with `id`, a worker's number.
---@alias ngx.ipc.receiver integer|string|{ pid: integer }|{ id: integer }

---Sends an alert to a worker. Waits while its queue is full; in a phase that cannot wait that is an error.
---@param to ngx.ipc.receiver
---@param name string At most 254 bytes.
---@param data? string|number
---@return true? ok
---@return string? err
function ipc.send(to, name, data) end

---Sends an alert to all workers, this one included.
---@param name string
---@param data? string|number
---@return true? ok
---@return string? err
function ipc.broadcast(name, data) end

---Sets the function for alerts of a name (nil removes it), or several by name. Not in `init_by_lua*`.
---@param name string
---@param handler fun(data: string)?
---@return true
---@overload fun(handlers: table<string, fun(data: string)>): true
function ipc.receive(name, handler) end

---In a function of `receive`: sends an alert to the worker that its alert came from. The first one answers `request`.
---@param name string
---@param data? string|number
---@return true? ok
---@return string? err
function ipc.reply(name, data) end

---Sends an alert and waits for the first `reply` of its function; not in ngx_lua_ipc.
---@param to ngx.ipc.receiver
---@param name string
---@param data? string|number
---@param timeout? number Seconds; 60 by default.
---@return string? data
---@return string name_or_err
function ipc.request(to, name, data, timeout) end

---The processes that there are; not in ngx_lua_ipc.
---@return ngx.ipc.worker[]
function ipc.workers() end

return ipc
