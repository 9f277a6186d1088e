-- Connections to the database, through lua-resty-mysql.

local mysql = require "resty.mysql"

local getenv = os.getenv

local M = {}

-- Idle connections kept by each worker, and for how long (milliseconds).
local POOL_SIZE, IDLE = 16, 60000

local prepared = false

local function connect()
    local db = assert(mysql:new())
    db:set_timeout(3000)
    local path = getenv("MYSQL_PATH")
    local ok, err = db:connect {
        host = not path and (getenv("MYSQL_HOST") or "127.0.0.1") or nil,
        path = path,
        user = getenv("MYSQL_USER") or "notes",
        password = getenv("MYSQL_PASSWORD") or "",
        database = getenv("MYSQL_DATABASE") or "notes",
        charset = "utf8mb4",
    }
    if not ok then
        error("no database: " .. err)
    end
    return db
end

--- Call f with an object whose `query(sql)` returns rows or the counts of a change; returns what f returns.
--- An error of the database is thrown; its connection is then closed, and not kept for others.
function M.with(f)
    local connection = connect()
    local db = {}
    function db.query(sql)
        local result, err, code = connection:query(sql)
        if not result then
            error("the database says: " .. err .. " (" .. tostring(code) .. ")")
        end
        return result
    end
    if not prepared then
        db.query [[
            CREATE TABLE IF NOT EXISTS notes (
                id INT UNSIGNED PRIMARY KEY AUTO_INCREMENT,
                text TEXT NOT NULL,
                created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
            ) CHARACTER SET utf8mb4
        ]]
        prepared = true
    end
    local status, value = f(db)
    connection:set_keepalive(IDLE, POOL_SIZE)
    return status, value
end

return M
