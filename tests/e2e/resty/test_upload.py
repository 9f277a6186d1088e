"""lua-resty-upload: forms from a client of flesh and bytes, in every way its README has."""

from __future__ import annotations

import hashlib
from pathlib import Path

from real_servers import Run

NEEDS = ["resty.upload", "resty.sha1"]

#: What the README shows.
FORM = (
    b'--frontier\r\nContent-Disposition: form-data; name="file1"; filename="a.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nHello, world\r\n"
    b'--frontier\r\nContent-Disposition: form-data; name="test"\r\n\r\nvalue\r\n\r\n--frontier--\r\n'
)

#: Sends the file ``form`` to a location and says what comes back.
SEND = """
    local function data() return assert(io.open("FOLDER/form", "rb")):read("*a") end
    local function post(path, fields, body, length)
        local sock = assert(ngx.socket.connect("unix:FOLDER/s"))
        sock:settimeout(5000)
        assert(sock:send { "POST ", path, " HTTP/1.0\\r\\n", fields, "\\r\\nContent-Length: ", length or #body,
            "\\r\\n\\r\\n", body })
        return sock
    end
    local function answer(sock)
        ngx.print(sock:receive("*a"):match("\\r\\n\\r\\n(.*)"))
        sock:close()
    end
    local TYPE = "Content-Type: multipart/form-data; boundary=frontier"
"""

#: Says each thing that a form has.
READ = """
    location /read {
        content_by_lua_block {
            local cjson = require "cjson"
            local args = ngx.req.get_uri_args()
            local form, err = require("resty.upload"):new(tonumber(args.chunk), tonumber(args.line))
            if not form then return ngx.say("no form: ", err) end
            form:set_timeout(tonumber(args.timeout) or 2000)
            repeat
                local kind, result, err = form:read()
                if not kind then return ngx.say("failed: ", err) end
                ngx.say(cjson.encode { kind, result })
            until kind == "eof"
            ngx.say((form:read()))
        }
    }
"""


def send(folder: Path, form: bytes, code: str) -> str:
    (folder / "form").write_bytes(form)
    return (SEND + code).replace("FOLDER", str(folder))


async def test_the_example(run: Run, tmp_path: Path) -> None:
    code = send(tmp_path, FORM, 'answer(post("/read?chunk=5", TYPE, data()))')
    lines = await run(code, more=READ, listen=f"{tmp_path}/s")
    assert [line.replace("\\/", "/") for line in lines] == [
        r'["header",["Content-Disposition","form-data; name=\"file1\"; filename=\"a.txt\"",'
        r'"Content-Disposition: form-data; name=\"file1\"; filename=\"a.txt\""]]',
        '["header",["Content-Type","text/plain","Content-Type: text/plain"]]',
        '["body","Hello"]',
        '["body",", wor"]',
        '["body","ld"]',
        '["part_end"]',
        r'["header",["Content-Disposition","form-data; name=\"test\"",'
        r'"Content-Disposition: form-data; name=\"test\""]]',
        '["body","value"]',
        r'["body","\r\n"]',
        '["part_end"]',
        '["eof"]',
        "eof",
    ]


async def test_sizes_by_default(run: Run, tmp_path: Path) -> None:
    """Pieces of 4096 bytes, lines of 512; a boundary in quotes, and words in front of the first one."""
    long = b'Content-Disposition: form-data; name="%b"\r\n\r\n' % (b"n" * 600)
    form = b"preamble\r\n--frontier\r\nContent-Type: x\r\n\r\n" + b"x" * 5000
    form += b"\r\n--frontier\r\n" + long
    code = """
        local quoted = 'Content-Type: multipart/form-data; boundary="frontier"'
        answer(post("/read", quoted, data()))
        answer(post("/read?line=9", quoted, data()))
    """
    lines = await run(send(tmp_path, form, code), more=READ, listen=f"{tmp_path}/s")
    assert [len(line) for line in lines[1:3]] == [
        len('["body",""]') + 4096,
        len('["body",""]') + 904,
    ]
    assert lines[3] == '["part_end"]'
    assert lines[4].startswith("failed: line too long: Content-Disposition")
    assert lines[5:] == ["failed: line too long: Content-Ty..."]


async def test_large_files(run: Run, tmp_path: Path) -> None:
    """A digest of each file, as the README shows it."""
    files = [bytes(range(256)) * 3000, b"\r\n--front" * 50000]
    form = b"".join(b"--frontier\r\nContent-Type: x\r\n\r\n%b\r\n" % file for file in files)
    more = """
        location /digest {
            client_max_body_size 4m;
            content_by_lua_block {
                local sha1, form = require("resty.sha1"):new(), require("resty.upload"):new(4096)
                while true do
                    local kind, result = assert(form:read())
                    if kind == "body" then
                        sha1:update(result)
                    elseif kind == "part_end" then
                        ngx.say(require("resty.string").to_hex(sha1:final()))
                        sha1:reset()
                    elseif kind == "eof" then
                        break
                    end
                end
            }
        }
    """
    code = send(tmp_path, form + b"--frontier--", 'answer(post("/digest", TYPE, data()))')
    lines = await run(code, more=more, listen=f"{tmp_path}/s")
    assert lines == [hashlib.sha1(file).hexdigest() for file in files]


async def test_the_body_is_kept(run: Run, tmp_path: Path) -> None:
    more = """
        location /keep {
            content_by_lua_block {
                local chunk = tonumber(ngx.var.arg_chunk)
                local form = assert(require("resty.upload"):new(chunk, 512, true))
                repeat local kind = assert(form:read()) until kind == "eof"
                local file = ngx.req.get_body_file()
                ngx.say(file == nil)
                ngx.print(file and io.open(file):read("*a") or ngx.req.get_body_data())
            }
        }
    """
    code = """
        answer(post("/keep?chunk=5", TYPE, data()))
        answer(post("/keep?chunk=4096", TYPE, data()))
    """
    lines = await run(send(tmp_path, FORM, code), more=more, listen=f"{tmp_path}/s")
    whole = FORM.decode().splitlines()
    assert lines == ["false", *whole, "true", *whole]


async def test_bad_forms(run: Run, tmp_path: Path) -> None:
    code = """
        answer(post("/read", "Content-Type: text/plain", data()))
        answer(post("/read", "X: y", data()))
        answer(post("/read", TYPE, ""))
        answer(post("/read?timeout=5", TYPE, data():sub(1, 40), 1000))
        answer(post("/read", TYPE, data():sub(1, -8)))
        post("/read", TYPE, data():sub(1, 40), 1000):close()
    """
    http = "lua_socket_log_errors off;"
    lines = await run(send(tmp_path, FORM, code), more=READ, listen=f"{tmp_path}/s", http=http)
    boundary = "no form: no boundary defined in Content-Type"
    assert lines[:4] == [boundary, boundary, "no form: no body", "failed: timeout"]
    assert lines[-1] == "failed: closed"
