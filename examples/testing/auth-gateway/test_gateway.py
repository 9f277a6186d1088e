"""The gateway asks redis for sessions, remembers the answer for a while, and says so when it cannot ask."""

from pathlib import Path

import pytest
import trio

ANN = {"Cookie": "session=abc"}


@pytest.fixture
def lua_conf():
    return Path(__file__).with_name("nginx.conf")


@pytest.fixture
def lua_options():
    return {"prefix": Path(__file__).parent}


@pytest.fixture
def redis(lua_network):
    return lua_network.redis("127.0.0.1", 6379, data={"session:abc": "Ann"})


async def test_a_session(lua_client, redis):
    response = await lua_client.get("/", headers=ANN)
    assert (response.status, response.text) == (200, "hello Ann\n")
    assert redis.commands == [["GET", "session:abc"]]


async def test_no_session(lua_client, redis):
    assert (await lua_client.get("/")).status == 401
    assert (await lua_client.get("/", headers={"Cookie": "session=other"})).status == 401
    assert redis.commands == [["GET", "session:other"]]


async def test_answers_count_for_ten_seconds(lua_client, redis):
    await lua_client.get("/", headers=ANN)
    redis.database(0).drop(b"session:abc")
    await trio.sleep(9.9)
    assert (await lua_client.get("/", headers=ANN)).status == 200
    await trio.sleep(0.2)
    assert (await lua_client.get("/", headers=ANN)).status == 401
    assert len(redis.commands) == 2
    assert redis.accepted == 1  # the connection was kept


async def test_redis_is_down(lua_client, lua_network, lua_log):
    lua_log.allow("no sessions: connection refused|connect.. failed")
    lua_network.refuse("127.0.0.1", 6379)
    response = await lua_client.get("/", headers=ANN)
    assert (response.status, response.headers["Retry-After"]) == (503, "1")


async def test_redis_is_slow(lua_client, redis, lua_log):
    lua_log.allow("no sessions: timeout|timed out")
    redis.slow(0.6)
    before = trio.current_time()
    assert (await lua_client.get("/", headers=ANN)).status == 503
    assert trio.current_time() == before + 0.5
    redis.slow(0)
    assert (await lua_client.get("/", headers=ANN)).status == 200


async def test_redis_wants_a_password(lua_client, redis, lua_log):
    lua_log.allow("no sessions: NOAUTH")
    redis.password = "secret"
    assert (await lua_client.get("/", headers=ANN)).status == 503
