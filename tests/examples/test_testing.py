"""The applications of examples/testing: their own tests, and the same answers from nginx."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from doc_pages import ROOT

from trio_lua.testing import Answer, Client, HttpPeer, LuaNetwork, Peer, RedisPeer, open_server

EXAMPLES = ROOT / "examples" / "testing"
MODULES = Path("/usr/lib/nginx/modules")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

needs_nginx = pytest.mark.skipif(
    NGINX is None or not (MODULES / "ngx_http_lua_module.so").exists(),
    reason="nginx with lua-nginx-module is not installed",
)


@pytest.mark.parametrize("name", ["rate-limiter", "auth-gateway", "caching-proxy"])
def test_their_own_tests(name: str, pytester: pytest.Pytester) -> None:
    shutil.copytree(EXAMPLES / name, pytester.path, dirs_exist_ok=True)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] >= 5


# -------------------------------------------------------------- the same on nginx

Ask = Callable[[Client], Awaitable[list[object]]]


async def limited(client: Client) -> list[object]:
    found: list[object] = []
    for _ in range(7):
        response = await client.get("/")
        headers = response.headers
        found.append((response.status, headers.get("X-RateLimit-Remaining")))
    return found


async def gated(client: Client) -> list[object]:
    found: list[object] = []
    for cookie in ("", "session=abc", "session=other", "session=abc"):
        response = await client.get("/", headers={"Cookie": cookie})
        found.append((response.status, response.status == 200 and response.text))
    return found


async def cached(client: Client) -> list[object]:
    found: list[object] = []
    for target in ("/page", "/page", "/page?other", "/none", "/now", "/now"):
        response = await client.get(target)
        found.append((response.status, response.text, dict(response.headers).get("x-cache")))
    return found


def page(_request: object) -> Answer:
    return Answer("the page", headers={"Cache-Control": "max-age=60", "Content-Type": "text/plain"})


def redis() -> Peer:
    return RedisPeer("redis", {"session:abc": "Ann"})


def origin() -> Peer:
    return HttpPeer("origin", {"/page": page, "/now": "now"})


@asynccontextmanager
async def nginx(folder: Path, port: int, changed: int) -> AsyncIterator[Client]:
    """nginx with an example's files; only where it listens and what it connects to is another port."""
    conf = folder / "nginx.conf"
    text = conf.read_text().replace("127.0.0.1:8000", f"unix:{folder}/s")
    conf.write_text(text.replace(str(port), str(changed)) if port else text)
    modules = "".join(
        f"load_module {MODULES}/{name}; "
        for name in ("ndk_http_module.so", "ngx_http_lua_module.so")
    )
    directives = f"{modules}daemon off; master_process off; pid {folder}/pid; user root;"
    command = [str(NGINX), "-p", f"{folder}/", "-c", str(conf), "-e", f"{folder}/error.log"]
    process = await trio.lowlevel.open_process(
        [*command, "-g", directives], stderr=subprocess.DEVNULL
    )
    try:
        while not (folder / "s").exists():
            assert process.poll() is None, (folder / "error.log").read_text()
            await trio.sleep(0.01)
        yield Client(partial(trio.open_unix_socket, folder / "s"))
    finally:
        process.kill()
        await process.wait()


@needs_nginx
@pytest.mark.parametrize(
    ("name", "ask", "port", "peer"),
    [
        ("rate-limiter", limited, 0, None),
        ("auth-gateway", gated, 6379, redis),
        ("caching-proxy", cached, 9000, origin),
    ],
)
async def test_nginx_answers_the_same(
    name: str, ask: Ask, port: int, peer: Callable[[], Peer] | None, tmp_path: Path
) -> None:
    network = LuaNetwork()
    if peer is not None:
        network.tcp("127.0.0.1", port, peer().serve)
    async with open_server(
        EXAMPLES / name / "nginx.conf", prefix=EXAMPLES / name, network=network
    ) as server:
        ours = await ask(server.client)
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder)
    async with trio.open_nursery() as nursery:
        changed = 0
        if peer is not None:
            listeners = await nursery.start(trio.serve_tcp, peer().serve, 0)
            changed = listeners[0].socket.getsockname()[1]
        async with nginx(folder, port, changed) as client:
            assert await ask(client) == ours
        nursery.cancel_scope.cancel()
