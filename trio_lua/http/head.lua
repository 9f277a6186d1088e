local rt = ...

-- The strict recogniser of request heads, and the reader of header lines.
--
-- `rt.recognise` stands in front of h11 and knows only plain, strictly valid HTTP/1.0 and 1.1 heads.
-- It never says what is wrong: whatever it does not know (0) goes to h11 with the same bytes, and
-- h11's side decides. So it may refuse anything, and may accept nothing that h11 would refuse or
-- read differently; a property-based test holds the two against each other.
--
-- The bytes are walked once, through 256-byte class tables. Lua strings end in a NUL that belongs to
-- no class, so no loop needs a bounds check: a short head stops at the NUL like at any odd byte.
-- Loops over bytes hold no branches but their end, which keeps the traces few.

local ffi = require "ffi"
local bit = require "bit"
local new_table = require "table.new"

local band, bor, lshift = bit.band, bit.bor, bit.lshift
local cast, ffi_string = ffi.cast, ffi.string
local byte = string.byte

local bytes_t = ffi.typeof("const uint8_t *")

local HTTP_11, KEEP_ALIVE, COMPLEX, HAS_ARGS = 1, 2, 4, 8


-- ---------------------------------------------------------------- byte classes

local class = rt.byte_class

local method_class = class("AZ", "_-")
local token_class = class("AZaz09", "!#$%&'*+-.^_`|~")
local value_class = class(" ~\128\255", "\t")
local args_class = class("!~", "")

-- Bytes of a path: 1 valid, 2 needs decoding or cutting, 8 a slash, 16 a slash or a dot. "?" ends it.
local SLASH, DOT_OR_SLASH = 8, 16
local path_class = class("!~", "")
path_class[byte("?")] = 0
path_class[byte("%")] = 1 + 2
path_class[byte("#")] = 1 + 2
path_class[byte("/")] = 1 + SLASH + DOT_OR_SLASH
path_class[byte(".")] = 1 + DOT_OR_SLASH
args_class[byte("#")] = 1 + 2

-- Bytes of a host name: 1 valid, 2 an upper-case letter, 8 a dot (and 16, so that two in a row show).
local host_class = class("AZaz09", "-_")
for c = 65, 90 do host_class[c] = 1 + 2 end
host_class[byte(".")] = 1 + SLASH + DOT_OR_SLASH

-- The headers that matter here, found by length and first letter: a candidate's index, or 0.
local HOST, CONNECTION, CONTENT_LENGTH = 1, 2, 3
local kind_of = ffi.new("uint8_t[?]", 32 * 128)
local names = {
    "host", "connection", "content-length",
    -- these end the recognition
    "transfer-encoding", "expect",
    -- these must not come twice
    "if-modified-since", "if-unmodified-since", "if-match", "if-none-match", "if-range",
    "authorization", "content-range",
}
local FIRST_UNIQUE = 6
local name_bytes = {}
-- "if-match" and "if-range" share length and first letter: chained by `next_kind`.
local next_kind = {}
for index, name in ipairs(names) do
    -- One more than the name: a string's NUL is copied, too, and a "[?]" array does not stop it.
    name_bytes[index] = ffi.new("uint8_t[?]", #name + 1, name)
    local slot = #name * 128 + byte(name)
    next_kind[index] = kind_of[slot]
    kind_of[slot] = index
end

local lowered = ffi.new("uint8_t[?]", 256)


local function same_name(p, start, index, length)
    local name = name_bytes[index]
    for j = 0, length - 1 do
        if bor(p[start + j], 0x20) ~= name[j] then return false end
    end
    return true
end


-- The host between two offsets: lower-case, without its port. nil when there is anything unusual.
local function host_name(p, start, stop)
    local i = start
    local seen, pairs_seen, previous = 0, 0, 0
    local c = host_class[p[i]]
    while c ~= 0 do
        seen = bor(seen, c)
        pairs_seen = bor(pairs_seen, band(lshift(previous, 1), c))
        previous = c
        i = i + 1
        c = host_class[p[i]]
    end
    local length = i - start
    if length == 0 or length > 255 or i > stop or band(pairs_seen, DOT_OR_SLASH) ~= 0
        or band(previous, SLASH) ~= 0
    then
        return nil
    end
    if p[i] == 58 then
        i = i + 1
        while p[i] >= 48 and p[i] <= 57 do i = i + 1 end
    end
    if i ~= stop then return nil end
    if band(seen, 2) == 0 then
        return ffi_string(p + start, length)
    end
    for j = 0, length - 1 do
        local b = p[start + j]
        if b >= 65 and b <= 90 then b = b + 32 end
        lowered[j] = b
    end
    return ffi_string(lowered, length)
end


-- What a Connection value asks for: 1 close, 2 keep-alive, 0 neither.
local function connection_options(p, start, stop)
    local found = 0
    local i = start
    while i < stop do
        local c = p[i]
        while c == 32 or c == 9 or c == 44 do
            i = i + 1
            c = p[i]
        end
        local from = i
        while i < stop and c ~= 44 do
            i = i + 1
            c = p[i]
        end
        local last = i
        while last > from and (p[last - 1] == 32 or p[last - 1] == 9) do last = last - 1 end
        local word = ffi_string(p + from, last - from):lower()
        if word == "close" then
            found = 1
        elseif word == "keep-alive" and found == 0 then
            found = 2
        end
    end
    return found
end


-- recognise(data) -> 0
--                 -> head_length, flags, content_length, method, target, host, question
--
-- `data` starts at a request line and may go on behind the head. `flags`: 1 HTTP/1.1, 2 the client
-- wants keep-alive, 4 the path has to be normalised, 8 there is a "?". `content_length` is 0 when absent.
-- `host` is "" when HTTP/1.0 sent none. `question` is the 1-based index of "?" in the target, or 0.
local function recognise(data)
    local p = cast(bytes_t, data)
    local i, method

    if p[0] == 71 and p[1] == 69 and p[2] == 84 and p[3] == 32 then
        method, i = "GET", 4
    elseif p[0] == 80 and p[1] == 79 and p[2] == 83 and p[3] == 84 and p[4] == 32 then
        method, i = "POST", 5
    else
        i = 0
        while method_class[p[i]] ~= 0 do i = i + 1 end
        if i == 0 or p[i] ~= 32 then return 0 end
        method = ffi_string(p, i)
        if method == "CONNECT" or method == "TRACE" then return 0 end
        i = i + 1
    end

    if p[i] ~= 47 then return 0 end
    local start = i
    local flags, question = 0, 0

    local seen, pairs_seen, previous = 0, 0, 0
    local c = path_class[p[i]]
    while c ~= 0 do
        seen = bor(seen, c)
        pairs_seen = bor(pairs_seen, band(lshift(previous, 1), c))
        previous = c
        i = i + 1
        c = path_class[p[i]]
    end
    if p[i] == 63 then
        question = i - start + 1
        flags = HAS_ARGS
        i = i + 1
        c = args_class[p[i]]
        while c ~= 0 do
            seen = bor(seen, c)
            i = i + 1
            c = args_class[p[i]]
        end
    end
    if band(seen, 2) ~= 0 or band(pairs_seen, DOT_OR_SLASH) ~= 0 then
        flags = flags + COMPLEX
    end
    local stop = i

    if p[i] ~= 32 or p[i + 1] ~= 72 or p[i + 2] ~= 84 or p[i + 3] ~= 84 or p[i + 4] ~= 80
        or p[i + 5] ~= 47 or p[i + 6] ~= 49 or p[i + 7] ~= 46
    then
        return 0
    end
    c = p[i + 8]
    if c == 49 then
        flags = flags + HTTP_11
    elseif c ~= 48 then
        return 0
    end
    if p[i + 9] ~= 13 or p[i + 10] ~= 10 then return 0 end
    i = i + 11

    local host, host_from, host_to
    local length, options, once = -1, 0, 0

    while p[i] ~= 13 do
        local name_start = i
        while token_class[p[i]] ~= 0 do i = i + 1 end
        local name_length = i - name_start
        if name_length == 0 or p[i] ~= 58 then return 0 end
        i = i + 1
        local from = i
        while value_class[p[i]] ~= 0 do i = i + 1 end
        if p[i] ~= 13 or p[i + 1] ~= 10 then return 0 end

        if name_length < 32 then
            local kind = kind_of[name_length * 128 + bor(p[name_start], 0x20)]
            while kind ~= 0 do
                if same_name(p, name_start, kind, name_length) then
                    local to = i
                    while p[from] == 32 do from = from + 1 end
                    while to > from and p[to - 1] == 32 do to = to - 1 end
                    if kind == HOST then
                        if host_from then return 0 end
                        host_from, host_to = from, to
                    elseif kind == CONNECTION then
                        local found = connection_options(p, from, to)
                        if options ~= 1 and found ~= 0 then options = found end
                    elseif kind == CONTENT_LENGTH then
                        if length >= 0 or to == from or to - from > 15 then return 0 end
                        length = 0
                        for j = from, to - 1 do
                            local d = p[j] - 48
                            if d < 0 or d > 9 then return 0 end
                            length = length * 10 + d
                        end
                    elseif kind < FIRST_UNIQUE then
                        return 0
                    else
                        local mark = lshift(1, kind)
                        if band(once, mark) ~= 0 then return 0 end
                        once = bor(once, mark)
                    end
                    break
                end
                kind = next_kind[kind]
            end
        end
        i = i + 2
    end
    if p[i + 1] ~= 10 then return 0 end
    i = i + 2

    if host_from then
        host = host_name(p, host_from, host_to)
        if not host then return 0 end
    elseif band(flags, HTTP_11) ~= 0 then
        return 0
    else
        host = ""
    end

    if options == 2 or (options == 0 and band(flags, HTTP_11) ~= 0) then
        flags = flags + KEEP_ALIVE
    end
    if length < 0 then length = 0 end
    return i, flags, length, method, ffi_string(p + start, stop - start), host, question
end

rt.recognise = recognise
rt.export.recognise = recognise


-- ---------------------------------------------------------------- header lines

local name_class = class("AZaz09", "-")
name_class[byte("_")] = 2
for c = 0x21, 0xff do
    if name_class[c] == 0 and c ~= 58 and c ~= 0x7f then name_class[c] = 4 end
end

-- parse_headers(raw, head_length, underscores, keep_invalid) -> n, { name1, value1, name2, value2, ... }
--
-- `n` is the number of headers. They keep order and spelling; heads are those that either side has accepted. As in nginx,
-- lines whose names have other characters than letters, digits and "-" are left out, unless
-- `underscores` allows "_" (underscores_in_headers) or `keep_invalid` all of them (ignore_invalid_headers
-- off); spaces around values are cut off, tabs are not. Line ends may be a bare LF. Lines that are no
-- headers at all are skipped.
local function parse_headers(raw, head_length, underscores, keep_invalid)
    local p = cast(bytes_t, raw)
    local stop = #raw
    if head_length and head_length < stop then stop = head_length end
    local unwanted = 4
    if not underscores then unwanted = 6 end
    if keep_invalid then unwanted = 0 end

    local list, n = new_table(32, 0), 0
    local i = 0
    while i < stop and p[i] ~= 10 do i = i + 1 end
    i = i + 1
    while i < stop do
        local name_start = i
        local seen = 0
        local c = name_class[p[i]]
        while c ~= 0 and i < stop do
            seen = bor(seen, c)
            i = i + 1
            c = name_class[p[i]]
        end
        local name_end = i
        local is_header = i < stop and p[i] == 58 and name_end > name_start
            and band(seen, unwanted) == 0
        if is_header then i = i + 1 end
        while p[i] == 32 and i < stop do i = i + 1 end
        local from = i
        while i < stop and p[i] ~= 10 do i = i + 1 end
        if is_header then
            local to = i
            if to > from and p[to - 1] == 13 then to = to - 1 end
            while to > from and p[to - 1] == 32 do to = to - 1 end
            list[n + 1] = ffi_string(p + name_start, name_end - name_start)
            list[n + 2] = ffi_string(p + from, to - from)
            n = n + 2
        end
        i = i + 1
    end
    return n / 2, list
end

rt.parse_headers = parse_headers
