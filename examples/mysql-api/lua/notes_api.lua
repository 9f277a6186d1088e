-- The handlers of the API: each takes an open database and the number of a note, and returns a status and what becomes
-- JSON.

local cjson = require "cjson.safe"
local database = require "database"

local quote = ngx.quote_sql_str

local M = {}

local function note_of_body()
    ngx.req.read_body()
    local note = cjson.decode(ngx.req.get_body_data() or "")
    if type(note) ~= "table" or type(note.text) ~= "string" or note.text == "" then
        return nil
    end
    return note
end

local BAD = { error = "the body must be a note: {\"text\": \"...\"}" }
local NOT_THERE = { error = "there is no such note" }

function M.list(db)
    return 200, db.query("SELECT id, text, created FROM notes ORDER BY id DESC LIMIT 100")
end

function M.get(db, id)
    local note = db.query("SELECT id, text, created FROM notes WHERE id = " .. id)[1]
    if not note then
        return 404, NOT_THERE
    end
    return 200, note
end

function M.create(db)
    local note = note_of_body()
    if not note then
        return 400, BAD
    end
    local result = db.query("INSERT INTO notes (text) VALUES (" .. quote(note.text) .. ")")
    ngx.header.Location = "/notes/" .. result.insert_id
    local _, created = M.get(db, result.insert_id)
    return 201, created
end

function M.update(db, id)
    local note = note_of_body()
    if not note then
        return 400, BAD
    end
    db.query("UPDATE notes SET text = " .. quote(note.text) .. " WHERE id = " .. id)
    return M.get(db, id)
end

function M.delete(db, id)
    local result = db.query("DELETE FROM notes WHERE id = " .. id)
    if result.affected_rows == 0 then
        return 404, NOT_THERE
    end
    return 204
end

--- Answer a request with the handler for its method.
function M.dispatch(handlers, id)
    local handler = handlers[ngx.req.get_method()]
    if not handler then
        ngx.status = 405
        return ngx.print(cjson.encode { error = "not with this method" })
    end
    local status, value = database.with(function(db)
        return handler(db, id)
    end)
    ngx.status = status
    if value then
        -- a table without anything in it would be an object
        ngx.say(next(value) == nil and "[]" or cjson.encode(value))
    end
end

return M
