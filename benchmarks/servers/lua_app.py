"""The handlers in Lua, as the nginx.conf that both trio_lua and nginx are given."""

from __future__ import annotations

import re
from dataclasses import replace

from benchmarks.cases import BODY, LARGE, SUSPEND
from trio_lua.config.model import (
    Config,
    Http,
    Listen,
    Location,
    LuaCode,
    MatchKind,
    Server,
    Settings,
    Source,
)

__all__ = ["conf", "load"]

_HELLO = BODY.decode().rstrip("\n")
_FIRST, _SECOND = _HELLO.split(" ")

_CONF = f"""
events {{
    worker_connections 20000;
}}

http {{
    access_log off;
    keepalive_timeout 120s;
    keepalive_requests 1000000000;
    default_type text/plain;
    init_by_lua_block {{
        large = string.rep("{LARGE[:1].decode()}", {len(LARGE)})
    }}

    server {{
        listen 127.0.0.1:PORT backlog=4096;

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


def conf(port: int, main: str = "") -> str:
    """The configuration; ``main`` goes before its blocks."""
    return main + _CONF.replace("PORT", str(port))


def load(port: int) -> Config:
    """The configuration as trio_lua's model."""
    text = conf(port)
    source = Source("nginx.conf", 1)

    def code(name: str, block: str) -> LuaCode | None:
        found = re.search(rf"{name}_by_lua_block \{{(.*?)\n {{8,12}}\}}", block, re.DOTALL)
        return found and LuaCode(name, source, name, code=found[1])

    settings = Settings(keepalive_timeout=120.0, keepalive_requests=1_000_000_000)
    locations = tuple(
        Location(
            kind=MatchKind.PREFIX,
            path=path,
            settings=replace(
                settings,
                rewrite_by_lua=code("rewrite", block),
                access_by_lua=code("access", block),
            ),
            source=source,
            content=code("content", block),
        )
        for path, block in re.findall(r"location (\S+) \{(.*?)\n {8}\}", text, re.DOTALL)
    )
    init = LuaCode("init", source, "init", code=f'large = string.rep("x", {len(LARGE)})')
    outer = Location(MatchKind.SERVER, "", settings, source, locations=locations)
    server = Server((Listen("127.0.0.1", port, backlog=4096),), ("",), outer, source)
    http = Http(servers=(server,), init_by_lua=init)
    return Config(http=http, worker_connections=20000)
