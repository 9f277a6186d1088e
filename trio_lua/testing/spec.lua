-- Specs in the style of busted: describe, it, before_each and the like, and assertions in the style of luassert.
--
-- Each `it` runs in a VM of its own: the file is loaded, and of all it has only that one runs, with what stands around
-- it. So a spec cannot leave anything to another one.

local rt = ...

local type, tostring, tonumber, select, error, pcall = type, tostring, tonumber, select, error, pcall
local pairs, ipairs, setmetatable, getinfo, loadfile = pairs, ipairs, setmetatable, debug.getinfo, loadfile
local concat, sort, unpack = table.concat, table.sort, unpack
local format, find, gmatch = string.format, string.find, string.gmatch
local abs = math.abs
local raw_assert = assert

-- ------------------------------------------------------------------ values

local function shown(value, depth, seen)
    if type(value) == "string" then
        return format("%q", value)
    elseif type(value) ~= "table" then
        return tostring(value)
    elseif seen[value] or depth > 8 then
        return "{ ... }"
    end
    seen[value] = true
    local parts, n = {}, #value
    for i = 1, n do
        parts[i] = shown(value[i], depth + 1, seen)
    end
    local named = {}
    for k, v in pairs(value) do
        if not (type(k) == "number" and k >= 1 and k <= n and k % 1 == 0) then
            local name = type(k) == "string" and find(k, "^[%a_][%w_]*$") and k or "[" .. shown(k, depth + 1, seen) .. "]"
            named[#named + 1] = name .. " = " .. shown(v, depth + 1, seen)
        end
    end
    sort(named)
    for _, text in ipairs(named) do
        parts[#parts + 1] = text
    end
    seen[value] = nil
    return #parts == 0 and "{}" or "{ " .. concat(parts, ", ") .. " }"
end

local function show(value)
    return shown(value, 0, {})
end

local function same(a, b, seen)
    if a == b then
        return true
    elseif type(a) ~= "table" or type(b) ~= "table" then
        -- NaN is the same as NaN
        return a ~= a and b ~= b
    elseif seen[a] == b then
        return true
    end
    seen[a] = b
    for k, v in pairs(a) do
        if not same(v, b[k], seen) then
            return false
        end
    end
    for k in pairs(b) do
        if a[k] == nil then
            return false
        end
    end
    return true
end

-- ------------------------------------------------------------------ spies

local SPY = {}
SPY.__index = SPY

function SPY.__call(self, ...)
    local call = { n = select("#", ...), ... }
    self.calls[#self.calls + 1] = call
    if self.callback then
        return self.callback(...)
    end
end

function SPY:revert()
    if self.target then
        self.target[self.key] = self.original
    end
    return self
end

function SPY:clear()
    self.calls = {}
    return self
end

function SPY:returns(...)
    local values, n = { ... }, select("#", ...)
    self.callback = function()
        return unpack(values, 1, n)
    end
    return self
end

function SPY:invokes(f)
    self.callback = f
    return self
end
SPY.by_default = nil

local reverts

local function new_spy(callback, target, key)
    local made = setmetatable({ calls = {}, callback = callback, target = target, key = key }, SPY)
    if target then
        made.original = target[key]
        target[key] = made
        reverts[#reverts + 1] = made
    end
    return made
end

local spy = {
    new = function(f)
        return new_spy(f)
    end,
    on = function(target, key)
        return new_spy(target[key], target, key)
    end,
}

local stub = setmetatable({
    new = function(target, key)
        return new_spy(nil, target, key)
    end,
}, {
    __call = function(_, target, key, ...)
        local made = new_spy(nil, target, key)
        return select("#", ...) > 0 and made:returns(...) or made
    end,
})

local function called_with(made, ...)
    local wanted = { n = select("#", ...), ... }
    for _, call in ipairs(made.calls) do
        if call.n == wanted.n and same(call, wanted, {}) then
            return true
        end
    end
    return false
end

-- ------------------------------------------------------------------ assertions

-- Each: a function of the arguments that gives whether it holds, and in what words it does not.
local checks = {}

function checks.equal(expected, actual)
    return expected == actual, "be equal", expected, actual
end

function checks.same(expected, actual)
    return same(expected, actual, {}), "be the same", expected, actual
end

checks["true"] = function(value)
    return value == true, "be true", true, value
end

checks["false"] = function(value)
    return value == false, "be false", false, value
end

checks["nil"] = function(value)
    return value == nil, "be nil", nil, value
end

function checks.truthy(value)
    return value and true or false, "be truthy", "a true value", value
end

function checks.falsy(value)
    return not value, "be falsy", "false or nil", value
end

for _, name in ipairs { "number", "string", "table", "boolean", "function", "userdata", "thread" } do
    checks[name] = function(value)
        return type(value) == name, "be a " .. name, name, value
    end
end

function checks.near(expected, actual, tolerance)
    return abs(expected - actual) <= tolerance, "be within " .. tostring(tolerance), expected, actual
end

function checks.match(pattern, text, init, plain)
    return type(text) == "string" and find(text, pattern, init, plain) ~= nil, "match", pattern, text
end

function checks.unique(list)
    for i = 1, #list do
        for j = i + 1, #list do
            if same(list[i], list[j], {}) then
                return false, "be unique", "different values", list
            end
        end
    end
    return true, "be unique", "different values", list
end

function checks.error(f, expected)
    local ok, err = pcall(f)
    if ok then
        return false, "fail", expected == nil and "an error" or expected, "no error"
    elseif expected == nil then
        return true, "fail", "no error", err
    end
    local bare = type(err) == "string" and err:gsub("^[^\n]-:%d+: ", "", 1) or err
    return same(expected, err, {}) or same(expected, bare, {}), "fail", expected, err
end

function checks.error_match(f, pattern)
    local ok, err = pcall(f)
    local text = type(err) == "table" and show(err) or tostring(err)
    return not ok and find(text, pattern) ~= nil, "fail with a match", pattern, ok and "no error" or err
end

local aliases = {
    equals = "equal", same = "same", errors = "error", matches = "match", error_matches = "error_match",
    ["returned_error"] = "error", truthy = "truthy", falsey = "falsy", ["be_truthy"] = "truthy",
    ["matches_error"] = "error_match", called_times = "called",
}

local spies = {}

function spies.called(made, times)
    local n = #made.calls
    if times == nil then
        return n > 0, "be called", "a call", n
    end
    return n == times, "be called", times, n
end

function spies.called_with(made, ...)
    return called_with(made, ...), "be called with", { ... }, made.calls
end

function spies.called_at_least(made, times)
    return #made.calls >= times, "be called at least", times, #made.calls
end

function spies.called_at_most(made, times)
    return #made.calls <= times, "be called at most", times, #made.calls
end

local FILLERS = {
    is = true, are = true, was = true, were = true, has = true, have = true, does = true, ["do"] = true, a = true,
    an = true, be = true, to = true,
}
local NEGATIONS = { ["not"] = true, no = true, isnt = true, arent = true }

local Chain = {}

local function chain(words, negated, made)
    return setmetatable({ words = words, negated = negated, made = made }, Chain)
end

function Chain.__index(self, key)
    local words, negated = { unpack(self.words) }, self.negated
    for word in gmatch(key:lower(), "[^_]+") do
        if NEGATIONS[word] then
            negated = not negated
        elseif not FILLERS[word] then
            words[#words + 1] = word
        end
    end
    return chain(words, negated, rawget(self, "made"))
end

function Chain.__call(self, ...)
    local name = concat(self.words, "_")
    local made = rawget(self, "made")
    if not made and (name == "spy" or name == "stub") then
        return chain({}, self.negated, (...))
    end
    name = aliases[name] or name
    local check = made and spies[name] or checks[name]
    if not check then
        error("there is no assertion " .. name, 2)
    end
    local ok, words, expected, actual
    if made then
        ok, words, expected, actual = check(made, ...)
    else
        ok, words, expected, actual = check(...)
    end
    if ok == not self.negated then
        return ...
    end
    error(format("expected to %s%s\nexpected: %s\nactual:   %s", self.negated and "not " or "", words, show(expected),
        show(actual)), 2)
end

local assertion = setmetatable({
    register = function(_, _, name, f)
        checks[name] = function(...)
            local arguments = { n = select("#", ...), ... }
            return f({}, arguments, 1), name, "", arguments[1]
        end
    end,
}, {
    __index = function(_, key)
        return chain({}, false)[key]
    end,
    __call = function(_, ...)
        if ... then
            return ...
        end
        local message = select(2, ...)
        if select("#", ...) < 2 or message == nil then
            message = "assertion failed!"
        end
        error(message, type(message) == "string" and 2 or 0)
    end,
})

-- ------------------------------------------------------------------ blocks

local PENDING = {}
local here, found

local function describe(name, f)
    local outer = here
    here = { name = name, outer = outer, setup = {}, teardown = {}, before = {}, after = {} }
    f()
    here = outer
end

local function it(name, f)
    local names, block = { name }, here
    while block and block.name do
        table.insert(names, 1, block.name)
        block = block.outer
    end
    local line = getinfo(2, "l").currentline
    found[#found + 1] = { name = concat(names, " "), line = line, f = f, block = here }
end

local function hook(kind)
    return function(f)
        local list = here[kind]
        list[#list + 1] = f
    end
end

local function pending(name, _)
    if here then
        return it(name)
    end
    error(setmetatable({ text = name or "pending" }, PENDING), 0)
end

local function load_specs(path)
    reverts, found = {}, {}
    here = { setup = {}, teardown = {}, before = {}, after = {} }
    local names = {
        describe = describe, context = describe, insulate = describe, expose = describe, it = it, spec = it, test = it,
        pending = pending, before_each = hook("before"), after_each = hook("after"), setup = hook("setup"),
        teardown = hook("teardown"), lazy_setup = hook("setup"), lazy_teardown = hook("teardown"),
        strict_setup = hook("setup"), strict_teardown = hook("teardown"), randomize = function() end,
        assert = assertion, spy = spy, stub = stub,
    }
    for name, value in pairs(names) do
        rawset(_G, name, value)
    end
    raw_assert(loadfile(path))()
    here = nil
end

-- Run the functions of a kind of all blocks around a spec; those before it from outside, those behind it from inside.
local function run_hooks(block, kind, inwards)
    if inwards and block.outer then
        run_hooks(block.outer, kind, inwards)
    end
    for _, f in ipairs(block[kind]) do
        f()
    end
    if not inwards and block.outer then
        run_hooks(block.outer, kind, inwards)
    end
end

package.loaded["trio_lua.spec"] = {
    -- Names and lines of the specs of a file.
    list = function(path)
        load_specs(path)
        local list = {}
        for i, spec in ipairs(found) do
            list[i] = { spec.name, spec.line }
        end
        return list
    end,

    -- Run one of them; returns why it is pending, if it is.
    run = function(path, number)
        load_specs(path)
        local spec = found[number]
        if not spec.f then
            return "pending"
        end
        local finals = {}
        rawset(_G, "finally", function(f)
            finals[#finals + 1] = f
        end)
        local why, trace
        local function failed(err)
            if getmetatable(err) == PENDING then
                why = err.text
                return
            end
            trace = rt.frames(nil, 1)
            return err
        end
        run_hooks(spec.block, "setup", true)
        run_hooks(spec.block, "before", true)
        local ok, err = xpcall(spec.f, failed)
        for _, f in ipairs(finals) do
            f()
        end
        for _, made in ipairs(reverts) do
            made:revert()
        end
        run_hooks(spec.block, "after", false)
        run_hooks(spec.block, "teardown", false)
        if why then
            return why
        elseif not ok then
            return false, type(err) == "string" and err or show(err), trace
        end
    end,
}
