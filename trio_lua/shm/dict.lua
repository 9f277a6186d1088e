-- The dictionary of a zone: entries in a hash table and in the order of their use.
--
-- For the API family: rt.dict.open, .get, .store, .incr, .push, .pop, .length, .expires, .set_expires, .flush_all,
-- .flush_expired, .keys, .free_bytes, .recoveries, .sound. Times are milliseconds since the epoch, which callers bring; whatever takes a zone
-- takes the mutex, and what it returns was copied under it. slab.lua says what may not happen there.
--
-- Whom nginx evicts, and when, is visible to programs (what `set` says of `forcible`, what get_stale and get_keys find), so it
-- is the same here: most operations first drop up to two entries from the old end that have expired; a full zone drops the
-- oldest ones, at most 30 times.
--
-- The hash function is a sum of the key's 32-bit words, each multiplied by a secret 64-bit number of the zone, of which the
-- upper half is taken (multilinear hashing, strongly universal): who does not know the secrets finds no keys that collide.

local rt = ...

local ffi = require "ffi"
local bit = require "bit"

local slab = rt.slab
local C, alloc, free, lock, unlock = slab.C, slab.alloc, slab.free, slab.lock, slab.unlock
local FORMATTED = slab.FORMATTED
local rshift, lshift, band, tobit = bit.rshift, bit.lshift, bit.band, bit.tobit
local cast, new, ffi_string = ffi.cast, ffi.new, ffi.string
local tonumber = tonumber

-- Words of an entry, and doubles. META is the length of the key and above it the kind of the value; a number or boolean
-- lies in NUMBER, a list's ends in HEAD and TAIL, a string behind the key. KIND 0 is an entry that is being changed.
local CHAIN, HASH, PREV, NEXT = 0, 1, 2, 3
local EXPIRES, NUMBER = 2, 3
local FLAGS, LENGTH, META, HEAD, TAIL = 8, 9, 10, 11, 12
local KEY = 17
-- What an entry takes in nginx besides key and value, which is what it is charged with.
local ENTRY_SIZE, ROOT_SIZE, NAME_SIZE = 68, 80, 28

-- Words of an element of a list.
local BEFORE, AFTER, SIZE, TYPE = 0, 1, 2, 3
local ELEMENT, ELEMENT_SIZE = 4, 21

local BOOLEAN, NUMERIC, STRING, LIST = 1, 3, 4, 5
local KIND_SHIFT, KEY_MASK = 16, 0xffff

-- Words of a zone's head: how often an operation was found unfinished, how often the zone was emptied because that had damaged
-- it, and where its name lies.
local RECOVERED, EMPTIED, NAME = 26, 27, 28

local dict = { BOOLEAN = BOOLEAN, NUMERIC = NUMERIC, STRING = STRING, ADD = 1, REPLACE = 2, SAFE = 4 }
rt.dict = dict

-- --------------------------------------------------------------------- hash function

local u8, u32, u64 = ffi.typeof("const uint8_t *"), ffi.typeof("const uint32_t *"), ffi.typeof("const uint64_t *")
local i32 = ffi.typeof("const int32_t *")
local LOW = 0xffffffffULL
local PRIME = 4294967291ULL

local function term(k, i, word)
    return k[i] * band(word, LOW) + k[i + 1] * rshift(word, 32)
end

local function term32(k, p)
    return term(k, 0, p[0]) + term(k, 2, p[1]) + term(k, 4, p[2]) + term(k, 6, p[3])
end

local function term64(k, p, q)
    return term32(k, p) + term(k, 8, q[0]) + term(k, 10, q[1]) + term(k, 12, q[2]) + term(k, 14, q[3])
end

-- Blocks of 64 bytes are the coefficients of a polynomial.
local function long_hash(k, key, size)
    local p, sum, factor = cast(u8, key), 0ULL, k[18] % PRIME
    for offset = 0, size - 64, 64 do
        local block = cast(u64, p + offset)
        sum = (sum * factor + rshift(term64(k, block, block + 4), 32)) % PRIME
    end
    local last = cast(u64, p + size - 64)
    return (sum * factor + rshift(term64(k, last, last + 4), 32)) % PRIME
end

-- Pieces of a key may overlap: with its length they are still the key.
local function hash_of(k, key, size)
    local sum = k[16] + k[17] * size
    if size > 16 then
        if size <= 32 then
            local p, q = cast(u64, key), cast(u64, cast(u8, key) + (size - 16))
            sum = sum + term(k, 0, p[0]) + term(k, 2, p[1]) + term(k, 4, q[0]) + term(k, 6, q[1])
        elseif size <= 64 then
            sum = sum + term64(k, cast(u64, key), cast(u64, cast(u8, key) + (size - 32)))
        else
            sum = sum + k[0] * long_hash(k, key, size)
        end
    elseif size >= 8 then
        sum = sum + term(k, 0, cast(u64, key)[0]) + term(k, 2, cast(u64, cast(u8, key) + (size - 8))[0])
    elseif size >= 4 then
        sum = sum + k[0] * cast(u32, key)[0] + k[1] * cast(u32, cast(u8, key) + (size - 4))[0]
    else
        local p = cast(u8, key)
        sum = sum + k[0] * (p[0] + lshift(p[rshift(size, 1)], 8) + lshift(p[size - 1], 16))
    end
    return tobit(rshift(sum, 32))
end

-- ------------------------------------------------------------------------ structure

-- Where a loop nearly always ends at once, its first turn is written out and the rest is another function: a compiled
-- trace cannot go through a loop, and would end there.

local function is(z, e, key, size, hash)
    local w = z.w
    return w[e + HASH] == hash and band(w[e + META], KEY_MASK) == size
        and C.trio_lua_shm_compare(z.base + (e + KEY) * 4, key, size) == 0
end

local function find_in(z, e, key, size, hash)
    local w = z.w
    while e ~= 0 do
        if is(z, e, key, size, hash) then
            return e
        end
        e = w[e + CHAIN]
    end
    return 0
end

local function find(z, key, size, hash)
    local w = z.w
    local e = w[z.index + band(hash, z.mask)]
    if e == 0 or is(z, e, key, size, hash) then
        return e
    end
    e = w[e + CHAIN]
    if e == 0 or is(z, e, key, size, hash) then
        return e
    end
    return find_in(z, w[e + CHAIN], key, size, hash)
end

-- Make an entry the one that was used last.
local function touch(z, e)
    local w, root = z.w, z.root
    local before = w[e + PREV]
    if before == root then
        return
    end
    local after = w[e + NEXT]
    w[before + NEXT], w[after + PREV] = after, before
    after = w[root + NEXT]
    w[e + PREV], w[e + NEXT] = root, after
    w[after + PREV], w[root + NEXT] = e, e
end

local function link(z, e, hash)
    local w, root = z.w, z.root
    local bucket = z.index + band(hash, z.mask)
    w[e + HASH] = hash
    w[e + CHAIN] = w[bucket]
    w[bucket] = e
    local after = w[root + NEXT]
    w[e + PREV], w[e + NEXT] = root, after
    w[after + PREV], w[root + NEXT] = e, e
end

local function free_chain(z, element)
    while element ~= 0 do
        local after = z.w[element + AFTER]
        free(z, element)
        element = after
    end
end

local function free_elements(z, e)
    local w = z.w
    local element = w[e + HEAD]
    if element == 0 then
        return
    end
    local after = w[element + AFTER]
    w[e + HEAD], w[e + TAIL], w[e + LENGTH] = 0, 0, 0
    free(z, element)
    if after ~= 0 then
        free_chain(z, after)
    end
end

-- The word that leads to an entry, from one before it in its chain.
local function leading_to(w, place, e)
    while w[place] ~= e do
        place = w[place] + CHAIN
    end
    return place
end

local function remove(z, e)
    local w = z.w
    if rshift(w[e + META], KIND_SHIFT) == LIST then
        free_elements(z, e)
    end
    local before, after = w[e + PREV], w[e + NEXT]
    w[before + NEXT], w[after + PREV] = after, before
    local place = z.index + band(w[e + HASH], z.mask)
    if w[place] ~= e then
        place = w[place] + CHAIN
        if w[place] ~= e then
            place = leading_to(w, place, e)
        end
    end
    w[place] = w[e + CHAIN]
    free(z, e)
end

-- Remove the oldest entry if it has expired. That the dictionary is empty needs no test: what ends the list never expires.
local function drop_one(z, now)
    local e = z.w[z.root + PREV]
    local expires = z.d[rshift(e, 1) + EXPIRES]
    if expires ~= 0 and expires <= now then
        remove(z, e)
        return true
    end
    return false
end

local function drop_expired(z, now)
    if drop_one(z, now) then
        drop_one(z, now)
    end
end

-- Remove the oldest entry, and up to two more if they have expired; false when there is none.
local function drop_oldest(z, now)
    local e = z.w[z.root + PREV]
    if e == z.root then
        return false
    end
    remove(z, e)
    drop_expired(z, now)
    return true
end

local function make_more_room(z, now, size)
    for _ = 2, 30 do
        if not drop_oldest(z, now) then
            break
        end
        local e = alloc(z, size)
        if e ~= 0 then
            return e
        end
    end
    return 0
end

-- Room for an entry, by force if need be: its place or 0, and whether others had to go.
local function make_room(z, now, size, safe)
    local e = alloc(z, size)
    if e ~= 0 or safe then
        return e, false
    end
    if not drop_oldest(z, now) then
        return 0, false
    end
    e = alloc(z, size)
    if e ~= 0 then
        return e, true
    end
    return make_more_room(z, now, size), true
end

local function format(z)
    local w = z.w
    w[FORMATTED] = 0
    slab.format(z)
    for place = z.index, z.index + z.mask do
        w[place] = 0
    end
    -- nginx has two records of its own in the zone; the first one is the beginning and end of the list of entries here
    local root = alloc(z, ROOT_SIZE)
    w[root + PREV], w[root + NEXT] = root, root
    z.d[rshift(root, 1) + EXPIRES] = 0
    local size = #z.name
    local name = alloc(z, NAME_SIZE + size)
    C.trio_lua_shm_write(z.base + name * 4, z.name, size)
    w[NAME] = name
    w[FORMATTED] = 1
end

-- -------------------------------------------------------------------------- check

local holds, check_used = slab.holds, slab.check_used

local function sound_elements(z, e)
    local w = z.w
    local before, element = 0, w[e + HEAD]
    for _ = 1, w[e + LENGTH] do
        if not holds(z, element, ELEMENT_SIZE) or w[element + BEFORE] ~= before then
            return false
        end
        local kind, size = w[element + TYPE], w[element + SIZE]
        if (kind ~= STRING and kind ~= NUMERIC) or size < 0 or not holds(z, element, ELEMENT_SIZE + size) then
            return false
        end
        check_used(z, element)
        before, element = element, w[element + AFTER]
    end
    return w[e + LENGTH] > 0 and element == 0 and w[e + TAIL] == before
end

local function sound_entry(z, e, bucket)
    local w = z.w
    if not holds(z, e, ENTRY_SIZE) then
        return false
    end
    local meta, size = w[e + META], w[e + LENGTH]
    local kind, key_size = rshift(meta, KIND_SHIFT), band(meta, KEY_MASK)
    if band(w[e + HASH], z.mask) ~= bucket or key_size == 0 or size < 0
        or not holds(z, e, ENTRY_SIZE + key_size + (kind == LIST and 0 or size)) then
        return false
    end
    check_used(z, e)
    if kind == LIST then
        return sound_elements(z, e)
    end
    return kind == STRING or kind == NUMERIC or kind == BOOLEAN
end

-- Whether everything in a zone leads to something, and exactly what is in use is reached.
local function sound(z)
    local w, root = z.w, z.root
    if w[FORMATTED] ~= 1 or not slab.check(z) or not holds(z, root, ROOT_SIZE) or not holds(z, w[NAME], NAME_SIZE) then
        return false
    end
    check_used(z, root)
    check_used(z, w[NAME])
    local before, e, listed, most = root, w[root + NEXT], 0, z.pages * 32
    while e ~= root do
        if listed > most or not holds(z, e, ENTRY_SIZE) or w[e + PREV] ~= before then
            return false
        end
        listed = listed + 1
        before, e = e, w[e + NEXT]
    end
    if w[root + PREV] ~= before then
        return false
    end
    for bucket = 0, z.mask do
        e = w[z.index + bucket]
        while e ~= 0 do
            listed = listed - 1
            if listed < 0 or not sound_entry(z, e, bucket) then
                return false
            end
            e = w[e + CHAIN]
        end
    end
    return listed == 0 and slab.check_end(z)
end

-- What comes after a lock that says that the one before did not end.
local function recover(z)
    local w, kept = z.w, sound(z)
    w[RECOVERED] = w[RECOVERED] + 1
    if not kept then
        format(z)
        w[EMPTIED] = w[EMPTIED] + 1
    end
    z.recovered = kept and "intact" or "emptied"
end

-- Every operation begins with this one and ends with leave.
local function enter(z)
    if not lock(z) then
        recover(z)
    end
end

local function leave(z)
    unlock(z)
    if z.recovered then
        local outcome = z.recovered
        z.recovered = false
        dict.on_recovery(z.name, outcome)
    end
end

--- Called after an operation that found the one before unfinished, with the zone's name and "intact" or "emptied".
function dict.on_recovery() end

--- A zone that is mapped at an address; made empty by the first to open it.
function dict.open(name, address)
    local z = slab.open(name, address)
    enter(z)
    if z.w[FORMATTED] ~= 1 then
        format(z)
        z.recovered = false
    end
    leave(z)
    return z
end

-- ----------------------------------------------------------------------- operations

-- What a value is copied to, since it can become a string only when the mutex is free again.
local room, buffer, buffer_address

local function grow(size)
    room = size
    buffer = new("char[?]", room)
    buffer_address = tonumber(cast("intptr_t", buffer))
end

local USUAL, LARGE = 4096, 1048576
grow(USUAL)

-- To be called when the value was taken out.
local function shrink()
    if room > LARGE then
        grow(USUAL)
    end
end

--- The value of a key: kind, number or string, flags, whether it has expired. kind is nil when there is none, and when it has
--- expired unless `stale`; LIST has no value.
local function get(z, now, key, size, stale)
    local hash = hash_of(z.secrets, key, size)
    local w, d = z.w, z.d
    enter(z)
    if not stale then
        drop_expired(z, now)
    end
    local e = find(z, key, size, hash)
    if e == 0 then
        leave(z)
        return nil
    end
    touch(z, e)
    local expires = d[rshift(e, 1) + EXPIRES]
    local expired = expires ~= 0 and expires < now
    if expired and not stale then
        leave(z)
        return nil
    end
    local kind, flags = rshift(w[e + META], KIND_SHIFT), w[e + FLAGS]
    if kind == STRING then
        local length = w[e + LENGTH]
        if length > room then
            leave(z)
            grow(length)
            return get(z, now, key, size, stale)
        end
        C.trio_lua_shm_read(buffer, z.base + (e + KEY) * 4 + size, length)
        leave(z)
        local text = ffi_string(buffer, length)
        shrink()
        return kind, text, flags, expired
    end
    local number = d[rshift(e, 1) + NUMBER]
    leave(z)
    return kind, number, flags, expired
end
dict.get = get

-- Write the value of an entry whose key is there. The kind is set last: until then the entry is damaged.
local function fill(z, e, size, kind, number, text, length, expires, flags)
    local w, d = z.w, z.d
    w[e + META] = size
    if kind == STRING then
        C.trio_lua_shm_write(z.base + (e + KEY) * 4 + size, text, length)
    else
        d[rshift(e, 1) + NUMBER] = number
    end
    d[rshift(e, 1) + EXPIRES] = expires
    w[e + FLAGS], w[e + LENGTH] = flags, length
    w[e + META] = size + lshift(kind, KIND_SHIFT)
end

--- Set a value (kind nil: remove it). A number or boolean (1 or 0) is `number`, a string `text`; lifetime in milliseconds, 0
--- without end; op is a sum of ADD, REPLACE, SAFE. Returns nil or an error, and whether others had to go.
function dict.store(z, now, op, key, size, kind, number, text, lifetime, flags)
    local hash = hash_of(z.secrets, key, size)
    local length = kind == STRING and #text or kind == NUMERIC and 8 or 1
    local expires = lifetime > 0 and now + lifetime or 0
    local w, d = z.w, z.d
    enter(z)
    drop_expired(z, now)
    local e = find(z, key, size, hash)
    if e ~= 0 then
        touch(z, e)
        local until_ = d[rshift(e, 1) + EXPIRES]
        local expired = until_ ~= 0 and until_ < now
        if expired then
            if band(op, 2) ~= 0 then
                leave(z)
                return "not found", false
            end
        elseif band(op, 1) ~= 0 then
            leave(z)
            return "exists", false
        end
        if kind and w[e + LENGTH] == length and rshift(w[e + META], KIND_SHIFT) ~= LIST then
            fill(z, e, size, kind, number, text, length, expires, flags)
            leave(z)
            return nil, false
        end
        remove(z, e)
    elseif band(op, 2) ~= 0 then
        leave(z)
        return "not found", false
    end
    if not kind then
        leave(z)
        return nil, false
    end
    local forcible
    e, forcible = make_room(z, now, ENTRY_SIZE + size + length, band(op, 4) ~= 0)
    if e == 0 then
        leave(z)
        return "no memory", forcible
    end
    C.trio_lua_shm_write(z.base + (e + KEY) * 4, key, size)
    fill(z, e, size, kind, number, text, length, expires, flags)
    link(z, e, hash)
    leave(z)
    return nil, forcible
end

--- Add to a number; a key that is not there begins with `init`, if that is not nil, and lives for `lifetime`. Returns the sum, or
--- nil; an error or nil; whether others had to go.
function dict.incr(z, now, key, size, step, init, lifetime)
    local hash = hash_of(z.secrets, key, size)
    local w, d = z.w, z.d
    enter(z)
    drop_expired(z, now)
    local e = find(z, key, size, hash)
    local found = e ~= 0
    if found then
        touch(z, e)
        local until_ = d[rshift(e, 1) + EXPIRES]
        if until_ == 0 or until_ >= now then
            if rshift(w[e + META], KIND_SHIFT) ~= NUMERIC then
                leave(z)
                return nil, "not a number", false
            end
            local number = d[rshift(e, 1) + NUMBER] + step
            d[rshift(e, 1) + NUMBER] = number
            leave(z)
            return number, nil, false
        end
    end
    if not init then
        leave(z)
        return nil, "not found", false
    end
    local sum, expires = init + step, lifetime > 0 and now + lifetime or 0
    if found then
        if w[e + LENGTH] == 8 and rshift(w[e + META], KIND_SHIFT) ~= LIST then
            fill(z, e, size, NUMERIC, sum, nil, 8, expires, 0)
            leave(z)
            return sum, nil, false
        end
        remove(z, e)
    end
    local forcible
    e, forcible = make_room(z, now, ENTRY_SIZE + size + 8, false)
    if e == 0 then
        leave(z)
        return nil, "no memory", forcible
    end
    C.trio_lua_shm_write(z.base + (e + KEY) * 4, key, size)
    fill(z, e, size, NUMERIC, sum, nil, 8, expires, 0)
    link(z, e, hash)
    leave(z)
    return sum, nil, forcible
end

-- ----------------------------------------------------------------------------- lists

-- A number is stored in the place of a string.
local cell = new("double[1]")
local cell_bytes = cast("char *", cell)

-- An entry of this key that holds a list: its place; 0 and an error; 0.
local function find_list(z, now, key, size, hash)
    drop_expired(z, now)
    local e = find(z, key, size, hash)
    if e == 0 then
        return 0
    end
    touch(z, e)
    local expires = z.d[rshift(e, 1) + EXPIRES]
    if expires ~= 0 and expires < now then
        return 0, nil, e
    end
    if rshift(z.w[e + META], KIND_SHIFT) ~= LIST then
        return 0, "value not a list"
    end
    return e
end

--- Put a value (number, or text if that is not nil) to the left or right end of a list. Returns its length; or nil, an
--- error, and whether no list could be made for it.
function dict.push(z, now, key, size, number, text, left)
    local hash = hash_of(z.secrets, key, size)
    cell[0] = number
    local length = text and #text or 8
    local w, d = z.w, z.d
    enter(z)
    local e, problem, expired = find_list(z, now, key, size, hash)
    if problem then
        leave(z)
        return nil, problem, false
    end
    if expired and rshift(w[expired + META], KIND_SHIFT) == LIST then
        e = expired
        free_elements(z, e)
        d[rshift(e, 1) + EXPIRES] = 0
    elseif e == 0 then
        if expired then
            remove(z, expired)
        end
        -- the words behind the key are those of nginx's list head
        e = alloc(z, band(ENTRY_SIZE + size + 16 + 15, -16))
        if e == 0 then
            leave(z)
            return nil, "no memory", true
        end
        C.trio_lua_shm_write(z.base + (e + KEY) * 4, key, size)
        w[e + HEAD], w[e + TAIL], w[e + LENGTH], w[e + FLAGS] = 0, 0, 0, 0
        d[rshift(e, 1) + EXPIRES] = 0
        w[e + META] = size + lshift(LIST, KIND_SHIFT)
        link(z, e, hash)
    end
    local element = alloc(z, ELEMENT_SIZE + length)
    if element == 0 then
        if w[e + LENGTH] == 0 then
            remove(z, e)
        end
        leave(z)
        return nil, "no memory", false
    end
    local place = z.base + (element + ELEMENT) * 4
    if text then
        C.trio_lua_shm_write(place, text, length)
    else
        C.trio_lua_shm_write(place, cell_bytes, 8)
    end
    w[element + SIZE], w[element + TYPE] = length, text and STRING or NUMERIC
    local count = w[e + LENGTH] + 1
    local end_, inward, outward = HEAD, AFTER, BEFORE
    if not left then
        end_, inward, outward = TAIL, BEFORE, AFTER
    end
    local neighbour = w[e + end_]
    w[element + inward], w[element + outward] = neighbour, 0
    if neighbour == 0 then
        w[e + HEAD], w[e + TAIL] = element, element
    else
        w[neighbour + outward], w[e + end_] = element, element
    end
    w[e + LENGTH] = count
    leave(z)
    return count
end

--- Take a value from an end of a list: it or nil, and an error or nil.
function dict.pop(z, now, key, size, left)
    local hash = hash_of(z.secrets, key, size)
    local w = z.w
    enter(z)
    local e, problem = find_list(z, now, key, size, hash)
    if e == 0 then
        leave(z)
        return nil, problem
    end
    local end_, inward, outward = HEAD, AFTER, BEFORE
    if not left then
        end_, inward, outward = TAIL, BEFORE, AFTER
    end
    local element = w[e + end_]
    local length, kind = w[element + SIZE], w[element + TYPE]
    if length > room then
        leave(z)
        grow(length)
        return dict.pop(z, now, key, size, left)
    end
    local place = z.base + (element + ELEMENT) * 4
    if kind == STRING then
        C.trio_lua_shm_read(buffer, place, length)
    else
        C.trio_lua_shm_read(cell_bytes, place, 8)
    end
    local neighbour = w[element + inward]
    if neighbour == 0 then
        remove(z, e)
    else
        w[e + end_] = neighbour
        w[neighbour + outward] = 0
        w[e + LENGTH] = w[e + LENGTH] - 1
        free(z, element)
    end
    leave(z)
    if kind == NUMERIC then
        return cell[0]
    end
    local text = ffi_string(buffer, length)
    shrink()
    return text
end

--- The length of a list, 0 where there is none; or nil and an error.
function dict.length(z, now, key, size)
    local hash = hash_of(z.secrets, key, size)
    enter(z)
    local e, problem = find_list(z, now, key, size, hash)
    local length = e ~= 0 and z.w[e + LENGTH] or 0
    leave(z)
    if problem then
        return nil, problem
    end
    return length
end

-- ---------------------------------------------------------------- lifetimes, the whole

--- When a key expires, 0 for never; nil where there is none. It does not count as a use.
function dict.expires(z, key, size)
    local hash = hash_of(z.secrets, key, size)
    enter(z)
    local e = find(z, key, size, hash)
    if e == 0 then
        leave(z)
        return nil
    end
    local expires = z.d[rshift(e, 1) + EXPIRES]
    leave(z)
    return expires
end

--- Give a key another lifetime, even one that has expired; whether there is one.
function dict.set_expires(z, now, key, size, lifetime)
    local hash = hash_of(z.secrets, key, size)
    enter(z)
    local e = find(z, key, size, hash)
    if e ~= 0 then
        z.d[rshift(e, 1) + EXPIRES] = lifetime > 0 and now + lifetime or 0
    end
    leave(z)
    return e ~= 0
end

--- Let everything expire.
function dict.flush_all(z, now)
    local w, d, root = z.w, z.d, z.root
    enter(z)
    local e = w[root + NEXT]
    while e ~= root do
        d[rshift(e, 1) + EXPIRES] = 1
        e = w[e + NEXT]
    end
    drop_oldest(z, now)
    leave(z)
end

--- Remove what has expired, at most so many (0: all), the oldest ones first. Returns how many.
function dict.flush_expired(z, now, most)
    local w, d, root = z.w, z.d, z.root
    local freed = 0
    enter(z)
    local e = w[root + PREV]
    while e ~= root do
        local newer, expires = w[e + PREV], d[rshift(e, 1) + EXPIRES]
        if expires ~= 0 and expires <= now then
            remove(z, e)
            freed = freed + 1
            if freed == most then
                break
            end
        end
        e = newer
    end
    leave(z)
    return freed
end

--- The keys of what has not expired, at most so many (0: all), those not used for longest first.
function dict.keys(z, now, most)
    local w, d, root = z.w, z.d, z.root
    -- lengths and keys one behind the other, in a buffer that is large enough
    while true do
        local used, count = 0, 0
        enter(z)
        local e = w[root + PREV]
        while e ~= root do
            local expires = d[rshift(e, 1) + EXPIRES]
            if expires == 0 or expires > now then
                local size = band(w[e + META], KEY_MASK)
                if used + 4 + size <= room then
                    -- the word with the length, and the key behind it
                    C.trio_lua_shm_copy(buffer_address + used, z.base + (e + META) * 4, 4)
                    C.trio_lua_shm_copy(buffer_address + used + 4, z.base + (e + KEY) * 4, size)
                end
                used, count = used + 4 + size, count + 1
                if count == most then
                    break
                end
            end
            e = w[e + PREV]
        end
        leave(z)
        if used <= room then
            local keys, place = {}, 0
            for i = 1, count do
                local size = band(cast(i32, buffer + place)[0], KEY_MASK)
                keys[i] = ffi_string(buffer + place + 4, size)
                place = place + 4 + size
            end
            shrink()
            return keys
        end
        grow(used * 2)
    end
end

--- Bytes of the pages that are not used at all.
function dict.free_bytes(z)
    enter(z)
    local size = slab.free_bytes(z)
    leave(z)
    return size
end

--- How often an operation was found unfinished, and how often that had damaged the zone, which is empty since.
function dict.recoveries(z)
    return z.w[RECOVERED], z.w[EMPTIED]
end

--- Whether the zone is in order; for tests.
function dict.sound(z)
    enter(z)
    local result = sound(z)
    leave(z)
    return result
end
