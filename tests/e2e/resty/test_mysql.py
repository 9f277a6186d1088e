"""lua-resty-mysql: every feature of its README that MariaDB has."""

from __future__ import annotations

from real_servers import DATABASE, Run, Service

NEEDS = ["resty.mysql", "resty.sha256"]

START = """
    local mysql = require "resty.mysql"
    local db = assert(mysql:new())
    db:set_timeout(10000)
    local function rows(sql)
        local result, err, code, state = db:query(sql)
        if not result then
            ngx.say(err, " ", code, " ", state)
            return {}
        end
        return result, err
    end
"""


def options(service: Service, **more: str) -> str:
    fields = {
        "path": f'"{service.path}"',
        "user": f'"{DATABASE}"',
        "password": '"secret"',
        "database": f'"{DATABASE}"',
        "charset": '"utf8mb4"',
        **more,
    }
    return "{ " + ", ".join(f"{name} = {value}" for name, value in fields.items()) + " }"


def tcp(service: Service, **more: str) -> str:
    return options(service, path="nil", host='"127.0.0.1"', port=str(service.port), **more)


async def test_queries(run: Run, mariadb: Service) -> None:
    code = f"""
        {START}
        assert(db:connect({options(mariadb)}))
        ngx.say(#db:server_ver() > 3)
        rows("DROP TABLE IF EXISTS cats")
        rows("CREATE TABLE cats (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(9), weight DOUBLE, born DATE)")
        local result = rows("INSERT INTO cats (name, weight) VALUES ('Bob', 4.5), ('', NULL), (NULL, 3)")
        ngx.say(result.affected_rows, " ", result.insert_id, " ", result.message or "")
        for _, row in ipairs(rows("SELECT * FROM cats ORDER BY id")) do
            ngx.say(row.id, " ", row.name, " ", row.weight, " ", row.born == ngx.null)
        end
        db:set_compact_arrays(true)
        ngx.say(table.concat(rows("SELECT id, name FROM cats WHERE name IS NOT NULL")[1], " "))
        db:set_compact_arrays(false)
        ngx.say(rows("UPDATE cats SET weight = 9").message)
        ngx.say(rows("SELECT 2147483648 * 4 AS n, 1.50 AS d, '\\228\\189\\160' AS t")[1].t)
        rows("SELEKT")
        ngx.say(#rows("SELECT * FROM cats WHERE id = " .. ngx.quote_sql_str("1' OR '1")))
        db:close()
    """
    lines = await run(code)
    assert lines[:8] == [
        "true",
        "3 1 Records: 3  Duplicates: 0  Warnings: 0",
        "1 Bob 4.5 true",
        "2  null true",
        "3 null 3 true",
        "1 Bob",
        "Rows matched: 3  Changed: 3  Warnings: 0",
        "\u4f60",
    ]
    assert lines[8].startswith("You have an error in your SQL syntax")
    assert lines[8].endswith(" 1064 42000")
    assert lines[9] == "1"


async def test_several_results(run: Run, mariadb: Service) -> None:
    code = f"""
        {START}
        assert(db:connect({options(mariadb)}))
        local result, err = rows("SELECT 1 AS a; SELECT 2 AS a; SELECT 3 AS a")
        while true do
            ngx.say(result[1].a, " ", err)
            if err ~= "again" then break end
            result, err = db:read_result()
        end
        rows("DROP PROCEDURE IF EXISTS both_of_them")
        rows("CREATE PROCEDURE both_of_them() BEGIN SELECT 'x' AS a; SELECT 'y' AS a; END")
        result, err = rows("CALL both_of_them()")
        ngx.say(result[1].a, " ", err)
        result, err = db:read_result()
        ngx.say(result[1].a, " ", err)
        result, err = db:read_result()
        ngx.say(#result, " ", err)
        ngx.say(db:send_query("SELECT 'sent' AS a") > 0)
        ngx.say(db:query("SELECT 1"))
        ngx.say(db:read_result(10)[1].a)
    """
    assert await run(code) == [
        "1 again",
        "2 again",
        "3 nil",
        "x again",
        "y again",
        "0 nil",
        "true",
        "nilfailed to send query: cannot send query in the current context: 2",
        "sent",
    ]


async def test_transaction_and_large_rows(run: Run, mariadb: Service) -> None:
    code = f"""
        {START}
        assert(db:connect({tcp(mariadb, max_packet_size="16 * 1024 * 1024")}))
        rows("CREATE OR REPLACE TABLE big (t LONGTEXT)")
        rows("START TRANSACTION")
        rows("INSERT INTO big VALUES ('gone')")
        rows("ROLLBACK")
        rows("INSERT INTO big VALUES ('" .. ("x"):rep(3000000) .. "')")
        local result = rows("SELECT t FROM big")
        ngx.say(#result, " ", #result[1].t)
        local many = rows("SELECT seq FROM seq_1_to_5000")
        ngx.say(#many, " ", many[5000].seq)
        db:close()
    """
    assert await run(code) == ["1 3000000", "5000 5000"]


async def test_pool(run: Run, mariadb: Service) -> None:
    settings = options(mariadb, pool='"mine"', pool_size="1", backlog="1")
    code = f"""
        {START}
        for i = 1, 2 do
            assert(db:connect({settings}))
            ngx.say(db:get_reused_times(), " ", rows("SELECT 1 AS a")[1].a)
            assert(db:set_keepalive(10000, 1))
        end
        ngx.say(db:query("SELECT 1"))
        assert(db:connect({settings}))
        local two = mysql:new()
        two:set_timeout(20)
        ngx.say(two:connect({settings}))
        db:close()
    """
    lines = await run(code, http="lua_socket_log_errors off;")
    assert lines == [
        "0 1",
        "1 1",
        "nilfailed to send query: cannot send query in the current context: nil",
        "nilfailed to connect: timeout",
    ]


async def test_tls(run: Run, mariadb: Service) -> None:
    code = f"""
        {START}
        assert(db:connect({tcp(mariadb, ssl="true", ssl_verify="false")}))
        ngx.say(rows("SHOW STATUS LIKE 'Ssl_cipher'")[1].Value ~= "")
        ngx.say(#rows("SELECT REPEAT('x', 500000) AS t")[1].t)
        assert(db:set_keepalive())
        assert(db:connect({tcp(mariadb, ssl="true")}))
        ngx.say(db:get_reused_times())
        db:close()
        ngx.say(mysql:new():connect({tcp(mariadb, ssl="true", ssl_verify="true", pool='"v"')}))
    """
    lines = await run(code, http="lua_socket_log_errors off;")
    assert lines == [
        "true",
        "500000",
        "1",
        "nilfailed to do ssl handshake: 20: unable to get local issuer certificate",
    ]


async def test_refusals(run: Run, mariadb: Service) -> None:
    code = f"""
        {START}
        ngx.say(db:connect({options(mariadb, password='"wrong"')}))
        ngx.say(db:connect({options(mariadb, database='"none"')}))
        ngx.say(db:connect({options(mariadb, path='"/none"')}))
        ngx.say(db:connect({options(mariadb, user='"nobody"', password='""')}))
        db:set_timeout(20)
        ngx.say(db:query("SELECT SLEEP(10)"))
    """
    lines = await run(code, http="lua_socket_log_errors off;")
    assert "Access denied for user 'trio_lua'@'localhost'" in lines[0]
    assert lines[0].endswith("104528000")
    assert lines[1].endswith("104442000")
    assert lines[2:] == [
        "nilfailed to connect: no such file or directory",
        "1",
        "nilfailed to receive packet header: timeout",
    ]
