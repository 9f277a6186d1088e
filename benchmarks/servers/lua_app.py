"""The handlers in Lua, as the nginx.conf that both trio_lua and nginx are given."""

from __future__ import annotations

import re

from benchmarks import peers
from benchmarks.cases import BODY, LARGE, SUSPEND
from benchmarks.certificate import certificate

__all__ = ["conf"]

_HELLO = BODY.decode().rstrip("\n")
_FIRST, _SECOND = _HELLO.split(" ")

_CONF = f"""
thread_pool tasks threads=2;

events {{
    worker_connections 20000;
}}

http {{
    access_log off;
    keepalive_timeout 120s;
    keepalive_requests 1000000000;
    default_type text/plain;
    lua_shared_dict store 10m;
    lua_ssl_protocols TLSv1.2;
    init_by_lua_block {{
        sessions = {{}}
        large = string.rep("{LARGE[:1].decode()}", {len(LARGE)})
        keys = {{}}
        for i = 1, 1000 do
            keys[i] = "client:" .. i
            ngx.shared.store:set(keys[i], "the value of " .. i)
        end
    }}

    server {{
        listen 127.0.0.1:PORT LISTEN backlog=4096;

        location /hello {{
            content_by_lua_block {{
                ngx.say("{_HELLO}")
            }}
        }}
        location /phases {{
            rewrite_by_lua_block {{
                ngx.ctx.name = "{_SECOND}"
            }}
            access_by_lua_block {{
                if ngx.var.http_x_deny then
                    return ngx.exit(ngx.HTTP_FORBIDDEN)
                end
            }}
            content_by_lua_block {{
                ngx.say("{_FIRST} ", ngx.ctx.name)
            }}
        }}
        location /large {{
            content_by_lua_block {{
                ngx.print(large)
            }}
        }}
        location /echo {{
            content_by_lua_block {{
                ngx.req.read_body()
                ngx.print(ngx.req.get_body_data())
            }}
        }}
        location /shdict {{
            content_by_lua_block {{
                local store, keys = ngx.shared.store, keys
                for i = 1, 1000 do
                    local key = keys[i]
                    store:set(key, store:get(key))
                    store:incr("count", 1, 0)
                end
                ngx.say("{_HELLO}")
            }}
        }}
        location /spawn {{
            content_by_lua_block {{
                local spawn, wait = ngx.thread.spawn, ngx.thread.wait
                local function f(n) return n end
                for i = 1, 100 do
                    wait(spawn(f, i))
                end
                ngx.say("{_HELLO}")
            }}
        }}
        location /turns {{
            content_by_lua_block {{
                for i = 1, 100 do
                    ngx.sleep(0)
                end
                ngx.say("{_HELLO}")
            }}
        }}
        location /strings {{
            content_by_lua_block {{
                local parts = {{}}
                for i = 1, 1000 do
                    local key = "key" .. i % 10
                    local value = key:sub(2, 4) .. "=" .. i
                    parts[i] = value:upper()
                end
                assert(#table.concat(parts, "&") > 1000)
                ngx.say("{_HELLO}")
            }}
        }}
        location /thread {{
            content_by_lua_block {{
                assert(ngx.run_worker_thread("tasks", "string", "len", ""))
                ngx.say("{_HELLO}")
            }}
        }}
        location /redis {{
            content_by_lua_block {{
                local sock = ngx.socket.tcp()
                assert(sock:connect("127.0.0.1", REDIS))
                assert(sock:send("*2\\r\\n$3\\r\\nGET\\r\\n${len(peers.KEY)}\\r\\n{peers.KEY}\\r\\n"))
                local size = tonumber(assert(sock:receive()):match("^%$(%d+)"))
                local value = assert(sock:receive(size))
                assert(sock:receive(2))
                assert(sock:setkeepalive(60000, 100))
                ngx.say(value)
            }}
        }}
        location /bulk {{
            content_by_lua_block {{
                local sock = ngx.socket.tcp()
                assert(sock:connect("127.0.0.1", PEER))
                assert(sock:send("bulk\\n"))
                local left = {peers.BULK}
                while left > 0 do
                    left = left - #assert(sock:receiveany(65536))
                end
                assert(sock:setkeepalive(60000, 100))
                ngx.say("{_HELLO}")
            }}
        }}
        location /handshake {{
            content_by_lua_block {{
                local sock, sessions = ngx.socket.tcp(), sessions
                assert(sock:connect("127.0.0.1", TLS))
                sessions.peer = assert(sock:sslhandshake(sessions.peer, "localhost", false))
                assert(sock:send("hello\\n"))
                assert(sock:receive() == "done")
                sock:close()
                ngx.say("{_HELLO}")
            }}
        }}
        location /upstream {{
            content_by_lua_block {{
                local sock = ngx.socket.tcp()
                assert(sock:connect("127.0.0.1", PEER))
                assert(sock:send("wait\\n"))
                assert(sock:receive() == "done")
                assert(sock:setkeepalive(60000, 1000))
                ngx.say("{_HELLO}")
            }}
        }}
        location /sleep {{
            content_by_lua_block {{
                ngx.sleep(0.05)
                ngx.say("{_HELLO}")
            }}
        }}
        location /suspend {{
            content_by_lua_block {{
                ngx.sleep({SUSPEND})
                ngx.say("{_HELLO}")
            }}
        }}
    }}
}}
"""


def conf(port: int, main: str = "", *, tls: bool = False) -> str:
    """The configuration; ``main`` goes before its blocks, ``tls`` makes its server speak TLS."""
    conf = _CONF
    if tls:
        chain, key = certificate()
        conf = conf.replace("LISTEN", "ssl")
        conf = conf.replace(
            "location /hello",
            f"ssl_certificate {chain}; ssl_certificate_key {key};\nlocation /hello",
        )
    values = {"LISTEN": "", "PORT": port}
    values |= {name.upper(): peers.port(name) for name in peers.PEERS}
    for name, value in values.items():
        conf = re.sub(rf"\b{name}\b", str(value), conf)
    return main + conf
