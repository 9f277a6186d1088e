---@meta _

-- The ngx table for editors that understand LuaLS annotations, and the source of
-- docs/reference/lua-api.md (docs/make_reference.py reads it). Nothing here is ever run.
-- A test holds these names against those of a real VM.

---What the server gives to Lua code.
---@class ngxlib
ngx = {}

---@alias ngx.output string|number|boolean|nil|userdata|table A table is a list of such values.
---@alias ngx.headers table<string, string|string[]>
---@alias ngx.args table<string, string|boolean|(string|boolean)[]>

-- ---------------------------------------------------------------- the request

---The variables of the request, as nginx.conf knows them; those that `set` declares can be assigned to.
---@type table<string|integer, string?>
ngx.var = {}

---A table for what the handlers of one request want to tell each other.
---@type table
ngx.ctx = {}

---Arguments of `set_by_lua`; in `body_filter_by_lua` `[1]` is the piece of the body and `[2]` whether it is the last.
---@type table
ngx.arg = {}

---Whether this is a subrequest.
---@type boolean
ngx.is_subrequest = false

---What the client sent, and what the next handlers see of it.
---@class ngx.req
ngx.req = {}

---The method's name, such as `GET`.
---@return string
function ngx.req.get_method() end

---Changes the method; takes one of the `ngx.HTTP_*` method constants.
---@param method integer
function ngx.req.set_method(method) end

---Changes the path; with `jump` the locations are searched again, and the call does not return.
---@param uri string
---@param jump? boolean
---@param binary? boolean
function ngx.req.set_uri(uri, jump, binary) end

---The query arguments; a name that occurs several times has a list, one without a value is true.
---@param max? integer How many at most; 100 by default, 0 for all.
---@param tab? table Is filled and returned.
---@return ngx.args
---@return "truncated"? err
function ngx.req.get_uri_args(max, tab) end

---Replaces the query string.
---@param args string|table
function ngx.req.set_uri_args(args) end

---Let the request end with status 504, or its connection be closed if a response has begun, when it has not ended in so
---many seconds from now; nil takes the deadline back. Not in OpenResty.
---@param seconds? number
function ngx.req.set_deadline(seconds) end

---The arguments in a form body, which has to be read before.
---@param max? integer
---@return ngx.args
---@return string? err
function ngx.req.get_post_args(max) end

---The request's headers. Names are in lower case; any spelling finds them, also with `_` for `-`.
---@param max? integer How many at most; 100 by default, 0 for all.
---@param raw? boolean Keep the names as they were sent.
---@return ngx.headers
---@return "truncated"? err
function ngx.req.get_headers(max, raw) end

---Sets or replaces a header of the request; a list sets it several times.
---@param name string
---@param value string|number|string[]|nil
function ngx.req.set_header(name, value) end

---Removes a header of the request.
---@param name string
function ngx.req.clear_header(name) end

---The request's head as it was received.
---@param no_request_line? boolean
---@return string
function ngx.req.raw_header(no_request_line) end

---The protocol's version: 1.0 or 1.1 (0.9 for a request without one).
---@return number?
function ngx.req.http_version() end

---When the request began, in seconds since the epoch.
---@return number
function ngx.req.start_time() end

---Whether the request was made by the server itself: a redirect, an error page.
---@return boolean
function ngx.req.is_internal() end

---Receives the whole body, waiting for it where necessary.
function ngx.req.read_body() end

---Drops the body without keeping it.
function ngx.req.discard_body() end

---The body as a string; nil when there is none, when it has not been read, or when it is in a file.
---@param max_bytes? integer
---@return string?
function ngx.req.get_body_data(max_bytes) end

---The file that a large body is in.
---@return string? path
function ngx.req.get_body_file() end

---Replaces the body.
---@param data string
function ngx.req.set_body_data(data) end

---Replaces the body by a file.
---@param path string
---@param auto_clean? boolean Remove the file at the end.
function ngx.req.set_body_file(path, auto_clean) end

---Begins a new body, to be built piece by piece.
---@param buffer_size? integer Beyond so many bytes it goes to a file.
function ngx.req.init_body(buffer_size) end

---Adds a piece to the new body.
---@param data string
function ngx.req.append_body(data) end

---Ends the new body.
function ngx.req.finish_body() end

-- ---------------------------------------------------------------- the response

---The response's status. May be set until the head is sent.
---@type integer
ngx.status = 200

---The response's headers. `ngx.header.x_name` is `X-Name`; nil removes, a list sends it several times.
---@type table<string, string|number|string[]|nil>
ngx.header = {}

---Whether the head has been sent.
---@type boolean
ngx.headers_sent = false

---Reads the response.
---@class ngx.resp
ngx.resp = {}

---The response's headers.
---@param max? integer How many at most; 100 by default, 0 for all.
---@param raw? boolean Keep the names as they were set.
---@return ngx.headers
---@return "truncated"? err
function ngx.resp.get_headers(max, raw) end

---Sends the arguments as a piece of the body, after the head if that is still to be sent.
---@param ... ngx.output
---@return 1? ok
---@return string? err
function ngx.print(...) end

---As `ngx.print`, with a line feed at the end.
---@param ... ngx.output
---@return 1? ok
---@return string? err
function ngx.say(...) end

---Sends what is still in a buffer. With `true` it waits until the system has taken all of it.
---@param wait? boolean
---@return 1? ok
---@return string? err
function ngx.flush(wait) end

---Sends the head.
---@return 1? ok
---@return string? err
function ngx.send_headers() end

---Ends the response; the handler goes on.
---@return 1? ok
---@return string? err
function ngx.eof() end

-- ---------------------------------------------------------------- control

---Ends the handler: 0 goes on with the next phase, 200 to 299 ends the request, 300 and more answers with that status.
---@param status integer
function ngx.exit(status) end

---Starts over at another location of this server.
---@param uri string A path, or the name of an `@location`.
---@param args? string|table
function ngx.exec(uri, args) end

---Answers with a redirect: 302, or 301, 303, 307, 308.
---@param uri string
---@param status? integer
function ngx.redirect(uri, status) end

---Waits. Other requests are served meanwhile.
---@param seconds number
function ngx.sleep(seconds) end

---Calls a function of a module in a thread of a pool, where it may block or compute; other requests are served meanwhile.
---`true` and its results, or `false` and an error. nil, booleans, numbers, strings and tables of them cross.
---@param pool string The name in a `thread_pool` directive; there is always one called `default`.
---@param module string What the thread loads with `require`.
---@param func string The name of a function in it.
---@param ... any Its arguments.
---@return boolean ok
---@return any ...
function ngx.run_worker_thread(pool, module, func, ...) end

---User threads: functions of a handler that run beside it. The handler ends with the last of them.
ngx.thread = {}

---Runs a function up to its first suspension; then its caller goes on, and both share the handler's turns.
---@param f fun(...)
---@param ... any Its arguments.
---@return thread
function ngx.thread.spawn(f, ...) end

---Waits for the first of several user threads to end: `true` and what it returned, or `false` and its error. Only the
---coroutine that spawned a thread can wait for it, and once.
---@param ... thread
---@return boolean? ok
---@return any ...
function ngx.thread.wait(...) end

---Ends a user thread; what it waits for is cancelled. Only the coroutine that spawned it can.
---@param thread thread
---@return 1? ok
---@return string? error
function ngx.thread.kill(thread) end

---Functions that run later, without a client.
ngx.timer = {}

---Calls `f(premature, ...)` after so many seconds; `premature` is true when the worker stops before.
---@param delay number 0 for as soon as possible.
---@param f fun(premature: boolean, ...)
---@param ... any Its further arguments.
---@return 1? ok
---@return string? error
function ngx.timer.at(delay, f, ...) end

---Calls `f(premature, ...)` again and again, whether the last call has ended or not, until the worker stops.
---@param delay number
---@param f fun(premature: boolean, ...)
---@param ... any Its further arguments.
---@return 1? ok
---@return string? error
function ngx.timer.every(delay, f, ...) end

---How many timers run in this worker.
---@return integer
function ngx.timer.running_count() end

---How many timers of this worker wait for their time.
---@return integer
function ngx.timer.pending_count() end

---The name of the running phase, such as `content`.
---@return string
function ngx.get_phase() end

---The running phase as a number.
---@return integer
function ngx.get_raw_phase() end

-- ---------------------------------------------------------------- subrequests

---Requests that the server makes to itself.
---@class ngx.location
ngx.location = {}

---@class ngx.captured
---@field status integer
---@field header table<string, string|string[]>
---@field body string
---@field truncated boolean

---@class ngx.capture_options
---@field method? integer One of the `ngx.HTTP_*` method constants.
---@field body? string
---@field args? string|table
---@field vars? table<string, string>
---@field copy_all_vars? boolean
---@field share_all_vars? boolean
---@field ctx? table
---@field always_forward_body? boolean

---Asks another location of this server and waits for the response.
---@param uri string
---@param options? ngx.capture_options
---@return ngx.captured response
function ngx.location.capture(uri, options) end

---Asks several locations at once and waits for all responses, which come in the order of the requests.
---@param requests {[1]: string, [2]: ngx.capture_options?}[]
---@return ngx.captured ...
function ngx.location.capture_multi(requests) end

-- ---------------------------------------------------------------- log

---Writes to the error log, if its level lets it through: `ngx.log(ngx.WARN, "x is ", x)`.
---@param level integer One of `ngx.STDERR`, `ngx.EMERG`, ... `ngx.DEBUG`.
---@param ... any Strings, numbers, booleans, nil, or tables with `__tostring`.
function ngx.log(level, ...) end

-- ---------------------------------------------------------------- time

---The time in whole seconds since the epoch.
---@return integer
function ngx.time() end

---The time in seconds since the epoch, to the millisecond. It stands still until the handler waits.
---@return number
function ngx.now() end

---Reads the clock now.
function ngx.update_time() end

---The local date: `2026-11-21`.
---@return string
function ngx.today() end

---The local date and time: `2026-11-21 07:08:09`.
---@return string
function ngx.localtime() end

---The date and time in UTC.
---@return string
function ngx.utctime() end

---A time as `Set-Cookie` has it.
---@param seconds number
---@return string
function ngx.cookie_time(seconds) end

---A time as `Last-Modified` has it.
---@param seconds number
---@return string
function ngx.http_time(seconds) end

---The time of an HTTP date; nil when it is none.
---@param text string
---@return integer?
function ngx.parse_http_time(text) end

-- ---------------------------------------------------------------- text

---Escapes for a URI: type 2 (the default) for a component, 0 for a whole URI.
---@param text string
---@param type? 0|2
---@return string
function ngx.escape_uri(text, type) end

---Undoes `%XX`, and `+` for a space.
---@param text string
---@return string
function ngx.unescape_uri(text) end

---A query string from a table.
---@param args table
---@return string
function ngx.encode_args(args) end

---A table from a query string.
---@param text string
---@param max? integer How many at most; 100 by default, 0 for all.
---@return ngx.args
---@return "truncated"? err
function ngx.decode_args(text, max) end

---Base64.
---@param text string
---@param no_padding? boolean
---@return string
function ngx.encode_base64(text, no_padding) end

---Bytes from base64; nil when it is none.
---@param text string
---@return string?
function ngx.decode_base64(text) end

---The same, but line ends and all other characters that are no digits are passed over.
---@param text string
---@return string?
function ngx.decode_base64mime(text) end

---CRC-32, the quicker way for short strings.
---@param text string
---@return integer
function ngx.crc32_short(text) end

---CRC-32, the quicker way for long strings.
---@param text string
---@return integer
function ngx.crc32_long(text) end

---HMAC with SHA-1, 20 bytes.
---@param key string
---@param text string
---@return string
function ngx.hmac_sha1(key, text) end

---MD5 in hexadecimal digits.
---@param text string
---@return string
function ngx.md5(text) end

---MD5, 16 bytes.
---@param text string
---@return string
function ngx.md5_bin(text) end

---SHA-1, 20 bytes.
---@param text string
---@return string
function ngx.sha1_bin(text) end

---A string literal for MySQL, with its quotes.
---@param text string
---@return string
function ngx.quote_sql_str(text) end

-- ---------------------------------------------------------------- regular expressions

---Regular expressions of PCRE2. Options are letters: `i`, `m`, `s`, `x`, `u`, `a` (anchored), `j` (compile), `o` (compile once).
---@class ngx.re
ngx.re = {}

---The groups of the first match: `[0]` is all of it, `[1]` the first group; named groups by name as well.
---@param subject string
---@param regex string
---@param options? string
---@param ctx? {pos: integer} Where to begin; moved behind the match.
---@param result? table Is filled and returned.
---@return table<string|integer, string|false>?
---@return string? err
function ngx.re.match(subject, regex, options, ctx, result) end

---Where the first match, or its group `nth`, begins and ends.
---@param subject string
---@param regex string
---@param options? string
---@param ctx? {pos: integer}
---@param nth? integer
---@return integer? from
---@return integer? to
---@return string? err
function ngx.re.find(subject, regex, options, ctx, nth) end

---An iterator over all matches.
---@param subject string
---@param regex string
---@param options? string
---@return (fun(): table<string|integer, string|false>?, string?)?
---@return string? err
function ngx.re.gmatch(subject, regex, options) end

---Replaces the first match; `$1` and `${1}` in the replacement are groups, `$$` is a dollar.
---@param subject string
---@param regex string
---@param replacement string|fun(groups: table): string
---@param options? string
---@return string? text
---@return integer? count
---@return string? err
function ngx.re.sub(subject, regex, replacement, options) end

---Replaces all matches.
---@param subject string
---@param regex string
---@param replacement string|fun(groups: table): string
---@param options? string
---@return string? text
---@return integer? count
---@return string? err
function ngx.re.gsub(subject, regex, replacement, options) end

-- ---------------------------------------------------------------- worker and configuration

---Run a function as a light thread when the client closes the connection; needs `lua_check_client_abort`.
---@param callback fun()
---@return 1? ok
---@return string? error
function ngx.on_abort(callback) end

---The request body as a socket that only receives; with `true` the client's connection itself, past HTTP.
---@param raw? boolean
---@return tcpsock? sock
---@return string? error
function ngx.req.socket(raw) end

---Sockets to other servers that suspend the light thread instead of blocking. They end with the request that
---connected them.
---@class ngx.socket
ngx.socket = {}

---A stream socket.
---@class tcpsock
local tcpsock = {}

---Connect to a host and port, or to `unix:/path`; an idle connection of the pool is taken first.
---@param host string
---@param port? integer
---@param options? { pool?: string, pool_size?: integer, backlog?: integer }
---@return 1? ok
---@return string? error
function tcpsock:connect(host, port, options) end

---Send a string, a number, or a nested array of them.
---@param data string|number|boolean|table|nil
---@return integer? bytes
---@return string? error
function tcpsock:send(data) end

---Receive a line (`*l`), a number of bytes, or everything (`*a`).
---@param pattern? string|integer
---@return string? data
---@return string? error
---@return string? partial
function tcpsock:receive(pattern) end

---Receive what is there, at least one byte.
---@param max integer
---@return string? data
---@return string? error
function tcpsock:receiveany(max) end

---An iterator that receives up to a text.
---@param pattern string
---@param options? { inclusive?: boolean }
---@return (fun(size?: integer): string?, string?, string?)?
---@return string? error
function tcpsock:receiveuntil(pattern, options) end

---Milliseconds for connecting, each send and each receive; 0 for what the directives say.
---@param ms integer
function tcpsock:settimeout(ms) end

---@param connect integer
---@param send integer
---@param read integer
function tcpsock:settimeouts(connect, send, read) end

---@param option "keepalive"|"reuseaddr"|"tcp-nodelay"|"sndbuf"|"rcvbuf"
---@param value integer|boolean
---@return true? ok
---@return string? error
function tcpsock:setoption(option, value) end

---@param option string
---@return integer? value
---@return string? error
function tcpsock:getoption(option) end

---The local address to connect from.
---@param address string
---@param port? integer
---@return true? ok
---@return string? error
function tcpsock:bind(address, port) end

---Put the connection into its pool for so many milliseconds.
---@param ms? integer
---@param pool_size? integer
---@return 1? ok
---@return string? error
function tcpsock:setkeepalive(ms, pool_size) end

---How many times the connection has come out of its pool.
---@return integer? times
---@return string? error
function tcpsock:getreusedtimes() end

---Speak TLS from here on. The session may be given to the handshake of a later connection; `false` instead of one
---asks for no session.
---@param session? any
---@param server_name? string
---@param verify? boolean
---@param status_request? boolean
---@return any session
---@return string? error
function tcpsock:sslhandshake(session, server_name, verify, status_request) end

---The TLS session of the connection, for `sslhandshake` of a later one. With TLS 1.3 servers send what makes it
---resumable after the handshake: ask when something has been received.
---@return any session
---@return string? error
function tcpsock:getsslsession() end

---The certificate and key (of `ngx.ssl`) for the next handshake.
---@param certificate any
---@param key any
---@return true? ok
---@return string? error
function tcpsock:setclientcert(certificate, key) end

---@return 1? ok
---@return string? error
function tcpsock:close() end

---A new stream socket.
---@return tcpsock
function ngx.socket.tcp() end

---The same as `ngx.socket.tcp`.
---@return tcpsock
function ngx.socket.stream() end

---A new stream socket, connected.
---@param host string
---@param port? integer
---@param options? { pool?: string, pool_size?: integer, backlog?: integer }
---@return tcpsock? sock
---@return string? error
function ngx.socket.connect(host, port, options) end

---A datagram socket with one peer.
---@class udpsock
local udpsock = {}

---@param host string
---@param port? integer
---@return 1? ok
---@return string? error
function udpsock:setpeername(host, port) end

---@param data string|number|boolean|table|nil
---@return 1? ok
---@return string? error
function udpsock:send(data) end

---Receive a datagram, 8192 bytes of it at most.
---@param size? integer
---@return string? data
---@return string? error
function udpsock:receive(size) end

---@param ms integer
function udpsock:settimeout(ms) end

---@param address string
---@return true? ok
---@return string? error
function udpsock:bind(address) end

---@return 1? ok
---@return string? error
function udpsock:close() end

---A new datagram socket.
---@return udpsock
function ngx.socket.udp() end

---What is true of this worker.
---@class ngx.worker
ngx.worker = {}

---The worker's number, from 0.
---@return integer?
function ngx.worker.id() end

---The worker's process id.
---@return integer
function ngx.worker.pid() end

---The process ids of all workers.
---@return integer[]
function ngx.worker.pids() end

---How many workers there are.
---@return integer
function ngx.worker.count() end

---Whether the worker is about to stop.
---@return boolean
function ngx.worker.exiting() end

---What is true of this server.
---@class ngx.config
ngx.config = {}

---`http`.
---@type string
ngx.config.subsystem = "http"

---Whether this is a build for debugging.
---@type boolean
ngx.config.debug = true

---The nginx version that is followed, as a number: 1022001 is 1.22.1.
---@type integer
ngx.config.nginx_version = 1022001

---The version of the Lua module that is followed, as a number: 10023 is 0.10.23.
---@type integer
ngx.config.ngx_lua_version = 10023

---The server's prefix, with a slash at its end.
---@return string
function ngx.config.prefix() end

---The arguments of nginx's `configure`; empty here.
---@return string
function ngx.config.nginx_configure() end

---Shared dictionaries (`lua_shared_dict`) by name; nil where there is none.
---@type table<string, ngx.shared.DICT>
ngx.shared = {}

---A dictionary that all workers share, kept across reloads. Keys are strings of 1 to 65,535 bytes; values are strings, numbers
---and booleans, or lists of strings and numbers.
---@class ngx.shared.DICT
local DICT = {}

---@param key string
---@return string|number|boolean? value nil when it is not there or has expired
---@return integer|string? flags those of `set`, unless 0; or an error
function DICT:get(key) end

---The same, even when it has expired and was not removed yet.
---@param key string
---@return string|number|boolean? value
---@return integer|string? flags or an error
---@return boolean? stale whether it has expired
function DICT:get_stale(key) end

---Store a value, nil to remove it. When there is no room, entries that were not used for longest go.
---@param key string
---@param value string|number|boolean?
---@param exptime? number seconds until it expires; 0, the default, for never
---@param flags? integer returned by `get`
---@return boolean? ok
---@return string? error `no memory`, `nil key`, `empty key`, `key too long`, `bad value type`
---@return boolean? forcible whether others had to go
function DICT:set(key, value, exptime, flags) end

---`set` that removes nothing that has not expired.
---@param key string
---@param value string|number|boolean?
---@param exptime? number
---@param flags? integer
---@return boolean? ok
---@return string? error
function DICT:safe_set(key, value, exptime, flags) end

---`set` only where there is nothing; the error is `exists` otherwise.
---@param key string
---@param value string|number|boolean
---@param exptime? number
---@param flags? integer
---@return boolean? ok
---@return string? error
---@return boolean? forcible
function DICT:add(key, value, exptime, flags) end

---`add` that removes nothing that has not expired.
---@param key string
---@param value string|number|boolean
---@param exptime? number
---@param flags? integer
---@return boolean? ok
---@return string? error
function DICT:safe_add(key, value, exptime, flags) end

---`set` only where there is something; the error is `not found` otherwise.
---@param key string
---@param value string|number|boolean
---@param exptime? number
---@param flags? integer
---@return boolean? ok
---@return string? error
---@return boolean? forcible
function DICT:replace(key, value, exptime, flags) end

---@param key string
function DICT:delete(key) end

---Add to a number, in one step for all workers.
---@param key string
---@param value number
---@param init? number what a key that is not there begins with; without it the error is `not found`
---@param init_ttl? number seconds that such a key lives
---@return number? sum
---@return string? error `not found`, `not a number`, `no memory`
---@return boolean? forcible with `init`: whether others had to go
function DICT:incr(key, value, init, init_ttl) end

---Put a value before the first one of a list.
---@param key string
---@param value string|number
---@return integer|false? length of the list
---@return string? error `value not a list`, `no memory`, `bad value type`
function DICT:lpush(key, value) end

---Put a value behind the last one of a list.
---@param key string
---@param value string|number
---@return integer|false? length
---@return string? error
function DICT:rpush(key, value) end

---Take the first value of a list.
---@param key string
---@return string|number? value
---@return string? error `value not a list`
function DICT:lpop(key) end

---Take the last value of a list.
---@param key string
---@return string|number? value
---@return string? error
function DICT:rpop(key) end

---@param key string
---@return integer? length 0 where there is no list
---@return string? error `value not a list`
function DICT:llen(key) end

---@param key string
---@return number? seconds until it expires: 0 for never, negative when it has expired and was not removed yet
---@return string? error `not found`
function DICT:ttl(key) end

---Set when a key expires.
---@param key string
---@param exptime number seconds from now, 0 for never
---@return boolean? ok
---@return string? error `not found`
function DICT:expire(key, exptime) end

---Let everything expire. The memory is freed when it is needed, or by `flush_expired`.
function DICT:flush_all() end

---Remove what has expired.
---@param max_count? integer how many at most; 0, the default, for all
---@return integer removed
function DICT:flush_expired(max_count) end

---The keys, those not used for longest first. All workers wait meanwhile.
---@param max_count? integer how many at most, 1024 by default; 0 for all
---@return string[]
function DICT:get_keys(max_count) end

---The size of the configuration, in bytes.
---@return integer
function DICT:capacity() end

---Bytes of the pages of 4096 that are not used at all; there can be room when it is 0.
---@return integer
function DICT:free_space() end

-- ---------------------------------------------------------------- constants

---The null of databases and JSON, equal to `cjson.null`; it is true in a condition.
---@type userdata
ngx.null = nil

ngx.STDERR = 0
ngx.EMERG = 1
ngx.ALERT = 2
ngx.CRIT = 3
ngx.ERR = 4
ngx.WARN = 5
ngx.NOTICE = 6
ngx.INFO = 7
ngx.DEBUG = 8

ngx.OK = 0
ngx.ERROR = -1
ngx.AGAIN = -2
ngx.DONE = -4
ngx.DECLINED = -5

ngx.HTTP_GET = 2
ngx.HTTP_HEAD = 4
ngx.HTTP_POST = 8
ngx.HTTP_PUT = 16
ngx.HTTP_DELETE = 32
ngx.HTTP_MKCOL = 64
ngx.HTTP_COPY = 128
ngx.HTTP_MOVE = 256
ngx.HTTP_OPTIONS = 512
ngx.HTTP_PROPFIND = 1024
ngx.HTTP_PROPPATCH = 2048
ngx.HTTP_LOCK = 4096
ngx.HTTP_UNLOCK = 8192
ngx.HTTP_PATCH = 16384
ngx.HTTP_TRACE = 32768

ngx.HTTP_CONTINUE = 100
ngx.HTTP_SWITCHING_PROTOCOLS = 101
ngx.HTTP_OK = 200
ngx.HTTP_CREATED = 201
ngx.HTTP_ACCEPTED = 202
ngx.HTTP_NO_CONTENT = 204
ngx.HTTP_PARTIAL_CONTENT = 206
ngx.HTTP_SPECIAL_RESPONSE = 300
ngx.HTTP_MOVED_PERMANENTLY = 301
ngx.HTTP_MOVED_TEMPORARILY = 302
ngx.HTTP_SEE_OTHER = 303
ngx.HTTP_NOT_MODIFIED = 304
ngx.HTTP_TEMPORARY_REDIRECT = 307
ngx.HTTP_PERMANENT_REDIRECT = 308
ngx.HTTP_BAD_REQUEST = 400
ngx.HTTP_UNAUTHORIZED = 401
ngx.HTTP_PAYMENT_REQUIRED = 402
ngx.HTTP_FORBIDDEN = 403
ngx.HTTP_NOT_FOUND = 404
ngx.HTTP_NOT_ALLOWED = 405
ngx.HTTP_NOT_ACCEPTABLE = 406
ngx.HTTP_REQUEST_TIMEOUT = 408
ngx.HTTP_CONFLICT = 409
ngx.HTTP_GONE = 410
ngx.HTTP_UPGRADE_REQUIRED = 426
ngx.HTTP_TOO_MANY_REQUESTS = 429
ngx.HTTP_CLOSE = 444
ngx.HTTP_ILLEGAL = 451
ngx.HTTP_INTERNAL_SERVER_ERROR = 500
ngx.HTTP_METHOD_NOT_IMPLEMENTED = 501
ngx.HTTP_NOT_IMPLEMENTED = 501
ngx.HTTP_BAD_GATEWAY = 502
ngx.HTTP_SERVICE_UNAVAILABLE = 503
ngx.HTTP_GATEWAY_TIMEOUT = 504
ngx.HTTP_VERSION_NOT_SUPPORTED = 505
ngx.HTTP_INSUFFICIENT_STORAGE = 507
