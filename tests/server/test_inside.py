"""Requests from inside the process find the server that a URL names."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

import trio_lua
from trio_lua.testing import LuaServer

ANSWER = """content_by_lua_block {
    local v = ngx.var
    ngx.print(v.server_name, " ", v.scheme, " ", v.server_port, " ", v.http_host, " ", v.request_uri)
}"""


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("inside")
    certificate = trustme.CA().issue_cert("shop.test")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "shop.pem"))
    return f"""
    events {{}}
    http {{
        access_log off;
        server {{ listen 80; server_name shop.test; location / {{ return 301 https://$host$request_uri; }} }}
        server {{ listen 80; server_name other.test; location / {{ {ANSWER} }} }}
        server {{
            listen 127.0.0.1:443 ssl;
            server_name shop.test;
            ssl_certificate {folder}/shop.pem;
            ssl_certificate_key {folder}/shop.pem;
            location / {{ {ANSWER} }}
        }}
        server {{ listen [::1]:8443 ssl; ssl_certificate {folder}/shop.pem; ssl_certificate_key {folder}/shop.pem;
            location / {{ {ANSWER} }} }}
    }}
    """


CASES = [
    ("https://shop.test/a?b=c", "shop.test https 443 shop.test /a?b=c"),
    ("http://other.test", "other.test http 80 other.test /"),
    ("https://shop.test:8443/", " https 8443 shop.test:8443 /"),
]


async def test_clients_of_tests(make_lua_server: Any, conf: str) -> None:
    server: LuaServer = await make_lua_server(conf)
    assert (await server.get("/a")).headers["location"] == "https://localhost/a"
    for url, answer in CASES:
        assert (await server.get(url)).text == answer
        assert (await server.client_from("10.0.0.7").get(url)).text == answer
    with pytest.raises(ValueError, match="no https on port 80; it has http on 80, https on 443, h"):
        await server.get("https://shop.test:80/")


async def test_programs(conf: str) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(trio_lua.serve, trio_lua.loads(conf), listeners=[])
        server: trio_lua.Server = await nursery.start(serve)
        assert (await server.request("GET", "/")).status == 301
        for url, answer in CASES:
            assert (await server.request("GET", url)).text == answer
        with pytest.raises(ValueError, match="no http on port 81"):
            await server.request("GET", "http://shop.test:81/")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("first", ["443 ssl", "unix:/nowhere/socket"])
async def test_the_first_listen(make_lua_server: Any, conf: str, first: str) -> None:
    """Whatever that is."""
    certificate = conf[conf.rindex("ssl_certificate ") : conf.rindex("location / ")]
    config = f"events {{}} http {{ server {{ listen {first}; {certificate} location / {{ return 200 yes; }} }} }}"
    server: LuaServer = await make_lua_server(config)
    assert (await server.get("/")).text == "yes"


async def test_certificates_of_another_machine(make_lua_server: Any, lua_log: Any) -> None:
    config = """
    events {}
    http { server {
        listen 443 ssl;
        ssl_certificate /nowhere/fullchain.pem;
        ssl_certificate_key /nowhere/key.pem;
        ssl_dhparam /nowhere/dhparam.pem;
        location / { return 200 $scheme; }
    } }
    """
    server: LuaServer = await make_lua_server(config)
    assert (await server.get("https://any.test/")).text == "https"
    assert "a stand-in is served for the certificate /nowhere/fullchain.pem" in lua_log
    with pytest.raises(trio_lua.ConfigError, match="nowhere"):
        await make_lua_server(config, real_certificates=True)
