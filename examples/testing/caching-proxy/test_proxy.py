"""The proxy fetches once, keeps what it may, revalidates, and survives an origin that is down."""

from pathlib import Path

import pytest
import trio

from trio_lua.testing import Answer


@pytest.fixture
def lua_conf():
    return Path(__file__).with_name("nginx.conf")


@pytest.fixture
def lua_options():
    return {"prefix": Path(__file__).parent}


def page(request):
    headers = {"Cache-Control": "max-age=3600", "ETag": '"v1"', "Content-Type": "text/plain"}
    if "if-none-match" in request.headers:
        return Answer(status=304, headers=headers)
    return Answer("the page", headers=headers)


@pytest.fixture
def origin(lua_network):
    routes = {"/page": page, "/now": Answer("now"), "/slow": Answer("slow", seconds=3)}
    return lua_network.http("127.0.0.1", 9000, routes)


async def test_an_hour(lua_client, origin):
    response = await lua_client.get("/page")
    assert (response.text, response.headers["X-Cache"]) == ("the page", "MISS")
    await trio.sleep(3599)
    assert (await lua_client.get("/page")).headers["X-Cache"] == "HIT"
    await trio.sleep(1)
    assert (await lua_client.get("/page")).headers["X-Cache"] == "REVALIDATED"
    assert (await lua_client.get("/page")).headers["X-Cache"] == "HIT"
    assert len(origin.requests) == 2
    assert origin.requests[1].headers["If-None-Match"] == '"v1"'


async def test_what_may_not_be_kept(lua_client, origin):
    for _ in range(2):
        response = await lua_client.get("/now")
        assert (response.text, response.headers["X-Cache"]) == ("now", "MISS")
    assert (await lua_client.get("/none")).status == 404
    assert origin.accepted == 1  # the connection was kept


async def test_one_fetch_for_many(lua_client, origin):
    origin.slow(0.5)
    answers = []

    async def get():
        answers.append((await lua_client.get("/page")).headers["X-Cache"])

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(get)
    assert sorted(answers) == ["HIT"] * 9 + ["MISS"]
    assert len(origin.requests) == 1


async def test_something_stale_is_better_than_nothing(lua_client, origin, lua_log):
    await lua_client.get("/page")
    await trio.sleep(3601)
    origin.refuses = True
    lua_log.allow("connect.. failed")
    response = await lua_client.get("/page")
    assert (response.text, response.headers["X-Cache"]) == ("the page", "STALE")


async def test_nothing(lua_client, origin, lua_log):
    lua_log.allow("origin: timeout|timed out")
    assert (await lua_client.get("/slow")).status == 502


async def test_an_origin_that_does_not_speak_http(lua_client, lua_network, lua_log):
    lua_log.allow("origin: no HTTP: nonsense")
    request = "GET /x HTTP/1.1\r\nHost: origin\r\n\r\n"
    lua_network.script("127.0.0.1", 9000).expect(request).send("nonsense\r\n")
    assert (await lua_client.get("/x")).status == 502
