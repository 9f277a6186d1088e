---@meta ngx.pipe

---Child processes and the pipes to them.
local pipe = { version = "" }

---A child process. It belongs to the request or timer that started it: it is killed when that ends, or when nothing refers
---to it any more.
---@class ngx.pipe.proc
local proc = {}

---@class ngx.pipe.options
---@field merge_stderr? boolean The standard error goes where the standard output goes.
---@field buffer_size? integer Bytes taken from a pipe at once by `stdout_read_any`; 4096.
---@field environ? string[] `NAME=VALUE` for each variable, instead of the server's environment.
---@field write_timeout? integer Milliseconds, 0 for none; 10000, as the other three.
---@field stdout_read_timeout? integer
---@field stderr_read_timeout? integer
---@field wait_timeout? integer

---Starts a program: its arguments in a table, or a command for `/bin/sh`.
---@param args string|string[]
---@param opts? ngx.pipe.options
---@return ngx.pipe.proc? proc
---@return string? err
function pipe.spawn(args, opts) end

---@return integer
function proc:pid() end

---In milliseconds; nil leaves one as it is, 0 is none.
---@param write_timeout? integer
---@param stdout_read_timeout? integer
---@param stderr_read_timeout? integer
---@param wait_timeout? integer
function proc:set_timeouts(write_timeout, stdout_read_timeout, stderr_read_timeout, wait_timeout) end

---Waits for the end of the child: true for status 0, its reason, and the status or the signal's number.
---@return boolean? ok
---@return "exit"|"signal"|string reason Or what went wrong: `timeout`, `exited`, `pipe busy waiting`.
---@return integer? status
function proc:wait() end

---@param signal integer
---@return boolean? ok
---@return string? err `exited`, `invalid signal`.
function proc:kill(signal) end

---Closes a pipe. A thread that waits for it gets the error `aborted`.
---@param direction "stdin"|"stdout"|"stderr"
---@return boolean? ok
---@return string? err
function proc:shutdown(direction) end

---Waits until the pipe has taken all.
---@param data string|number|table
---@return integer? bytes
---@return string? err `timeout`, `closed`, `aborted`, `pipe busy writing`.
function proc:write(data) end

---All up to the end. So do the others with what is in front of an error, their third value.
---@return string? data
---@return string? err `timeout`, `closed`, `aborted`, `pipe busy reading`.
---@return string? partial
function proc:stdout_read_all() end

---A line without its end.
---@return string? data
---@return string? err
---@return string? partial
function proc:stdout_read_line() end

---@param len integer
---@return string? data
---@return string? err
---@return string? partial
function proc:stdout_read_bytes(len) end

---What is there, `max` bytes at most.
---@param max integer
---@return string? data
---@return string? err
---@return string? partial
function proc:stdout_read_any(max) end

---The four for the standard error; their error is `merged to stdout` where it is merged.
proc.stderr_read_all, proc.stderr_read_line = proc.stdout_read_all, proc.stdout_read_line
proc.stderr_read_bytes, proc.stderr_read_any = proc.stdout_read_bytes, proc.stdout_read_any

return pipe
