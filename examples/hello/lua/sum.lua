-- POST /sum with {"numbers": [1, 2, 3]} answers {"sum": 6}.

local json = require "hello.json"

if ngx.req.get_method() ~= "POST" then
    ngx.header.allow = "POST"
    return json.send(405, { error = "POST a list of numbers" })
end

local input, err = json.read()
if not input then
    return json.send(400, { error = err })
end
if type(input) ~= "table" or type(input.numbers) ~= "table" then
    return json.send(400, { error = "numbers is not a list" })
end

local sum = 0
for i, number in ipairs(input.numbers) do
    if type(number) ~= "number" then
        return json.send(400, { error = "number " .. i .. " is not one" })
    end
    sum = sum + number
end
json.send(200, { sum = sum })
