-- For the Python side: the patterns of a configuration (locations, rewrite, if, server_name). They
-- are nginx's own, which Debian builds on PCRE2: no translation, no UTF, and they live as
-- long as the VM.

local rt = ...

local export, pcre2 = rt.export, rt.pcre2
local sub, unpack = string.sub, unpack

if not pcre2 then
    function export.regex_compile()
        return nil, rt.regex.missing, 0
    end
    return
end

local c_match, match_data, context = pcre2.lib.trio_lua_pcre2_match, pcre2.match_data, pcre2.match_context()
local o, STEP = pcre2.offsets, pcre2.step
local FROM, TO = 0, STEP
local CASELESS, NO_JIT, NOMATCH, ERROR_JIT_STACKLIMIT
    = pcre2.CASELESS, pcre2.NO_JIT, pcre2.NOMATCH, pcre2.ERROR_JIT_STACKLIMIT

local configured, configured_count = {}, 0

-- id, or nil, message, offset
function export.regex_compile(pattern, caseless)
    local code, failure, offset = pcre2.compile(pattern, caseless and CASELESS or 0)
    if not code then
        return nil, pcre2.message(failure), offset
    end
    pcre2.jit_compile(code)
    local ncap = pcre2.info(code, pcre2.INFO_CAPTURECOUNT)
    configured_count = configured_count + 1
    configured[configured_count] = { code = code, ncap = ncap, names = pcre2.names(code) }
    return configured_count
end

-- nil for no match; nil and a number for an error; else the whole match and every group, nil for
-- groups that took no part
function export.regex_exec(id, subject)
    local c = configured[id]
    local len = #subject
    local rc = c_match(c.code, subject, len, 0, 0, match_data, context)
    if rc == ERROR_JIT_STACKLIMIT then
        rc = c_match(c.code, subject, len, 0, NO_JIT, match_data, context)
    end
    if rc < 0 then
        if rc == NOMATCH then
            return nil
        end
        return nil, rc
    end
    local ncap = c.ncap
    if ncap == 0 then
        return sub(subject, o[FROM] + 1, o[TO])
    end
    local captures = {}
    for i = 0, ncap do
        local from = o[2 * i * STEP]
        captures[i] = from >= 0 and sub(subject, from + 1, o[(2 * i + 1) * STEP]) or nil
    end
    return unpack(captures, 0, ncap)
end

-- name, group number, name, group number, ...
function export.regex_names(id)
    return unpack(configured[id].names)
end
