from __future__ import annotations

from pathlib import Path

import pytest

from trio_lua.cli.loading import from_code, from_conf, from_script, is_script, one_line
from trio_lua.config.model import Listen
from trio_lua.errors import ConfigError

HERE = (Listen("127.0.0.1", 1),)


def test_kinds() -> None:
    assert is_script("app.lua")
    assert not is_script("nginx.conf")


def test_conf(tmp_path: Path) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text("events {}\nhttp { server { listen 81; } }\n")
    config = from_conf(str(path), prefix="/p/", directives="daemon off;")
    assert (config.prefix, config.file, config.daemon) == ("/p/", str(path), False)
    path.write_text("events {}\nnonsense;\n")
    with pytest.raises(ConfigError) as caught:
        from_conf(str(path), prefix="/p/")
    assert one_line(caught.value).startswith(f'{path}:2: unknown directive "nonsense"')


def test_script(tmp_path: Path) -> None:
    path = tmp_path / "app.lua"
    path.write_text("ngx.say(1)")
    config = from_script(str(path), prefix="/p/", listens=HERE)
    [server] = config.http.servers
    assert server.listens == HERE
    [location] = server.location.locations
    assert location.content is not None
    assert location.content.path is not None
    assert location.content.path.literal == str(path)
    assert location.settings.access_logs == ()
    search = config.http.lua_package_path
    assert search is not None
    assert search.startswith(f"{tmp_path}/?.lua;{tmp_path}/?/init.lua;{tmp_path}/lib/?.lua;")
    assert search.endswith("/p/?.lua;/p/?/init.lua;;")
    with pytest.raises(ConfigError, match="No such file or directory"):
        from_script("/no/such.lua", prefix="/p/", listens=HERE)


def test_code() -> None:
    config = from_code("ngx.say('$x; {')", prefix="/p/", listens=HERE)
    [location] = config.http.servers[0].location.locations
    assert location.content is not None
    assert location.content.code == "ngx.say('$x; {')"
    assert location.content.chunk_name == "command line"
    with pytest.raises(ConfigError) as caught:
        from_code("", prefix="/p/", listens=HERE)
    assert one_line(caught.value) == "invalid location config: no runnable Lua code"
