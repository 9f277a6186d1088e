-- ngx.re.sub and gsub: replacement with a template or a function.

local rt = ...

if not rt.pcre2 then
    return
end

local ffi = require "ffi"

local re, regex, pcre2 = rt.ngx.re, rt.regex, rt.pcre2
local get, cached, exec, next_start = regex.get, regex.cached, regex.exec, regex.next_start
local type, tostring, tonumber = type, tostring, tonumber
local sub, byte, find = string.sub, string.byte, string.find
local concat, max = table.concat, math.max
local copy, ffi_string, cast = ffi.copy, ffi.string, ffi.cast

local o, STEP, NOMATCH = pcre2.offsets, pcre2.step, pcre2.NOMATCH
local FROM, TO = 0, STEP
local bytes_ptr = ffi.typeof "const unsigned char *"

local ERROR = 4

local templates, template_count = {}, 0

-- A list of strings and group numbers, or nil and what to log.
local function parse_template(text)
    local parts, n, i, len = { n = 0 }, 0, 1, #text
    local invalid = 'lua script: invalid capturing variable name found in "' .. text .. '"'
    while i <= len do
        local dollar = find(text, "$", i, true)
        if dollar ~= i then
            n = n + 1
            parts[n] = sub(text, i, (dollar or len + 1) - 1)
            i = dollar or len + 1
        elseif i == len then
            return nil, invalid
        elseif byte(text, i + 1) == 36 then
            n = n + 1
            parts[n] = "$"
            i = i + 2
        else
            local braced = byte(text, i + 1) == 123
            local start = braced and i + 2 or i + 1
            if start > len then
                return nil, invalid
            end
            local _, stop = find(text, "^%d+", start)
            local number = stop ~= nil
            if not stop then
                _, stop = find(text, "^[%w_]*", start)
            end
            local name = sub(text, start, stop)
            if braced and byte(text, stop + 1) ~= 125 then
                return nil, 'the closing bracket in "' .. name .. '" variable is missing'
            elseif name == "" then
                return nil, invalid
            elseif not number then
                return nil, 'attempt to use named capturing variable "' .. name
                    .. '" (named captures not supported yet)'
            end
            n = n + 1
            parts[n] = tonumber(name)
            i = stop + (braced and 2 or 1)
        end
    end
    parts.n = n
    return parts
end

local function template(text)
    local parts = templates[text]
    if parts then
        return parts
    end
    local err
    parts, err = parse_template(text)
    if not parts then
        if rt.raw_log then
            rt.raw_log(ERROR, err)
        end
        return nil
    end
    if #text <= 4096 then
        if template_count >= 500 then
            templates, template_count = {}, 0
        end
        templates[text] = parts
        template_count = template_count + 1
    end
    return parts
end

-- The output of one replacement with a string: nothing else runs meanwhile, so one buffer is enough.
local OUTPUT_KEEP = 256 * 1024
local output, output_room = ffi.new("unsigned char[?]", 4096), 4096

local function grow(used, need)
    local room = max(need, output_room * 2)
    local larger = ffi.new("unsigned char[?]", room)
    copy(larger, output, used)
    output, output_room = larger, room
end

local function finish(used)
    local result = ffi_string(output, used)
    if output_room > OUTPUT_KEEP then
        output, output_room = ffi.new("unsigned char[?]", 4096), 4096
    end
    return result
end

local function substitute(c, subject, text, global)
    local parts
    if find(text, "$", 1, true) then
        parts = template(text)
        if not parts then
            return nil, nil, "failed to compile the replacement template"
        end
    end
    local len, text_len, options = #subject, #text, 0
    local pos, copied, used, count = 0, 0, 0, 0
    local source = cast(bytes_ptr, subject)
    repeat
        local rc = exec(c, subject, len, pos, options)
        if rc < 0 then
            if rc == NOMATCH then
                break
            end
            return nil, nil, "pcre_exec() failed: " .. rc
        end
        count = count + 1
        local from, to = o[FROM], o[TO]
        local gap = from - copied
        if gap > 0 then
            if used + gap > output_room then
                grow(used, used + gap)
            end
            copy(output + used, source + copied, gap)
            used = used + gap
        end
        if parts then
            for i = 1, parts.n do
                local part = parts[i]
                if type(part) == "string" then
                    local n = #part
                    if used + n > output_room then
                        grow(used, used + n)
                    end
                    copy(output + used, part, n)
                    used = used + n
                elseif part <= c.ncap then
                    local start = o[2 * part * STEP]
                    local n = o[(2 * part + 1) * STEP] - start
                    if start >= 0 and n > 0 then
                        if used + n > output_room then
                            grow(used, used + n)
                        end
                        copy(output + used, source + start, n)
                        used = used + n
                    end
                end
            end
        elseif text_len > 0 then
            if used + text_len > output_room then
                grow(used, used + text_len)
            end
            copy(output + used, text, text_len)
            used = used + text_len
        end
        copied = to
        pos = next_start(c, subject, from, to, pos)
        options = c.again
    until not global or (pos > len and from >= to)
    if count == 0 then
        return subject, 0
    end
    local rest = len - copied
    if rest > 0 then
        if used + rest > output_room then
            grow(used, used + rest)
        end
        copy(output + used, source + copied, rest)
        used = used + rest
    end
    return finish(used), count
end

-- The callback may yield, call this again, and keep what it gets: every call has its own pieces.
local function substitute_with(c, subject, replace, global)
    local len, options = #subject, 0
    local pos, copied, n, count = 0, 0, 0, 0
    local pieces = {}
    repeat
        local rc = exec(c, subject, len, pos, options)
        if rc < 0 then
            if rc == NOMATCH then
                break
            end
            return nil, nil, "pcre_exec() failed: " .. rc
        end
        count = count + 1
        local from, to = o[FROM], o[TO]
        local piece = tostring(replace(c.collect(subject, o)))
        pieces[n + 1] = from > copied and sub(subject, copied + 1, from) or ""
        pieces[n + 2] = piece
        n = n + 2
        copied = to
        pos = next_start(c, subject, from, to, pos)
        options = c.again
    until not global or (pos > len and from >= to)
    if count == 0 then
        return subject, 0
    end
    pieces[n + 1] = sub(subject, copied + 1)
    return concat(pieces, "", 1, n + 1), count
end

local function replacer(global, name)
    return function(subject, regex, replace, options)
        if type(subject) ~= "string" then
            subject = tostring(subject)
        end
        local c = cached(regex, options)
        if not c then
            local err
            c, err = get(regex, options, 2, name)
            if not c then
                return nil, nil, err
            end
        end
        if type(replace) == "function" then
            return substitute_with(c, subject, replace, global)
        end
        if type(replace) ~= "string" then
            replace = tostring(replace)
        end
        return substitute(c, subject, replace, global)
    end
end

re.sub = replacer(false, "sub")
re.gsub = replacer(true, "gsub")
