-- Password hashes: PBKDF2 with HMAC-SHA-1 (RFC 8018). Runs in a thread, where the digests of ngx are there.
--
-- One hash takes some ten milliseconds here: a server that did this beside its other requests
-- would make all of them wait.

local bit = require "bit"

local password = {}

local ROUNDS = 10000

-- 32-bit words of a digest.
local function words(s)
    local list = {}
    for i = 1, #s, 4 do
        local a, b, c, d = s:byte(i, i + 3)
        list[#list + 1] = bit.bor(bit.lshift(a, 24), bit.lshift(b, 16), bit.lshift(c, 8), d)
    end
    return list
end

local function hex(list)
    for i = 1, #list do
        list[i] = bit.tohex(list[i])
    end
    return table.concat(list)
end

--- The first block of the derived key, in hexadecimal digits.
function password.derive(text, salt, rounds)
    local u = ngx.hmac_sha1(text, salt .. "\0\0\0\1")
    local key = words(u)
    for _ = 2, rounds do
        u = ngx.hmac_sha1(text, u)
        local next_words = words(u)
        for i = 1, #key do
            key[i] = bit.bxor(key[i], next_words[i])
        end
    end
    return hex(key)
end

--- What to store in place of a password.
function password.hash(text)
    local random = assert(io.open("/dev/urandom", "rb"))
    local salt = ngx.encode_base64(random:read(12))
    random:close()
    return ("pbkdf2-sha1$%d$%s$%s"):format(ROUNDS, salt, password.derive(text, salt, ROUNDS))
end

--- Whether a password is that of a stored hash; it takes the same time wherever the two differ.
function password.check(stored, text)
    local rounds, salt, wanted = stored:match("^pbkdf2%-sha1%$(%d+)%$([^$]+)%$(%x+)$")
    if not rounds or #wanted ~= 40 or tonumber(rounds) > 10 * ROUNDS then
        return false
    end
    local found, difference = password.derive(text, salt, tonumber(rounds)), 0
    for i = 1, #wanted do
        difference = bit.bor(difference, bit.bxor(wanted:byte(i), found:byte(i)))
    end
    return difference == 0
end

return password
