"""The limit counts a client's requests of a minute, and each client by itself."""

from pathlib import Path

import pytest
import trio


@pytest.fixture
def lua_conf():
    return Path(__file__).with_name("nginx.conf")


@pytest.fixture
def lua_options():
    return {"prefix": Path(__file__).parent}


async def test_five_requests_pass(lua_client):
    for remaining in (4, 3, 2, 1, 0):
        response = await lua_client.get("/")
        assert response.status == 200
        assert response.headers["X-RateLimit-Remaining"] == str(remaining)
    response = await lua_client.get("/")
    assert response.status == 429
    assert response.headers["Retry-After"] == "60"


async def test_a_minute_later_they_pass_again(lua_client, lua_clock):
    for _ in range(6):
        response = await lua_client.get("/")
    assert response.status == 429
    await trio.sleep(59.9)
    response = await lua_client.get("/")
    assert (response.status, response.headers["Retry-After"]) == (429, "1")
    await trio.sleep(0.1)
    assert (await lua_client.get("/")).status == 200


async def test_each_client_has_a_limit_of_its_own(lua_server):
    one, other = lua_server.client_from("10.0.0.1"), lua_server.client_from("10.0.0.2")
    for _ in range(6):
        last = await one.get("/")
    assert last.status == 429
    assert (await other.get("/")).status == 200


async def test_at_the_same_time(lua_client):
    statuses = []

    async def get():
        statuses.append((await lua_client.get("/")).status)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(get)
    assert sorted(statuses) == [200] * 5 + [429] * 15


async def test_a_full_dictionary_lets_requests_pass(lua_client, lua_log, lua_patch):
    lua_log.allow("cannot count: no memory")
    lua_patch("ngx.shared.requests.incr", "function() return nil, 'no memory' end")
    assert (await lua_client.get("/")).status == 200
