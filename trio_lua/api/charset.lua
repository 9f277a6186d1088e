-- charset: what is added to Content-Type. Bodies are not converted.

local rt = ...

local find, lower = string.find, string.lower

function rt.header_filters.charset(r, status)
    local ct = r.ct
    -- for a redirect's own page a charset would pass on to the page behind it in old browsers
    if not ct or ct == "" or status == 301 or status == 302 or find(ct, ";", 1, true) then
        return
    end
    local loc = r.loc
    local types = loc.charset_types
    if types["*"] or types[lower(ct)] then
        local name = rt.eval(r, loc.charset)
        if name ~= "" then
            r.ct = ct .. "; charset=" .. name
        end
    end
end
