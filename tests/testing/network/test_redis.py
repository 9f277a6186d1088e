"""The small redis, spoken to by bytes; lua-resty-redis speaks to it in tests/e2e/test_resty.py."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from talking import talk_to

from trio_lua.testing import RedisError, RedisPeer


async def talk(peer: RedisPeer, commands: str) -> list[str]:
    """The replies to commands, one a line; bulk strings without their lengths."""
    words = await talk_to(peer.serve, commands)
    return [word for word in words if not (word.startswith("$") and word != "$-1")]


@pytest.mark.parametrize(
    ("commands", "replies"),
    [
        ("PING", "+PONG"),
        ("SET a 1\nGET a\nGETSET a 2\nGETDEL a\nGET a", "+OK 1 1 2 $-1"),
        ("SET a 1 NX\nSET a 2 NX\nSET a 3 XX GET\nGET a", "+OK $-1 1 3"),
        ("SETNX a 1\nSETNX a 1\nAPPEND a 23\nSTRLEN a", ":1 :0 :3 :3"),
        ("INCR a\nINCRBY a 5\nDECR a\nDECRBY a 2\nINCRBYFLOAT a 0.5", ":1 :6 :5 :3 3.5"),
        ("SET a x\nINCR a", "+OK -ERR value is not an integer or out of range"),
        ("MSET a 1 b 2\nMGET a b c\nDEL a b c\nEXISTS a", "+OK *3 1 2 $-1 :2 :0"),
        ("HSET h a 1 b 2\nHGET h a\nHGETALL h\nHDEL h a b\nTYPE h", ":2 1 *4 a 1 b 2 :2 +none"),
        ("HMSET h a 1\nHINCRBY h a 2\nHEXISTS h a\nHMGET h a z", "+OK :3 :1 *2 3 $-1"),
        ("RPUSH l 1 2 3\nLPUSH l 0\nLRANGE l 0 -1\nLPOP l\nRPOP l", ":3 :4 *4 0 1 2 3 0 3"),
        ("RPUSH l a b a\nLREM l 1 a\nLTRIM l 1 1\nLINDEX l 0\nLLEN l", ":3 :1 +OK a :1"),
        ("SADD s b a b\nSMEMBERS s\nSISMEMBER s a\nSREM s a\nSCARD s", ":2 *2 a b :1 :1 :1"),
        ("ZADD z 2 b 1 a\nZRANGE z 0 -1\nZSCORE z b\nZCOUNT z (1 +inf", ":2 *2 a b 2 :1"),
        ("ZADD z 1 a 2 b\nZREMRANGEBYSCORE z -inf 1\nZCARD z", ":2 :1 :1"),
        (
            "SET a 1\nLPUSH a 1",
            "+OK -WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("NONSENSE", "-ERR unknown command 'NONSENSE'"),
        ("MULTI\nINCR a\nINCR a\nEXEC", "+OK +QUEUED +QUEUED *2 :1 :2"),
        ("MULTI\nINCR a\nDISCARD\nGET a", "+OK +QUEUED +OK $-1"),
        ("WATCH a\nSET a 1\nMULTI\nINCR a\nEXEC", "+OK +OK +OK +QUEUED $-1"),
        ("SELECT 1\nSET a 1\nSELECT 0\nGET a\nQUIT", "+OK +OK +OK $-1 +OK"),
    ],
)
async def test_commands(commands: str, replies: str) -> None:
    assert " ".join(await talk(RedisPeer("redis", {}), commands)) == replies


async def test_keys_expire_on_the_runs_clock(autojump_clock: Any) -> None:
    peer = RedisPeer("redis", {})
    assert await talk(peer, "SETEX a 3600 1\nTTL a\nSET b 1\nTTL b\nPERSIST b") == [
        *("+OK", ":3600", "+OK", ":-1", ":0"),
    ]
    await trio.sleep(3599.999)
    assert "a" in peer
    await trio.sleep(0.001)
    assert "a" not in peer
    assert peer.keys() == ["b"]
    assert await talk(peer, "TTL a") == [":-2"]


async def test_from_python() -> None:
    peer = RedisPeer("redis", {"text": "x", "list": [1, 2], "set": {"a"}, "hash": {"a": 1}})
    assert [peer["text"], peer["list"], peer["set"], peer["hash"]] == [
        "x",
        ["1", "2"],
        {"a"},
        {"a": "1"},
    ]
    with pytest.raises(KeyError):
        peer["none"]

    def evaluate(script: bytes, count: bytes, *rest: bytes) -> list[Any]:
        if script == b"fail":
            raise RedisError("ERR script failed")
        return [int(count), *rest]

    peer.command("eval", evaluate)
    assert await talk(peer, "EVAL x 1 key\nEVAL fail 0") == [
        *("*2", ":1", "key", "-ERR script failed"),
    ]
    assert peer.commands[0] == ["EVAL", "x", "1", "key"]


async def test_passwords() -> None:
    peer = RedisPeer("redis", {})
    peer.password = "secret"
    assert await talk(peer, "GET a\nAUTH wrong\nAUTH secret\nGET a") == [
        "-NOAUTH Authentication required.",
        "-WRONGPASS invalid username-password pair or user is disabled.",
        *("+OK", "$-1"),
    ]


async def test_publish_and_blocking_pop(autojump_clock: Any) -> None:
    peer = RedisPeer("redis", {})
    replies: list[str] = []

    async def pop() -> None:
        replies.extend(await talk(peer, "BLPOP l 10\nBLPOP l 10"))

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pop)
        nursery.start_soon(peer.serve, theirs)
        await ours.send_all(b"SUBSCRIBE c\r\nPSUBSCRIBE d*\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await talk(peer, "PUBLISH c one\nRPUSH l x")
        assert await peer.publish("d1", "two") == 1
        await trio.testing.wait_all_tasks_blocked()
        received = bytes(await ours.receive_some())
        await ours.aclose()
    assert received.split(b"\r\n")[11:17:2] == [b"", b"", b""] or b"one" in received
    assert received.endswith(b"$8\r\npmessage\r\n$2\r\nd*\r\n$2\r\nd1\r\n$3\r\ntwo\r\n")
    assert replies == ["*2", "l", "x", "$-1"]
    assert trio.current_time() == 10
