-- Memory of a zone: pages, and chunks of a power of two in them.
--
-- For the dictionary: rt.slab.open, .lock, .unlock, .alloc, .free, .free_bytes, .format, .check, .holds, .check_used,
-- .check_end.
--
-- A zone is an array of 32-bit words, w; what lies in it is known by the number of its first word, which is the same in
-- every process. One rule holds for all that runs while the mutex is held, here and in dict.lua: nothing is allocated in
-- Lua. So no collection starts there and no finalizer of a user runs, memory cannot run out, and an operation is not left in
-- the middle. That is why structures are words of an array (reading a number makes no object, in the interpreter as little as in
-- compiled code), addresses are numbers, and C functions are declared to take those.
--
-- What divides memory is what nginx's slab allocator does: chunks of 32 to 2048 bytes in pages of one size each, runs
-- of pages for what is larger, first fit, neighbours joined when they are freed. A dictionary must be full exactly when it is full
-- there.

local rt = ...

local ffi = require "ffi"
local bit = require "bit"

local rshift, lshift, band = bit.rshift, bit.lshift, bit.band
local cast = ffi.cast

-- Private names of the functions, since users declare the public ones as they like.
ffi.cdef [[
int trio_lua_shm_lock(void *mutex) __asm__("pthread_mutex_lock");
int trio_lua_shm_unlock(void *mutex) __asm__("pthread_mutex_unlock");
int trio_lua_shm_consistent(void *mutex) __asm__("pthread_mutex_consistent");
int trio_lua_shm_compare(intptr_t place, const char *text, size_t size) __asm__("memcmp");
void trio_lua_shm_write(intptr_t place, const char *text, size_t size) __asm__("memcpy");
void trio_lua_shm_read(char *buffer, intptr_t place, size_t size) __asm__("memcpy");
void trio_lua_shm_copy(intptr_t buffer, intptr_t place, size_t size) __asm__("memcpy");
]]

local C = ffi.C
-- Looking up a function for the first time makes an object.
for _, name in ipairs { "lock", "unlock", "compare", "write", "read", "copy" } do
    local _ = C["trio_lua_shm_" .. name]
end

local EOWNERDEAD, EDEADLK = 130, ffi.os == "Linux" and 35 or 11
local words, doubles, keys = ffi.typeof("int32_t *"), ffi.typeof("double *"), ffi.typeof("uint64_t *")

-- Words of the head (zone.py writes 18 to 25).
local FORMATTED = 16
local PAGES, DESCRIPTORS, INDEX, BUCKETS, DATA, FREE_PAGES = 18, 19, 20, 21, 22, 23
local CAPACITY, SECRETS = 12, 32

-- Words of a page's descriptor. COUNT is that of used chunks, or of the pages of a run; FIRST the first free chunk, or in
-- the last page of a free run the descriptor of its first one; FRESH the chunks from the beginning that were
-- ever used; TALLY is for the check.
local KIND, COUNT, FIRST, FRESH, PREV, NEXT, TALLY = 0, 1, 2, 3, 4, 5, 6
local WORDS = 8

-- Kinds of pages: 0 is a free one, 1 to 7 have chunks of 32 to 2048 bytes.
local FREE, RUN, INSIDE, EDGE = 0, 8, 9, 10
local PAGE, PAGE_WORDS, PAGE_SHIFT = 4096, 1024, 10
local LARGEST_CHUNK = 2048

local chunk_words, chunks = {}, {}
for class = 1, 7 do
    chunk_words[class] = lshift(8, class - 1)
    chunks[class] = PAGE_WORDS / chunk_words[class]
end
-- one place is nginx's bitmap
chunks[1] = chunks[1] - 1

local slab = {
    FORMATTED = FORMATTED,
    C = C,
}
rt.slab = slab

--- What the functions below take: a zone that is mapped at an address.
function slab.open(name, address)
    local w = cast(words, cast("intptr_t", address))
    return {
        name = name,
        base = address,
        w = w,
        d = cast(doubles, w),
        mutex = cast("void *", w),
        secrets = cast(keys, w + SECRETS),
        lists = w[DESCRIPTORS],
        descriptors = w[DESCRIPTORS] + WORDS * 8,
        pages = w[PAGES],
        index = w[INDEX],
        mask = w[BUCKETS] - 1,
        data = w[DATA],
        -- the first chunk of the first page: see dict.lua
        root = w[DATA],
        capacity = tonumber(cast(doubles, w)[CAPACITY]),
        -- what the next operation has to report; there from the start, as a new field would be an allocation
        recovered = false,
    }
end

--- Take the mutex. False when whoever had it did not finish: its process died (this one is the owner now), or an error
--- was thrown in this thread.
function slab.lock(z)
    local status = C.trio_lua_shm_lock(z.mutex)
    if status == 0 then
        return true
    end
    if status == EOWNERDEAD then
        C.trio_lua_shm_consistent(z.mutex)
        return false
    end
    if status == EDEADLK then
        return false
    end
    error("cannot lock the shared dictionary " .. z.name .. ": error " .. status)
end

function slab.unlock(z)
    C.trio_lua_shm_unlock(z.mutex)
end

-- ------------------------------------------------------------------------- pages

local function link(w, list, page)
    local after = w[list + NEXT]
    w[page + PREV], w[page + NEXT] = list, after
    w[after + PREV], w[list + NEXT] = page, page
end

local function unlink(w, page)
    local before, after = w[page + PREV], w[page + NEXT]
    w[before + NEXT], w[after + PREV] = after, before
    w[page + NEXT] = 0
end

-- The kind of all pages of a run but the first.
local function fill_kind(w, page, count, kind)
    for i = 1, count - 1 do
        w[page + i * WORDS + KIND] = kind
    end
end

local function set_free_run(w, page, count)
    w[page + KIND], w[page + COUNT] = FREE, count
    w[page + (count - 1) * WORDS + FIRST] = page
end

-- The first free run from this one on that is long enough, or the list's head.
local function long_run(w, list, page, count)
    while page ~= list and w[page + COUNT] < count do
        page = w[page + NEXT]
    end
    return page
end

-- The descriptor of the first of so many free pages in a row; 0 when there are not. (That the first run is looked at apart:
-- see dict.lua on loops.)
local function take_pages(z, count)
    local w, list = z.w, z.lists
    local page = w[list + NEXT]
    if page ~= list and w[page + COUNT] < count then
        page = long_run(w, list, page, count)
    end
    if page == list then
        return 0
    end
    local found = w[page + COUNT]
    if found > count then
        local rest = page + count * WORDS
        set_free_run(w, rest, found - count)
        -- in the place of the whole
        local before, after = w[page + PREV], w[page + NEXT]
        w[rest + PREV], w[rest + NEXT] = before, after
        w[before + NEXT], w[after + PREV] = rest, rest
        w[page + NEXT] = 0
    else
        unlink(w, page)
    end
    w[page + KIND], w[page + COUNT] = RUN, count
    if count > 1 then
        fill_kind(w, page, count, INSIDE)
    end
    w[FREE_PAGES] = w[FREE_PAGES] - count
    return page
end

local function free_pages(z, page, count)
    local w = z.w
    w[FREE_PAGES] = w[FREE_PAGES] + count
    w[page + KIND] = FREE
    if count > 1 then
        fill_kind(w, page, count, FREE)
    end
    local after = page + count * WORDS
    if w[after + KIND] == FREE then
        count = count + w[after + COUNT]
        unlink(w, after)
    end
    local before = page - WORDS
    if w[before + KIND] == FREE then
        before = w[before + FIRST]
        count = count + w[before + COUNT]
        unlink(w, before)
        page = before
    end
    set_free_run(w, page, count)
    link(w, z.lists, page)
end

-- ------------------------------------------------------------------------ chunks

local function class_of(size)
    if size <= 128 then
        return size <= 32 and 1 or size <= 64 and 2 or 3
    elseif size <= 512 then
        return size <= 256 and 4 or 5
    end
    return size <= 1024 and 6 or 7
end

--- The first word of so many bytes; 0 when there is no room.
function slab.alloc(z, size)
    local w = z.w
    if size > LARGEST_CHUNK then
        local page = take_pages(z, rshift(size + PAGE - 1, 12))
        if page == 0 then
            return 0
        end
        return z.data + (page - z.descriptors) * (PAGE_WORDS / WORDS)
    end
    local class = class_of(size)
    local list = z.lists + class * WORDS
    local page = w[list + NEXT]
    if page == list then
        page = take_pages(z, 1)
        if page == 0 then
            return 0
        end
        w[page + COUNT], w[page + FIRST], w[page + FRESH] = 0, 0, 0
        w[page + KIND] = class
        link(w, list, page)
    end
    local chunk = w[page + FIRST]
    if chunk ~= 0 then
        w[page + FIRST] = w[chunk]
    else
        local fresh = w[page + FRESH]
        w[page + FRESH] = fresh + 1
        chunk = z.data + (page - z.descriptors) * (PAGE_WORDS / WORDS) + fresh * chunk_words[class]
    end
    local used = w[page + COUNT] + 1
    w[page + COUNT] = used
    if used == chunks[class] then
        unlink(w, page)
    end
    return chunk
end

--- Give back what alloc has returned.
function slab.free(z, place)
    local w = z.w
    local page = z.descriptors + rshift(place - z.data, PAGE_SHIFT) * WORDS
    local class = w[page + KIND]
    if class == RUN then
        return free_pages(z, page, w[page + COUNT])
    end
    local used = w[page + COUNT] - 1
    w[place] = w[page + FIRST]
    w[page + FIRST] = place
    w[page + COUNT] = used
    if w[page + NEXT] == 0 then
        link(w, z.lists + class * WORDS, page)
    end
    if used == 0 then
        unlink(w, page)
        free_pages(z, page, 1)
    end
end

function slab.free_bytes(z)
    return z.w[FREE_PAGES] * PAGE
end

--- Make all pages free.
function slab.format(z)
    local w, list = z.w, z.lists
    for place = list, z.descriptors + (z.pages + 1) * WORDS - 1 do
        w[place] = 0
    end
    for i = 0, 7 do
        local head = list + i * WORDS
        w[head + KIND], w[head + PREV], w[head + NEXT] = EDGE, head, head
    end
    w[z.descriptors + z.pages * WORDS + KIND] = EDGE
    set_free_run(w, z.descriptors, z.pages)
    link(w, list, z.descriptors)
    w[FREE_PAGES] = z.pages
end

-- ------------------------------------------------------------------------- check

-- A list of descriptors that is closed and whose members are pages; calls nothing, allocates nothing.
local function sound_list(z, list)
    local w, first, last = z.w, z.descriptors, z.descriptors + (z.pages - 1) * WORDS
    local before, page = list, w[list + NEXT]
    for _ = 0, z.pages do
        if page == list then
            return w[list + PREV] == before
        end
        if page < first or page > last or band(page - first, WORDS - 1) ~= 0 or w[page + PREV] ~= before then
            return false
        end
        before, page = page, w[page + NEXT]
    end
    return false
end

--- Begin a check: whether the pages, their lists and their chunks make sense.
function slab.check(z)
    local w, first, data = z.w, z.descriptors, z.data
    for class = 0, 7 do
        if not sound_list(z, z.lists + class * WORDS) then
            return false
        end
    end
    local i, free, free_before = 0, 0, false
    while i < z.pages do
        local page = first + i * WORDS
        local kind, count = w[page + KIND], w[page + COUNT]
        w[page + TALLY] = 0
        if kind == FREE or kind == RUN then
            if count < 1 or count > z.pages - i then
                return false
            end
            local inner = kind == FREE and FREE or INSIDE
            for k = 1, count - 1 do
                if w[page + k * WORDS + KIND] ~= inner then
                    return false
                end
            end
            if kind == FREE then
                if free_before or w[page + NEXT] == 0 or w[page + (count - 1) * WORDS + FIRST] ~= page then
                    return false
                end
                free = free + count
            elseif w[page + NEXT] ~= 0 then
                return false
            end
            i = i + count
        elseif kind >= 1 and kind <= 7 then
            local size, fresh = chunk_words[kind], w[page + FRESH]
            if fresh < 0 or fresh > chunks[kind] or count < 1 or count > fresh
                or (count == chunks[kind]) ~= (w[page + NEXT] == 0) then
                return false
            end
            local start = data + i * PAGE_WORDS
            local chunk, spare = w[page + FIRST], 0
            while chunk ~= 0 do
                local place = chunk - start
                if place < 0 or place >= fresh * size or place % size ~= 0 or spare > fresh then
                    return false
                end
                chunk, spare = w[chunk], spare + 1
            end
            if count + spare ~= fresh then
                return false
            end
            i = i + 1
        else
            return false
        end
        free_before = kind == FREE
    end
    if free ~= w[FREE_PAGES] then
        return false
    end
    -- what is in a list must be of its kind, and all of that kind must be in it
    for class = 0, 7 do
        local list = z.lists + class * WORDS
        local page = w[list + NEXT]
        while page ~= list do
            if w[page + KIND] ~= class or w[page + TALLY] ~= 0 then
                return false
            end
            w[page + TALLY] = -1
            page = w[page + NEXT]
        end
    end
    i = 0
    while i < z.pages do
        local page = first + i * WORDS
        local kind = w[page + KIND]
        if (w[page + NEXT] ~= 0) ~= (w[page + TALLY] == -1) then
            return false
        end
        w[page + TALLY] = 0
        i = i + ((kind == FREE or kind == RUN) and w[page + COUNT] or 1)
    end
    return true
end

--- Whether these are the first words of something allocated that has room for so many bytes.
function slab.holds(z, place, size)
    local w, offset = z.w, place - z.data
    if offset < 0 or offset >= z.pages * PAGE_WORDS then
        return false
    end
    local number = rshift(offset, PAGE_SHIFT)
    local page = z.descriptors + number * WORDS
    local kind, inside = w[page + KIND], offset - number * PAGE_WORDS
    if kind == RUN then
        return inside == 0 and size <= w[page + COUNT] * PAGE
    end
    if kind < 1 or kind > 7 then
        return false
    end
    local chunk = chunk_words[kind]
    return inside % chunk == 0 and inside < w[page + FRESH] * chunk and size <= chunk * 4
end

--- Tell the check that something is in use, which holds has found allocated.
function slab.check_used(z, place)
    local w, page = z.w, z.descriptors + rshift(place - z.data, PAGE_SHIFT) * WORDS
    w[page + TALLY] = w[page + TALLY] + 1
end

--- End a check: whether exactly what is allocated is in use.
function slab.check_end(z)
    local w, i = z.w, 0
    while i < z.pages do
        local page = z.descriptors + i * WORDS
        local kind, count = w[page + KIND], w[page + COUNT]
        if kind == RUN then
            if w[page + TALLY] ~= 1 then
                return false
            end
            i = i + count
        elseif kind == FREE then
            i = i + count
        else
            if w[page + TALLY] ~= count then
                return false
            end
            i = i + 1
        end
    end
    return true
end
